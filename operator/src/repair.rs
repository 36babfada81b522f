//! What to do when an apply cannot put right what somebody else changed.
//!
//! An apply adds to lists and never takes out what others put there. A second port of the same name, say, makes the whole
//! object invalid, and every further apply of it too. Then the spec is written over the one that is there, under a name of
//! its own, and applied again; that name is struck from the book of owners afterwards, else what a later spec leaves out
//! would stay. A crash in between is found at the next apply.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use crate::{build::Object, names::MANAGER};

/// Who writes over what stands against an apply.
const REPAIR: &str = "zim-operator-repair";

/// Applies an object, also when what others added to it stands against that.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn apply(
    api: &Api<DynamicObject>,
    object: &Object,
) -> Result<DynamicObject, kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    let wanted = Patch::Apply(&object.body);
    let applied = match api.patch(&object.name, &params, &wanted).await {
        Err(kube::Error::Api(status)) if status.code == 422 => {
            tracing::warn!(kind = %object.resource.kind, name = object.name, "written over: {}", status.message);
            write_over(api, object).await?;
            api.patch(&object.name, &params, &wanted).await?
        }
        other => other?,
    };
    let is_repaired = applied.managed_fields().iter().any(is_of_repair);
    if is_repaired {
        strike(api, &applied).await?;
    }
    Ok(applied)
}

/// When the API server last noted that an apply of ours changed something.
pub(crate) fn last_change(applied: &DynamicObject) -> Option<Time> {
    let is_ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    let ours = applied.managed_fields().iter().find(is_ours)?;
    ours.time.clone()
}

/// Lists and all: a merge replaces them.
async fn write_over(api: &Api<DynamicObject>, object: &Object) -> Result<(), kube::Error> {
    let params = PatchParams {
        field_manager: Some(REPAIR.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "spec": object.body["spec"] }));
    api.patch(&object.name, &params, &patch).await.map(drop)
}

/// Takes the name of the repair out of the book; nothing when somebody was quicker, for the next apply sees it again.
async fn strike(api: &Api<DynamicObject>, applied: &DynamicObject) -> Result<(), kube::Error> {
    let others = applied
        .managed_fields()
        .iter()
        .filter(|it| !is_of_repair(it));
    let patch = Patch::Merge(json!({ "metadata": {
        "resourceVersion": applied.resource_version(),
        "managedFields": others.collect::<Vec<_>>(),
    } }));
    let params = PatchParams::default();
    match api.patch(&applied.name_any(), &params, &patch).await {
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}

fn is_of_repair(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(REPAIR)
}
