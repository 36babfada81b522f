//! The volumes of the nodes in a round: those of nodes that left, and those that went with their machine.

use crate::{
    apply, build,
    crd::ReclaimPolicy,
    dereference::World,
    events::News,
    names::{Component, MANAGER},
    reconcile::{Error, Outcome, Tools},
    storage::{self, lost::Verdict},
    validate::Cache,
};

/// Volumes of nodes that have left: noted, or deleted where that is asked for.
pub(crate) async fn release(
    tools: &Tools<'_>,
    cache: &Cache,
    world: &World,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    if outcome.document.is_none() {
        return Ok(());
    }
    let has_pod = |name: &str| world.nodes.iter().any(|pod| pod.name == name);
    let changed = world.claims.iter().filter_map(|claim| {
        let pod = cache.names.pod(claim.ordinal);
        let is_left = claim.ordinal >= outcome.node_pods;
        let must_wait = is_left && has_pod(&pod);
        (is_left != claim.is_left && !must_wait).then(|| (cache.names.claim(&pod), is_left))
    });
    let changed: Vec<(String, bool)> = changed.collect();
    let delete = cache.spec.nodes.storage.reclaim == ReclaimPolicy::Delete;
    let deleted = apply::release_claims(tools.client, &cache.names, &changed, delete).await?;
    let news = deleted
        .into_iter()
        .map(|claim| News::normal("VolumeDeleted", format!("{claim}: its node has left")));
    outcome.news.extend(news);
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
