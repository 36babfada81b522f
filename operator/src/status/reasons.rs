//! Why a cache is not as its spec says: the first reason that holds, in the order in which things have to come right.

use k8s_openapi::api::apps::v1::StatefulSet;

use super::{Observation, nodes};
use crate::{
    ring::{Step, Wait},
    rollout::Rollout,
    storage::Growth,
};

/// A reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// One word for programs.
    pub(super) word: &'static str,
    /// One sentence for people.
    pub(super) sentence: String,
    /// Whether it stays so until somebody changes the spec.
    pub(super) is_final: bool,
}

fn reason(word: &'static str, sentence: impl Into<String>) -> Reason {
    Reason {
        word,
        sentence: sentence.into(),
        is_final: false,
    }
}

/// Why the cache is not ready; `None` if it is.
pub(super) fn not_ready(seen: &Observation<'_>) -> Option<Reason> {
    unusable(seen)
        .or_else(|| surroundings(seen))
        .or_else(|| ring(seen))
        .or_else(|| pods(seen))
        .or_else(|| gateways(seen))
        .or_else(|| following(seen))
}

/// What no waiting helps against.
fn unusable(seen: &Observation<'_>) -> Option<Reason> {
    let is_final = |word, sentence| Reason {
        word,
        sentence,
        is_final: true,
    };
    if let Growth::Refused { class } = seen.growth {
        let sentence = format!(
            "storage class {class} does not let volumes grow; write the former nodes.storage.size"
        );
        return Some(is_final("StorageClassRefuses", sentence));
    }
    let factor = u32::try_from(seen.cache.spec.replication.factor).unwrap_or(1);
    let ring = seen.document.map(zimcache_ring::Document::replicas)?;
    let sentence = format!(
        "the data that is there has {ring} copies of everything; write replication.factor: {ring}"
    );
    (ring != factor).then(|| is_final("OtherReplicationFactor", sentence))
}

fn surroundings(seen: &Observation<'_>) -> Option<Reason> {
    if let Some((word, sentence)) = &seen.failure {
        return Some(reason(word, sentence.clone()));
    }
    let problems = &seen.world.secrets.problems;
    if !problems.is_empty() {
        return Some(reason("SecretMissing", problems.join("; ")));
    }
    if let Err(why) = &seen.certificates {
        return Some(reason("CertificatesNotReady", why.clone()));
    }
    match seen.growth {
        Growth::Settled => None,
        _ => Some(reason("StorageResizing", "volumes are growing")),
    }
}

fn ring(seen: &Observation<'_>) -> Option<Reason> {
    let word = "RingChanging";
    match seen.step {
        Step::Settled => None,
        Step::Create(_) => Some(reason(word, "the first ring was made just now")),
        Step::Publish(_, why) => Some(reason(word, why.clone())),
        Step::Wait(Wait::Machines(pods)) => Some(reason(
            "PodsPending",
            format!("no machine yet for {}", pods.join(", ")),
        )),
        Step::Wait(Wait::Newcomers(pods)) => Some(reason(
            "NodesStarting",
            format!("waiting for {} to answer", pods.join(", ")),
        )),
        Step::Wait(Wait::HandOver(pods)) => Some(reason(
            word,
            format!("waiting for {} to hand over", pods.join(", ")),
        )),
        Step::Wait(Wait::Refused(why)) => Some(reason("RingRefused", why.clone())),
    }
}

fn pods(seen: &Observation<'_>) -> Option<Reason> {
    match seen.rollout {
        Rollout::Done | Rollout::Held(_) => {}
        Rollout::Waiting(left, why) => {
            let left = left.join(", ");
            return Some(reason(
                "NodesUpdating",
                format!("{left} are out of date; {why}"),
            ));
        }
        Rollout::Restart(pod) => {
            return Some(reason("NodesUpdating", format!("{} is replaced", pod.name)));
        }
    }
    if let Some(sentence) = nodes::trouble(&seen.world.nodes) {
        return Some(reason("NodesNotReady", sentence));
    }
    let wanted = seen.cache.spec.nodes.replicas;
    let ready = nodes::ready_pods(seen);
    if seen.node_pods > wanted {
        return following(seen).or_else(|| Some(reason("NodesChanging", "a node that left goes")));
    }
    if !is_current(seen.node_set) || seen.node_pods != wanted {
        return Some(reason("NodesChanging", "the StatefulSet is not there yet"));
    }
    let there = i32::try_from(seen.world.nodes.len()).unwrap_or(i32::MAX);
    if there != wanted || ready != wanted {
        return Some(reason(
            "NodesNotReady",
            format!("{ready} of {wanted} nodes are ready"),
        ));
    }
    nodes::not_active(seen).map(|sentence| reason("NodesNotActive", sentence))
}

/// Whether what the controllers of Kubernetes say is about the set as it was applied.
fn is_current(set: Option<&StatefulSet>) -> bool {
    let observed = set.and_then(|set| set.status.as_ref()?.observed_generation);
    let wanted = set.and_then(|set| set.metadata.generation);
    wanted.is_some() && observed >= wanted
}

fn gateways(seen: &Observation<'_>) -> Option<Reason> {
    let word = "GatewaysNotReady";
    if let Some(sentence) = nodes::trouble(&seen.world.gateway_pods) {
        return Some(reason(word, sentence));
    }
    let Some(gateways) = seen.gateways else {
        return Some(reason(word, "there is no Deployment yet"));
    };
    let status = gateways.status.clone().unwrap_or_default();
    let wanted = gateways
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    if status.observed_generation < gateways.metadata.generation {
        return Some(reason(word, "the Deployment was changed just now"));
    }
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let all = status.replicas.unwrap_or(0);
    if (updated, available, all) == (wanted, wanted, wanted) {
        // Until it is gone it may answer as the spec before said, without a token that is new, say.
        let mut pods = seen.world.gateway_pods.iter();
        let leaving = pods.find(|pod| pod.is_terminating)?;
        return Some(reason(word, format!("{} is still leaving", leaving.name)));
    }
    let sentence = format!(
        "{available} of {wanted} gateways are available, {updated} up to date, {all} in all"
    );
    Some(reason(word, sentence))
}

/// Whether everybody knows the ring.
fn following(seen: &Observation<'_>) -> Option<Reason> {
    let epoch = seen.document?.epoch();
    let behind = seen.world.behind(epoch);
    let sentence = format!(
        "{} not following the ring of epoch {epoch} yet",
        behind.join(", ")
    );
    (!behind.is_empty()).then(|| reason("RingNotFollowed", sentence))
}
