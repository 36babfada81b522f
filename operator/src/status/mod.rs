//! From what was seen and done to what people and programs read: pure.
//!
//! Ready is true exactly when pods, ring and drain are as the spec of this generation says. Stalled is there only for a
//! spec that cannot succeed, Reconciling only while something is under way, as kstatus wants it. Figures that change all
//! the time are rounded, so that an idle cache writes no status.

mod nodes;
mod reasons;

use jiff::Timestamp as Moment;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use zimcache_ring::Document;
use zimcache_types::Timestamp;

use crate::{
    conditions::Conditions,
    crd::{GatewayCount, Phase, RingStatus, ZimCacheStatus, condition},
    dereference::World,
    names::Component,
    ring::{Step, Wait},
    rollout::Rollout,
    storage::Growth,
    validate::{Cache, Problems},
};

pub use nodes::active;
use reasons::{Reason, not_ready};

/// A change of the ring that takes longer than this is called blocked; with much data and little network it only is long.
const SLOW_TRANSITION: std::time::Duration = std::time::Duration::from_mins(10);

/// What a status is made of.
#[derive(Debug)]
pub struct Observation<'a> {
    /// The cache.
    pub cache: &'a Cache,
    /// What is there.
    pub world: &'a World,
    /// The nodes' set, as it came back when it was applied.
    pub node_set: Option<&'a StatefulSet>,
    /// The gateways, as they came back when they were applied.
    pub gateways: Option<&'a Deployment>,
    /// The ring in force.
    pub document: Option<&'a Document>,
    /// What comes next for the ring.
    pub step: &'a Step,
    /// What comes next for the pods.
    pub rollout: &'a Rollout,
    /// How many pods of nodes there have to be.
    pub node_pods: i32,
    /// How the volumes stand.
    pub growth: &'a Growth,
    /// Whether the certificates can be used; or what is wrong.
    pub certificates: Result<(), String>,
    /// What went wrong, if something did: a word and a sentence.
    pub failure: Option<(&'static str, String)>,
    /// Now.
    pub now: Timestamp,
}

/// The time as the API has it.
pub fn moment(now: Timestamp) -> Moment {
    let millis = i64::try_from(now.0).unwrap_or(i64::MAX);
    Moment::from_millisecond(millis - millis % 1_000).unwrap_or_default()
}

/// The status.
pub fn status(seen: &Observation<'_>, before: &ZimCacheStatus) -> ZimCacheStatus {
    let cache = seen.cache;
    let nodes = nodes::list(seen);
    let ready = nodes::ready_pods(seen);
    let reason = not_ready(seen);
    let mut conditions = Conditions::new(&before.conditions, cache.generation, moment(seen.now));
    overall(seen, reason.as_ref(), &mut conditions);
    subsystems(seen, &mut conditions);
    let capacity: i64 = nodes.iter().map(|node| node.capacity_bytes).sum();
    let used: i64 = nodes.iter().map(|node| node.used_bytes).sum();
    ZimCacheStatus {
        observed_generation: Some(cache.generation),
        phase: Some(phase(seen, reason.as_ref())),
        replicas: i32::try_from(seen.world.nodes.len()).unwrap_or(i32::MAX),
        ready_replicas: ready,
        selector: cache.names.pods_query(Component::Node),
        gateways: gateways(seen),
        ring: seen.document.map(|document| ring(seen, document)),
        capacity_bytes: capacity,
        used_bytes: used,
        capacity: (capacity > 0).then(|| nodes::text(capacity)),
        used: (capacity > 0).then(|| nodes::text(used)),
        hit_ratio: hit_ratio(seen),
        nodes,
        conditions: conditions.finish(),
    }
}

/// The status of a spec that cannot succeed. What runs goes on as it is, so the rest of the status stays.
pub fn stalled(
    problems: &Problems,
    generation: i64,
    before: &ZimCacheStatus,
    now: Timestamp,
) -> ZimCacheStatus {
    let mut conditions = Conditions::new(&before.conditions, generation, moment(now));
    let message = problems.to_string();
    conditions.set(condition::READY, false, "InvalidSpec", &*message);
    conditions.set(condition::STALLED, true, "InvalidSpec", &*message);
    conditions.set(condition::PROGRESSING, false, "InvalidSpec", message);
    ZimCacheStatus {
        observed_generation: Some(generation),
        phase: Some(Phase::Stalled),
        conditions: conditions.finish(),
        ..before.clone()
    }
}

/// The status after a round that failed. The rest stays: nothing new is known.
pub fn failed(
    word: &'static str,
    sentence: &str,
    generation: i64,
    before: &ZimCacheStatus,
    now: Timestamp,
) -> ZimCacheStatus {
    let mut conditions = Conditions::new(&before.conditions, generation, moment(now));
    conditions.set(condition::READY, false, word, sentence);
    conditions.set(condition::PROGRESSING, true, word, sentence);
    conditions.set(condition::RECONCILING, true, word, sentence);
    let mut conditions = conditions.finish();
    let others = before.conditions.iter().filter(|old| {
        old.type_ != condition::STALLED && conditions.iter().all(|new| new.type_ != old.type_)
    });
    let others: Vec<_> = others.cloned().collect();
    conditions.extend(others);
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    ZimCacheStatus {
        conditions,
        ..before.clone()
    }
}

fn overall(seen: &Observation<'_>, reason: Option<&Reason>, conditions: &mut Conditions<'_>) {
    match reason {
        None => conditions.set(
            condition::READY,
            true,
            "AsSpecified",
            "pods, ring and drain are as the spec says",
        ),
        Some(reason) => conditions.set(condition::READY, false, reason.word, &*reason.sentence),
    }
    let is_under_way = reason.is_some_and(|reason| !reason.is_final) && !seen.cache.spec.paused;
    let (word, sentence) = reason.map_or(("AsSpecified", ""), |reason| {
        (reason.word, &*reason.sentence)
    });
    conditions.set(condition::PROGRESSING, is_under_way, word, sentence);
    if is_under_way {
        conditions.set(condition::RECONCILING, true, word, sentence);
    }
    if let Some(reason) = reason.filter(|reason| reason.is_final) {
        conditions.set(condition::STALLED, true, reason.word, &*reason.sentence);
    }
    let (serves, why) = nodes::availability(seen);
    let word = if serves { "Serving" } else { "NotServing" };
    conditions.set(condition::AVAILABLE, serves, word, why);
    match nodes::lacking(seen) {
        Some(lack) => conditions.set(condition::DEGRADED, true, "Incomplete", lack),
        None => conditions.set(condition::DEGRADED, false, "Complete", ""),
    }
    let paused = seen.cache.spec.paused;
    let word = if paused { "Paused" } else { "NotPaused" };
    let sentence = if paused {
        "spec.paused is true: nothing is changed"
    } else {
        ""
    };
    conditions.set(condition::RECONCILIATION_PAUSED, paused, word, sentence);
}

fn subsystems(seen: &Observation<'_>, conditions: &mut Conditions<'_>) {
    match &seen.certificates {
        Ok(()) => conditions.set(condition::CERTIFICATES_READY, true, "Issued", ""),
        Err(why) => conditions.set(condition::CERTIFICATES_READY, false, "NotIssued", why),
    }
    let resizing = match seen.growth {
        Growth::Settled => None,
        Growth::Patch { claims } => Some((
            "Asking",
            format!("more is asked for: {}", claims.join(", ")),
        )),
        Growth::Recreate => Some(("Recreating", "the StatefulSet is made again".to_owned())),
        Growth::Waiting { claims } => Some((
            "Growing",
            format!("the storage works on {}", claims.join(", ")),
        )),
        Growth::Refused { class } => Some((
            "Refused",
            format!("storage class {class} does not let volumes grow"),
        )),
    };
    match resizing {
        Some((word, sentence)) => conditions.set(condition::STORAGE_RESIZING, true, word, sentence),
        None => conditions.set(condition::STORAGE_RESIZING, false, "AsSpecified", ""),
    }
    ring_conditions(seen, conditions);
    reachable(seen, conditions);
}

fn ring_conditions(seen: &Observation<'_>, conditions: &mut Conditions<'_>) {
    let changed = seen.world.ring.as_ref().and_then(|ring| ring.changed);
    let is_late = |limit| changed.is_some_and(|changed| changed.plus(limit) <= seen.now);
    let waiting = match seen.step {
        Step::Wait(Wait::HandOver(members)) => members.as_slice(),
        _ => &[],
    };
    let is_blocked = !waiting.is_empty() && is_late(SLOW_TRANSITION);
    let (word, sentence) = if is_blocked {
        (
            "WaitingForMembers",
            format!("waiting for {}", waiting.join(", ")),
        )
    } else {
        ("NotBlocked", String::new())
    };
    conditions.set(
        condition::RING_TRANSITION_BLOCKED,
        is_blocked,
        word,
        sentence,
    );
    let leaving: Vec<&str> = seen.document.map(nodes::leaving).unwrap_or_default();
    let is_blocked =
        !leaving.is_empty() && !waiting.is_empty() && is_late(seen.cache.drain_timeout);
    let (word, sentence) = if is_blocked {
        let (who, whom) = (leaving.join(", "), waiting.join(", "));
        (
            "HandOverTakesLong",
            format!("{who} cannot leave yet: waiting for {whom}"),
        )
    } else {
        ("NotBlocked", String::new())
    };
    conditions.set(condition::SCALE_DOWN_BLOCKED, is_blocked, word, sentence);
}

/// What the pods say of the bucket and of Redis. Absent where there is none.
fn reachable(seen: &Observation<'_>, conditions: &mut Conditions<'_>) {
    let spec = &seen.cache.spec;
    if spec.durable_tier.is_some() {
        let reports = seen.world.reports.values().flatten();
        let said: Vec<(&str, Option<bool>)> = reports
            .map(|report| (report.id.as_str(), report.tier_reachable))
            .collect();
        judge(
            condition::DURABLE_TIER_REACHABLE,
            &said,
            "the bucket",
            conditions,
        );
    }
    if spec.rate_limits.redis.is_some() {
        let reports = seen.world.gateway_reports.iter();
        let said: Vec<(&str, Option<bool>)> = reports
            .filter_map(|(pod, report)| Some((pod.as_str(), report.as_ref().ok()?.redis_up)))
            .collect();
        judge(
            condition::RATE_LIMITER_REACHABLE,
            &said,
            "Redis",
            conditions,
        );
    }
}

fn judge(kind: &str, said: &[(&str, Option<bool>)], what: &str, conditions: &mut Conditions<'_>) {
    let says_no: Vec<&str> = said
        .iter()
        .filter(|(_, answer)| *answer == Some(false))
        .map(|(pod, _)| *pod)
        .collect();
    if !says_no.is_empty() {
        let sentence = format!("{what} does not answer {}", says_no.join(", "));
        return conditions.set(kind, false, "Unreachable", sentence);
    }
    if said.iter().any(|(_, answer)| *answer == Some(true)) {
        return conditions.set(kind, true, "Reachable", "");
    }
    conditions.unknown(kind, "NobodyTells", format!("nobody has asked {what} yet"));
}

fn gateways(seen: &Observation<'_>) -> GatewayCount {
    let spec = seen.gateways.and_then(|gateways| gateways.spec.as_ref());
    let status = seen.gateways.and_then(|gateways| gateways.status.as_ref());
    GatewayCount {
        desired: spec.and_then(|spec| spec.replicas).unwrap_or(0),
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
    }
}

fn ring(seen: &Observation<'_>, document: &Document) -> RingStatus {
    let members = document.current().members.iter();
    RingStatus {
        epoch: i64::try_from(document.epoch()).unwrap_or(i64::MAX),
        members: members.map(|member| member.id.clone()).collect(),
        changing: document.previous().is_some(),
        waiting_for: match seen.step {
            Step::Wait(Wait::HandOver(members) | Wait::Newcomers(members)) => members.clone(),
            _ => Vec::new(),
        },
    }
}

fn phase(seen: &Observation<'_>, reason: Option<&Reason>) -> Phase {
    let (serves, _) = nodes::availability(seen);
    match reason {
        _ if seen.cache.spec.paused => Phase::Paused,
        Some(reason) if reason.is_final => Phase::Stalled,
        Some(_) if seen.document.is_none() => Phase::Creating,
        Some(_) if *seen.step != Step::Settled => Phase::Scaling,
        Some(_) if *seen.rollout != Rollout::Done => Phase::Updating,
        Some(_) if serves => Phase::Degraded,
        Some(_) => Phase::Creating,
        None => Phase::Running,
    }
}

/// Whole percent, which move slowly.
fn hit_ratio(seen: &Observation<'_>) -> Option<String> {
    let reports: Vec<_> = seen.world.gateway_reports.values().flatten().collect();
    let hits: u64 = reports.iter().map(|report| report.hits).sum();
    let all = hits + reports.iter().map(|report| report.misses).sum::<u64>();
    (all > 0).then(|| format!("{}%", hits * 100 / all))
}

#[cfg(test)]
mod tests;
