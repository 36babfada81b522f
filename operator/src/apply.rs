//! Writing to the API server: server-side apply of what was built, removal of what is left over, the ring, the pods' notes.
//!
//! What others changed in an object of ours is put back, and told. Invariants: the ring is written only over the version
//! that was read; only objects with all labels of the cache and an owner reference to it are removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams,
        PostParams, Preconditions,
    },
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use zimcache_ring::Document;
use zimcache_types::Timestamp;

use crate::{
    build::Object,
    crd::ZimCache,
    dereference::PublishedRing,
    names::{DRAINED, LOST, Names, RING_CHANGED, RING_EPOCH, RING_KEY},
    pods::PodView,
    repair,
    validate::Cache,
};

/// What was last applied, to notice when somebody else changed it in between.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Applied>>>);

#[derive(Debug, Clone, PartialEq)]
struct Applied {
    body: Value,
    /// When the API server noted that an apply changed something.
    changed: Option<Time>,
}

impl Memory {
    /// Notes an object as it came back. Whether somebody had changed it: we wrote the same as before, and still it was a
    /// change.
    fn note(&self, key: String, body: &Value, changed: Option<Time>) -> bool {
        let now = Applied {
            body: body.clone(),
            changed: changed.clone(),
        };
        let before = self.0.lock().insert(key, now);
        before.is_some_and(|before| before.body == *body && before.changed < changed)
    }

    /// Forgets a cache that is gone.
    pub fn forget(&self, names: &Names) {
        let prefix = format!("{}/{}/", names.namespace, names.cache);
        self.0.lock().retain(|key, _| !key.starts_with(&prefix));
    }
}

/// How the API server answered.
#[derive(Debug, Default)]
pub struct Answers {
    /// What somebody else had changed, as `Kind name`.
    pub reverted: Vec<String>,
    /// The nodes' set as it is now.
    pub node_set: Option<StatefulSet>,
    /// The gateways as they are now.
    pub gateways: Option<Deployment>,
}

/// Applies the objects in their order.
///
/// # Errors
/// Of the first that the API server refuses.
pub async fn apply(
    client: &Client,
    names: &Names,
    objects: &[Object],
    memory: &Memory,
) -> Result<Answers, kube::Error> {
    let mut answers = Answers::default();
    for object in objects {
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &names.namespace, &object.resource);
        let applied = repair::apply(&api, object).await?;
        let what = format!("{} {}", object.resource.kind, object.name);
        let key = format!("{}/{}/{what}", names.namespace, names.cache);
        if memory.note(key, &object.body, repair::last_change(&applied)) {
            answers.reverted.push(what);
        }
        match object.resource.kind.as_str() {
            "StatefulSet" => answers.node_set = applied.try_parse().ok(),
            "Deployment" => answers.gateways = applied.try_parse().ok(),
            _ => {}
        }
    }
    Ok(answers)
}

/// Removes what the cache does not have any more, among these kinds.
///
/// # Errors
/// When the API server refuses.
pub async fn prune(
    client: &Client,
    cache: &Cache,
    objects: &[Object],
    kinds: &[ApiResource],
) -> Result<(), kube::Error> {
    let query = ListParams::default().labels(&cache.names.query());
    for kind in kinds {
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &cache.names.namespace, kind);
        let wanted: BTreeSet<&str> = objects
            .iter()
            .filter(|object| object.resource.kind == kind.kind)
            .map(|object| object.name.as_str())
            .collect();
        for found in api.list(&query).await? {
            let name = found.name_any();
            let ours = found
                .owner_references()
                .iter()
                .any(|owner| owner.uid == cache.uid);
            if ours && !wanted.contains(name.as_str()) {
                tracing::info!(kind = %kind.kind, name, "left over; removed");
                absent(
                    api.delete(&name, &DeleteParams::background())
                        .await
                        .map(drop),
                )?;
            }
        }
    }
    Ok(())
}

/// What is gone already need not be deleted.
pub(crate) fn absent(deleted: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

/// Writes the ring. It has no owner: it belongs to the volumes, which outlive the cache.
///
/// # Errors
/// A conflict when somebody wrote it since it was read.
pub async fn publish(
    client: &Client,
    names: &Names,
    before: Option<&PublishedRing>,
    document: &Document,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &names.namespace);
    let text = document.to_json().unwrap_or_default();
    let changed = (RING_CHANGED.to_owned(), now.0.to_string());
    let Some(before) = before else {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(names.ring()),
                labels: Some(names.labels(None)),
                annotations: Some([changed].into()),
                ..ObjectMeta::default()
            },
            data: Some([(RING_KEY.to_owned(), text)].into()),
            ..ConfigMap::default()
        };
        return api.create(&PostParams::default(), &map).await.map(drop);
    };
    let patch = json!({
        "metadata": {
            "resourceVersion": before.version,
            "annotations": { RING_CHANGED: changed.1 },
            // An older one may have had an owner.
            "ownerReferences": null,
        },
        "data": { RING_KEY: text },
    });
    api.patch(&names.ring(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
}

/// Tells the pods that there is another ring: the kubelet refreshes the volumes of a pod that changes.
///
/// # Errors
/// When the API server refuses for another reason than that a pod is gone.
pub async fn announce(
    client: &Client,
    names: &Names,
    pods: impl Iterator<Item = &PodView>,
    epoch: u64,
) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
    let patch = Patch::Merge(json!({
        "metadata": { "annotations": { RING_EPOCH: epoch.to_string() } }
    }));
    for pod in pods.filter(|pod| pod.ring_epoch != Some(epoch) && !pod.is_terminating) {
        absent(
            api.patch(&pod.name, &PatchParams::default(), &patch)
                .await
                .map(drop),
        )?;
    }
    Ok(())
}

/// Deletes exactly this pod; one that took its place meanwhile stays.
///
/// # Errors
/// When the API server refuses.
pub async fn restart(client: &Client, names: &Names, pod: &PodView) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&pod.name, &params).await.map(drop) {
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
        other => absent(other),
    }
}

/// Notes on a claim that its node has left and that nothing on it is missed.
///
/// # Errors
/// When the API server refuses.
pub async fn note_left(client: &Client, names: &Names, claim: &str) -> Result<(), kube::Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { DRAINED: "true" } } }));
    let noted = api.patch(claim, &PatchParams::default(), &patch).await;
    absent(noted.map(drop))
}

/// Deletes a claim, and with it what is on its volume.
///
/// # Errors
/// When the API server refuses.
pub async fn delete_claim(client: &Client, names: &Names, claim: &str) -> Result<(), kube::Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    absent(api.delete(claim, &DeleteParams::default()).await.map(drop))
}

/// Writes the annotation of lost nodes anew: one that was given up and starts empty is lost no more.
///
/// # Errors
/// When the API server refuses.
pub async fn keep_lost(
    client: &Client,
    names: &Names,
    lost: &BTreeSet<String>,
) -> Result<(), kube::Error> {
    let api: Api<ZimCache> = Api::namespaced(client.clone(), &names.namespace);
    let left: Vec<&str> = lost.iter().map(String::as_str).collect();
    let left = (!left.is_empty()).then(|| left.join(","));
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { LOST: left } } }));
    let params = PatchParams::default();
    api.patch(&names.cache, &params, &patch).await.map(drop)
}

/// Makes the key that all gateways sign URLs with, once.
///
/// # Errors
/// When the API server refuses.
pub async fn ensure_signing_key(client: &Client, cache: &Cache) -> Result<(), kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &cache.names.namespace);
    let name = cache.names.signing();
    if api.get_metadata_opt(&name).await?.is_some() {
        return Ok(());
    }
    let mut key = [0_u8; 32];
    getrandom::fill(&mut key).map_err(|error| kube::Error::Service(error.into()))?;
    let text = crate::hex::text(&key);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(cache.names.labels(None)),
            owner_references: Some(vec![crate::build::owner(cache)]),
            ..ObjectMeta::default()
        },
        string_data: Some([("key".to_owned(), text)].into()),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await.map(drop) {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_by_somebody_else_is_noticed_and_an_own_one_is_not() {
        let memory = Memory::default();
        let (one, two) = (json!({"spec": 1}), json!({"spec": 2}));
        let note = |body, second| {
            let changed = Time(jiff::Timestamp::from_second(second).unwrap());
            memory.note("build/main/Deployment x".to_owned(), body, Some(changed))
        };
        assert!(!note(&one, 1), "the first time nothing is known");
        assert!(!note(&one, 1));
        assert!(!note(&two, 2), "an own change");
        assert!(note(&two, 4), "theirs, and ours over it");
        memory.forget(&Names::new("main", "build"));
        assert!(!note(&two, 9));
    }
}
