//! `kubectl zim status`: one cache with its nodes, or all caches of a namespace.
//!
//! All of it is the status that the operator wrote; when that is older than the spec, it is said first.

use std::fmt::Write as _;

use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{ResourceExt as _, api::ListParams};

use super::{Cluster, Error, Result, output};
use crate::crd::{NodePhase, NodeStatus, ZimCache, ZimCacheStatus, condition};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the ZimCache [default: all of the namespace]
    name: Option<String>,
    /// Prints the status as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(cluster: &Cluster, args: &Arguments) -> Result<()> {
    let caches = match &args.name {
        Some(name) => vec![cluster.cache(Some(name)).await?],
        None => cluster.caches().list(&ListParams::default()).await?.items,
    };
    if args.json {
        let statuses: Vec<_> = caches.iter().map(|cache| &cache.status).collect();
        return match (&args.name, statuses.first()) {
            (Some(_), Some(only)) => output::print_json(only),
            _ => output::print_json(&statuses),
        };
    }
    match caches.as_slice() {
        [] => Err(Error::NoCache(cluster.namespace.clone())),
        [only] => output::print(&describe(only)),
        several => output::print(&overview(several)),
    }
}

fn overview(caches: &[ZimCache]) -> String {
    let head = ["CACHE", "PHASE", "NODES", "GATEWAYS", "USED", "OF", "HITS"];
    let rows: Vec<[String; 7]> = caches.iter().map(overview_row).collect();
    output::table(head, 2, &rows)
}

fn overview_row(cache: &ZimCache) -> [String; 7] {
    let status = cache.status.clone().unwrap_or_default();
    [
        cache.name_any(),
        phase(&status),
        format!("{}/{}", status.ready_replicas, cache.spec.nodes.replicas),
        format!("{}/{}", status.gateways.ready, status.gateways.desired),
        output::bytes(status.used_bytes),
        output::bytes(status.capacity_bytes),
        status.hit_ratio.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn phase(status: &ZimCacheStatus) -> String {
    let phase = status
        .phase
        .map(|phase| format!("{phase:?}").to_lowercase());
    phase.unwrap_or_else(|| "unknown".to_owned())
}

const HEAD: [&str; 9] = [
    "NODE", "STATE", "ZONE", "VERSION", "USED", "OF", "HINTS", "DIRTY", "SYNCED",
];

pub(super) fn describe(cache: &ZimCache) -> String {
    let name = cache.name_any();
    let Some(status) = &cache.status else {
        return format!("{name}: no operator has looked at it yet; is one running?\n");
    };
    let mut text = headline(cache, &name, status);
    let rows: Vec<[String; 9]> = status.nodes.iter().map(row).collect();
    if !rows.is_empty() {
        text.push('\n');
        text += &output::table(HEAD, 4, &rows);
    }
    let ring = status.ring.clone().unwrap_or_default();
    if !ring.waiting_for.is_empty() {
        let names = ring.waiting_for.join(", ");
        text.extend(["\nthe change waits for ", &names, "\n"]);
    }
    let remarks: Vec<String> = status.conditions.iter().filter_map(remark).collect();
    if !remarks.is_empty() {
        text.push('\n');
        text.extend(remarks);
    }
    text
}

fn headline(cache: &ZimCache, name: &str, status: &ZimCacheStatus) -> String {
    let (spec, ring) = (&cache.spec, status.ring.clone().unwrap_or_default());
    let nodes = usize::try_from(spec.nodes.replicas).unwrap_or(0);
    let mut text = format!("{name}: {}", phase(status));
    if status.observed_generation != cache.metadata.generation {
        text += " (the operator has not seen the last change of the spec yet)";
    }
    let copies = usize::try_from(spec.replication.factor).unwrap_or(0);
    // Writing to a String cannot fail.
    write!(
        text,
        "\n{} wanted, {} ready, {} of everything, epoch {}{}\n",
        output::counted(nodes, "node", "nodes"),
        status.ready_replicas,
        output::counted(copies, "copy", "copies"),
        ring.epoch,
        if ring.changing {
            ", a change is under way"
        } else {
            ""
        },
    )
    .ok();
    let used = output::bytes(status.used_bytes);
    let capacity = output::bytes(status.capacity_bytes);
    let gateways = &status.gateways;
    let hits = status.hit_ratio.as_deref().unwrap_or("none yet");
    writeln!(
        text,
        "{} of {} gateways ready, {used} of {capacity} used, hits {hits}",
        gateways.ready, gateways.desired
    )
    .ok();
    text
}

fn row(node: &NodeStatus) -> [String; 9] {
    let state = state(node.state);
    if !node.reachable {
        let mut row = [(); 9].map(|()| "-".to_owned());
        row[0].clone_from(&node.name);
        row[1] = match node.state {
            NodePhase::Unreachable => state.to_owned(),
            _ => format!("{state}, no answer"),
        };
        row[2].clone_from(&node.zone);
        row[3].clone_from(&node.version);
        return row;
    }
    [
        node.name.clone(),
        state.to_owned(),
        node.zone.clone(),
        node.version.clone(),
        output::bytes(node.used_bytes),
        output::bytes(node.capacity_bytes),
        node.hints.to_string(),
        node.dirty.to_string(),
        node.synced_epoch.to_string(),
    ]
}

const fn state(phase: NodePhase) -> &'static str {
    match phase {
        NodePhase::Starting => "starting",
        NodePhase::Joining => "joining",
        NodePhase::Active => "active",
        NodePhase::CatchingUp => "catching up",
        NodePhase::Draining => "draining",
        NodePhase::Drained => "drained",
        NodePhase::Lost => "lost",
        NodePhase::Unreachable => "no answer",
    }
}

/// What people should know of a condition; nothing when it is as it should be.
fn remark(condition: &Condition) -> Option<String> {
    let good = match condition.type_.as_str() {
        // Progressing once more, for programs.
        condition::RECONCILING => return None,
        condition::READY
        | condition::AVAILABLE
        | condition::CERTIFICATES_READY
        | condition::DURABLE_TIER_REACHABLE
        | condition::RATE_LIMITER_REACHABLE => "True",
        _ => "False",
    };
    if condition.status == good {
        return None;
    }
    let said = match condition.message.as_str() {
        "" => &condition.reason,
        message => message,
    };
    let not = if good == "True" { "not " } else { "" };
    let unknown = if condition.status == "Unknown" {
        "perhaps "
    } else {
        ""
    };
    Some(format!("{unknown}{not}{}: {said}\n", condition.type_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(status: serde_json::Value) -> ZimCache {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
            "metadata": { "name": "main", "generation": 2 },
            "spec": {}, "status": status,
        }))
        .unwrap()
    }

    fn full() -> serde_json::Value {
        serde_json::json!({
            "observedGeneration": 2, "phase": "Scaling", "readyReplicas": 2, "hitRatio": "87%",
            "usedBytes": 3_i64 << 30, "capacityBytes": 16_i64 << 30, "gateways": { "desired": 2, "ready": 2 },
            "ring": { "epoch": 7, "members": [], "changing": true, "waitingFor": ["main-node-1"] },
            "nodes": [
                { "name": "main-node-0", "ordinal": 0, "state": "Active", "reachable": true, "zone": "a",
                  "version": "0.1.0", "usedBytes": 3_i64 << 30, "capacityBytes": 8_i64 << 30, "hints": 4 },
                { "name": "main-node-1", "ordinal": 1, "state": "Draining", "zone": "b" },
            ],
            "conditions": [
                condition("Ready", "False", "a change is under way"),
                condition("Available", "True", "all is well"),
                condition("Degraded", "False", "nothing is missing"),
            ],
        })
    }

    fn condition(kind: &str, status: &str, message: &str) -> serde_json::Value {
        serde_json::json!({ "type": kind, "status": status, "message": message, "reason": "R",
            "lastTransitionTime": "2026-11-01T00:00:00Z" })
    }

    #[test]
    fn a_cache_is_described_with_its_nodes_and_with_what_is_not_as_it_should_be() {
        let text = describe(&cache(full()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "main: scaling");
        assert_eq!(
            lines[1],
            "3 nodes wanted, 2 ready, 2 copies of everything, epoch 7, a change is under way"
        );
        assert_eq!(
            lines[2],
            "2 of 2 gateways ready, 3GiB of 16GiB used, hits 87%"
        );
        assert!(lines[5].starts_with("main-node-0  active"), "{text}");
        assert!(lines[6].contains("draining, no answer"), "{text}");
        assert!(text.contains("the change waits for main-node-1"), "{text}");
        assert!(text.contains("not Ready: a change is under way"), "{text}");
        assert!(
            !text.contains("Available") && !text.contains("Degraded"),
            "{text}"
        );
    }

    #[test]
    fn an_old_status_and_a_missing_operator_are_said() {
        let mut old = full();
        old["observedGeneration"] = 1.into();
        assert!(describe(&cache(old)).contains("has not seen the last change"));
        let none = cache(serde_json::Value::Null);
        assert!(describe(&none).contains("no operator has looked at it"));
        assert!(overview(&[none, cache(full())]).contains("main   scaling"));
    }
}
