//! What happens to the volumes of a cache that goes: they stay, unless their deletion was asked for.
//!
//! Only then there is a finalizer, and only for as long as that is asked for: whoever would take it away may be gone first.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    apply::absent,
    crd::{ReclaimPolicy, ZimCache},
    names::{Component, FINALIZER, Names},
};

/// Puts the finalizer where volumes are to be deleted with the cache, and takes it away elsewhere.
///
/// # Errors
/// When the API server refuses.
pub async fn keep_finalizer(client: &Client, object: &ZimCache) -> Result<(), kube::Error> {
    let wanted = object.spec.nodes.storage.reclaim == ReclaimPolicy::Delete;
    let has = object.finalizers().iter().any(|one| one == FINALIZER);
    if wanted == has {
        return Ok(());
    }
    set_finalizer(client, object, wanted).await
}

async fn set_finalizer(
    client: &Client,
    object: &ZimCache,
    wanted: bool,
) -> Result<(), kube::Error> {
    let mut finalizers: Vec<String> = object.finalizers().to_vec();
    finalizers.retain(|one| one != FINALIZER);
    finalizers.extend(wanted.then(|| FINALIZER.to_owned()));
    let patch = json!({ "metadata": {
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    } });
    let api: Api<ZimCache> =
        Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    api.patch(
        &object.name_any(),
        &PatchParams::default(),
        &Patch::Merge(patch),
    )
    .await
    .map(drop)
}

/// A cache with reclaim Delete goes: its volumes and its ring with it. Kubernetes keeps a volume until its pod is gone.
///
/// # Errors
/// When the API server refuses.
pub async fn finalize(client: &Client, object: &ZimCache) -> Result<(), kube::Error> {
    if !object.finalizers().iter().any(|one| one == FINALIZER) {
        return Ok(());
    }
    let names = Names::new(object.name_any(), object.namespace().unwrap_or_default());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let query = ListParams::default().labels(&names.pods_query(Component::Node));
    for claim in claims.list(&query).await? {
        absent(
            claims
                .delete(&claim.name_any(), &DeleteParams::default())
                .await
                .map(drop),
        )?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &names.namespace);
    absent(
        maps.delete(&names.ring(), &DeleteParams::default())
            .await
            .map(drop),
    )?;
    set_finalizer(client, object, false).await
}
