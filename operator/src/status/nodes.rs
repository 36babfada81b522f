//! How the nodes stand, one by one and together.

use std::collections::BTreeSet;

use zimcache_ring::{Document, Member, State};

use super::Observation;
use crate::{
    crd::{NodePhase, NodeStatus},
    dereference::World,
    drain,
    names::Names,
    node_client::NodeReport,
    pods::PodView,
};

/// Figures are rounded to this many parts of the capacity.
const STEPS: i64 = 1_000;

/// The nodes, by number: those in the ring, and those that have a pod.
pub(super) fn list(seen: &Observation<'_>) -> Vec<NodeStatus> {
    let names = &seen.cache.names;
    let of_ring = seen.document.into_iter().flat_map(Document::members);
    let of_ring = of_ring.filter_map(|member| names.ordinal(&member.id));
    let of_pods = seen
        .world
        .nodes
        .iter()
        .filter_map(|pod| names.ordinal(&pod.name));
    let ordinals: BTreeSet<i32> = of_ring.chain(of_pods).collect();
    ordinals
        .into_iter()
        .map(|ordinal| one(seen, ordinal))
        .collect()
}

fn one(seen: &Observation<'_>, ordinal: i32) -> NodeStatus {
    let name = seen.cache.names.pod(ordinal);
    let report = report(seen.world, &name);
    let member = seen
        .document
        .and_then(|document| document.members().find(|it| it.id == name));
    let figures = report.cloned().unwrap_or_default();
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let capacity = count(figures.stats.capacity_bytes);
    NodeStatus {
        ordinal,
        state: state(seen, member, report),
        reachable: report.is_some(),
        zone: member.map(|member| member.zone.clone()).unwrap_or_default(),
        version: figures.version,
        capacity_bytes: capacity,
        used_bytes: rounded(count(figures.stats.live_bytes), capacity),
        dirty: count(figures.dirty),
        hints: count(figures.hints),
        synced_epoch: count(figures.synced_epoch),
        name,
    }
}

/// To a thousandth of the capacity.
fn rounded(used: i64, capacity: i64) -> i64 {
    let step = (capacity / STEPS).max(1);
    used / step * step
}

fn report<'a>(world: &'a World, name: &str) -> Option<&'a NodeReport> {
    world.reports.get(name)?.as_ref().ok()
}

fn state(
    seen: &Observation<'_>,
    member: Option<&Member>,
    report: Option<&NodeReport>,
) -> NodePhase {
    let Some(member) = member else {
        let is_wanted = |report: &NodeReport| {
            let ordinal = seen.cache.names.ordinal(&report.id);
            ordinal.is_some_and(|ordinal| ordinal < seen.cache.spec.nodes.replicas)
        };
        // Only one that has left is there without being wanted.
        return match report {
            Some(report) if !is_wanted(report) => NodePhase::Drained,
            _ => NodePhase::Starting,
        };
    };
    match (member.state, report) {
        (State::Lost, _) => NodePhase::Lost,
        (State::Drained, _) => NodePhase::Drained,
        // A pod that has never said that it serves is on its way, one that has said so is away.
        (_, None) if is_starting(seen.world, &member.id) => NodePhase::Starting,
        (_, None) => NodePhase::Unreachable,
        (State::Draining, _) => NodePhase::Draining,
        (State::Joining, _) => NodePhase::Joining,
        (State::Ready, Some(report)) if report.catching_up => NodePhase::CatchingUp,
        (State::Ready, _) => NodePhase::Active,
    }
}

fn is_starting(world: &World, name: &str) -> bool {
    let pod = world.nodes.iter().find(|pod| pod.name == name);
    pod.is_none_or(|pod| !pod.is_ready && !pod.is_terminating)
}

/// The nodes in full service: in the ring, answering, knowing all that they missed.
pub fn active(document: Option<&Document>, world: &World) -> BTreeSet<String> {
    let members = document
        .into_iter()
        .flat_map(|document| &document.current().members);
    let serves = |member: &&Member| {
        let caught_up = report(world, &member.id).is_some_and(|report| !report.catching_up);
        let pod = world.nodes.iter().find(|pod| pod.name == member.id);
        member.state == State::Ready
            && caught_up
            && pod.is_some_and(|pod| pod.is_ready && !pod.is_terminating)
    };
    members
        .filter(serves)
        .map(|member| member.id.clone())
        .collect()
}

/// Members that are on their way out.
pub(super) fn leaving(document: &Document) -> Vec<&str> {
    drain::draining(document)
        .map(|member| member.id.as_str())
        .collect()
}

/// Pods of nodes that say that they serve.
pub(super) fn ready_pods(seen: &Observation<'_>) -> i32 {
    let ready = seen
        .world
        .nodes
        .iter()
        .filter(|pod| pod.is_ready && !pod.is_terminating);
    i32::try_from(ready.count()).unwrap_or(i32::MAX)
}

/// What keeps pods from running.
pub(super) fn trouble(pods: &[PodView]) -> Option<String> {
    let each = pods
        .iter()
        .filter_map(|pod| Some(format!("{}: {}", pod.name, pod.trouble.as_ref()?)));
    let all: Vec<String> = each.collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Which of the wanted nodes is not in full service.
pub(super) fn not_active(seen: &Observation<'_>) -> Option<String> {
    let active = active(seen.document, seen.world);
    let wanted = wanted(&seen.cache.names, seen.cache.spec.nodes.replicas);
    let missing: Vec<String> = wanted.filter(|pod| !active.contains(pod)).collect();
    (!missing.is_empty()).then(|| format!("{} not in full service", missing.join(", ")))
}

fn wanted(names: &Names, replicas: i32) -> impl Iterator<Item = String> {
    (0..replicas).map(|ordinal| names.pod(ordinal))
}

/// Whether clients are served: a gateway, and of each item's owners at least one.
pub(super) fn availability(seen: &Observation<'_>) -> (bool, String) {
    let gateways = super::gateways(seen).ready;
    if gateways == 0 {
        return (false, "no gateway is ready".to_owned());
    }
    let Some(document) = seen.document else {
        return (false, "there is no ring yet".to_owned());
    };
    let members = &document.current().members;
    let away = members
        .iter()
        .filter(|member| report(seen.world, &member.id).is_none())
        .count();
    let copies = document.replicas() as usize;
    if away >= copies.min(members.len()) {
        return (
            false,
            format!("{away} of {} nodes do not answer", members.len()),
        );
    }
    (true, String::new())
}

/// What there is less of than there should be.
pub(super) fn lacking(seen: &Observation<'_>) -> Option<String> {
    let document = seen.document?;
    let away = document.current().members.iter().filter(|member| {
        let report = report(seen.world, &member.id);
        member.state == State::Lost || report.is_none_or(|report| report.catching_up)
    });
    let away: Vec<&str> = away.map(|member| member.id.as_str()).collect();
    let count = super::gateways(seen);
    if !away.is_empty() {
        return Some(format!("{} not in full service", away.join(", ")));
    }
    let lack = count.ready < count.desired;
    lack.then(|| format!("{} of {} gateways are ready", count.ready, count.desired))
}

/// Bytes for people, as Kubernetes writes them.
pub(super) fn text(bytes: i64) -> String {
    const UNITS: [(&str, i64); 4] = [
        ("Ti", 1 << 40),
        ("Gi", 1 << 30),
        ("Mi", 1 << 20),
        ("Ki", 1 << 10),
    ];
    let fits = |(_, factor): &&(&str, i64)| bytes >= *factor;
    let Some((unit, factor)) = UNITS.iter().find(fits) else {
        return bytes.to_string();
    };
    let (whole, tenth) = (bytes / factor, bytes % factor * 10 / factor);
    if whole >= 10 || tenth == 0 {
        return format!("{whole}{unit}");
    }
    format!("{whole}.{tenth}{unit}")
}
