//! The volumes of the nodes in a round: those of nodes that left, and those that went with their machine.

use crate::{
    apply, build,
    crd::ReclaimPolicy,
    dereference::{Claim, World},
    drain,
    events::News,
    names::{Component, MANAGER},
    reconcile::{Error, Outcome, Tools},
    storage::{self, lost::Verdict},
    validate::Cache,
};

/// What becomes of a node's volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Stays,
    /// It is noted that its node has left and that nothing on it is missed.
    Noted,
    /// It goes.
    Deleted,
}

/// What becomes of a volume when so many nodes are needed. One that a node has left is never used again: what was
/// written since then is not on it, and a node that comes back with it would know old versions for the newest.
fn fate(claim: Claim, needed: i32, has_pod: bool, reclaim: ReclaimPolicy) -> Fate {
    if claim.is_going || has_pod {
        return Fate::Stays;
    }
    let is_wanted = claim.ordinal < needed;
    match (is_wanted, claim.is_left) {
        (true, true) => Fate::Deleted,
        (false, _) if reclaim == ReclaimPolicy::Delete => Fate::Deleted,
        (false, false) => Fate::Noted,
        (true, false) | (false, true) => Fate::Stays,
    }
}

/// How many pods there can be: none above the first whose former volume is still to go.
pub(crate) fn pods_possible(world: &World, needed: i32) -> i32 {
    let set = world.node_set.as_ref().and_then(|set| set.spec.as_ref());
    let there = set.and_then(|set| set.replicas).unwrap_or(0);
    let in_the_way = |claim: &&Claim| {
        (claim.is_left || claim.is_going) && (there..needed).contains(&claim.ordinal)
    };
    let blocked = world
        .claims
        .iter()
        .filter(in_the_way)
        .map(|claim| claim.ordinal);
    blocked.min().unwrap_or(needed)
}

/// Volumes of nodes that have left.
pub(crate) async fn release(
    tools: &Tools<'_>,
    cache: &Cache,
    world: &World,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let Some(document) = &outcome.document else {
        return Ok(());
    };
    let needed = drain::pods_needed(&cache.names, cache.spec.nodes.replicas, Some(document));
    let needed = needed.max(outcome.node_pods);
    for claim in &world.claims {
        let pod = cache.names.pod(claim.ordinal);
        if cache.forced.contains(&pod) || cache.lost.contains(&pod) {
            // It did not hand over: what is on it may be nowhere else.
            continue;
        }
        let has_pod = world.nodes.iter().any(|it| it.name == pod);
        let name = cache.names.claim(&pod);
        match fate(*claim, needed, has_pod, cache.spec.nodes.storage.reclaim) {
            Fate::Stays => {}
            Fate::Noted => apply::note_left(tools.client, &cache.names, &name).await?,
            Fate::Deleted => {
                apply::delete_claim(tools.client, &cache.names, &name).await?;
                let note = format!("{name}: its node had handed over everything and left");
                outcome.news.push(News::normal("VolumeDeleted", note));
            }
        }
    }
    Ok(())
}

/// An own right, which the operator may lack: it goes on without.
pub(crate) async fn replace_lost(
    tools: &Tools<'_>,
    cache: &Cache,
    of: &storage::Of,
    outcome: &mut Outcome,
) {
    match storage::replace_lost(tools.client, of, &cache.lost, tools.now).await {
        Ok(Verdict::Replace { pod, claim }) => {
            let note = format!("{claim} went with its machine; {pod} gets an empty volume");
            outcome.news.push(News::warning("VolumeLost", note));
            let mut lost = cache.lost.clone();
            if lost.remove(&pod)
                && let Err(error) = apply::keep_lost(tools.client, &cache.names, &lost).await
            {
                tracing::warn!(%error, "the annotation of lost nodes could not be changed");
            }
        }
        Ok(Verdict::TooMany { lost, of }) => {
            let note = format!(
                "{} of {of} volumes look lost; that is not believed: declare them lost one by one",
                lost.len()
            );
            outcome.failure = Some(("TooManyLost", note));
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "lost volumes could not be looked for"),
    }
}

/// The nodes, as their storage is looked after.
pub(crate) fn of(cache: &Cache) -> storage::Of {
    storage::Of {
        namespace: cache.names.namespace.clone(),
        set: cache.names.of(Component::Node),
        selector: cache.names.pods_query(Component::Node),
        field_manager: MANAGER.to_owned(),
        owner: build::owner(cache),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;

    fn claim(ordinal: i32, is_left: bool) -> Claim {
        Claim {
            ordinal,
            is_left,
            is_going: false,
        }
    }

    #[test]
    fn a_volume_goes_only_when_its_node_has_left_and_nobody_uses_it() {
        let retain = ReclaimPolicy::Retain;
        assert_eq!(fate(claim(0, false), 3, false, retain), Fate::Stays);
        assert_eq!(
            fate(claim(3, false), 3, true, retain),
            Fate::Stays,
            "its pod is still there"
        );
        assert_eq!(fate(claim(3, false), 3, false, retain), Fate::Noted);
        assert_eq!(fate(claim(3, true), 3, false, retain), Fate::Stays);
        assert_eq!(
            fate(claim(3, true), 4, false, retain),
            Fate::Deleted,
            "it is wanted anew"
        );
        assert_eq!(
            fate(claim(3, false), 3, false, ReclaimPolicy::Delete),
            Fate::Deleted
        );
        assert_eq!(
            fate(claim(0, false), 3, false, ReclaimPolicy::Delete),
            Fate::Stays
        );
    }

    #[test]
    fn a_new_pod_waits_until_the_former_volume_is_gone() {
        let mut set = StatefulSet::default();
        set.spec.get_or_insert_default().replicas = Some(2);
        let going = Claim {
            is_going: true,
            ..claim(3, false)
        };
        let mut world = World {
            node_set: Some(set),
            claims: vec![claim(0, false), claim(2, true), going],
            ..World::default()
        };
        assert_eq!(pods_possible(&world, 4), 2);
        world.claims.remove(1);
        assert_eq!(pods_possible(&world, 4), 3);
        world.claims.remove(1);
        assert_eq!(pods_possible(&world, 4), 4);
    }
}
