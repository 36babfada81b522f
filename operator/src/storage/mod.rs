//! The volumes of nodes: more room for them, and empty ones for those that went with their machine.
//!
//! [`growth`] and [`lost`] decide; this file reads and acts, one step a call, so that a crash between two steps changes
//! nothing: the next call finds what is there. One state would be forgotten, a StatefulSet that is deleted and not made
//! again yet: it is kept in a ConfigMap `<set>-recreate` from before the deletion until after the creation. Not here:
//! what the ring and people are told. Claims are deleted only by [`replace_lost`], never because something shrinks.

pub mod growth;
pub mod lost;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use zimcache_types::Timestamp;

pub use growth::Growth;
use growth::{Claim, TEMPLATE};
use lost::{Machine, Verdict, Volume};

/// A pod that has found no machine for so long may have lost its volume.
pub const STUCK_AFTER: Duration = Duration::from_mins(2);
/// The key under which a StatefulSet waits to be made again.
const PENDING: &str = "statefulset.json";

/// Why storage could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// What was kept for making a StatefulSet again is unusable.
    #[error("what is kept in ConfigMap {name} is no StatefulSet")]
    Kept {
        /// The ConfigMap.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A size is none.
    #[error("{0:?} is no size of a volume")]
    Size(String),
}

impl Error {
    /// A word for metrics and events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Error::Api(_) => "Api",
            Error::Kept { .. } => "KeptStatefulSet",
            Error::Size(_) => "StorageSize",
        }
    }
}

/// The nodes of a ZimCache.
#[derive(Debug, Clone)]
pub struct Of {
    /// Where it is.
    pub namespace: String,
    /// The StatefulSet.
    pub set: String,
    /// What selects its pods, as `key=value,…`.
    pub selector: String,
    /// Who makes the StatefulSet, in the API server's book of owners of fields: it goes on owning what is made again.
    pub field_manager: String,
    /// The ZimCache as an owner.
    pub owner: OwnerReference,
}

impl Of {
    fn pending_name(&self) -> String {
        format!("{}-recreate", self.set)
    }

    fn claims(&self, client: &Client) -> Api<PersistentVolumeClaim> {
        Api::namespaced(client.clone(), &self.namespace)
    }

    fn sets(&self, client: &Client) -> Api<StatefulSet> {
        Api::namespaced(client.clone(), &self.namespace)
    }

    /// The pod of a claim of this StatefulSet.
    fn pod_of<'a>(&self, claim: &'a str) -> Option<&'a str> {
        let pod = claim.strip_prefix(TEMPLATE)?.strip_prefix('-')?;
        let ordinal = pod.strip_prefix(&self.set)?.strip_prefix('-')?;
        ordinal.parse::<u32>().is_ok().then_some(pod)
    }
}

/// With which template of the volume the StatefulSet is applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// With the size that is asked for.
    Wanted,
    /// With this size, which it has: another one would be refused.
    Keep(Quantity),
    /// Not at all for now: it is being made again.
    Hold,
}

/// How the volumes stand before the StatefulSet is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// What was done about their size, or stands against it.
    pub growth: Growth,
    /// What to apply.
    pub template: Template,
}

/// Does the next step towards volumes of this size. Call it before the StatefulSet is applied, and again soon unless it
/// says [`Growth::Settled`].
///
/// # Errors
/// [`Error`].
pub async fn prepare(client: &Client, of: &Of, size: &Quantity) -> Result<Prepared, Error> {
    if resume(client, of).await? {
        return Ok(Prepared {
            growth: Growth::Recreate,
            template: Template::Hold,
        });
    }
    let wanted = growth::bytes(size).ok_or_else(|| Error::Size(size.0.clone()))?;
    let set = of.sets(client).get_opt(&of.set).await?;
    let growth = grow(client, of, set.as_ref(), (size, wanted)).await?;
    let has = set.as_ref().and_then(template_size);
    let template = match (&growth, has) {
        (Growth::Recreate, _) => Template::Hold,
        (_, Some(has)) if growth::bytes(&has) != Some(wanted) => Template::Keep(has),
        _ => Template::Wanted,
    };
    Ok(Prepared { growth, template })
}

/// Makes a StatefulSet that was deleted for its template and not made again. Whether there was one.
async fn resume(client: &Client, of: &Of) -> Result<bool, Error> {
    let kept: Api<ConfigMap> = Api::namespaced(client.clone(), &of.namespace);
    let name = of.pending_name();
    let Some(map) = kept.get_opt(&name).await? else {
        return Ok(false);
    };
    let text = map.data.and_then(|mut data| data.remove(PENDING));
    let set: StatefulSet =
        serde_json::from_str(&text.unwrap_or_default()).map_err(|source| Error::Kept {
            name: name.clone(),
            source,
        })?;
    let sets = of.sets(client);
    let is_absent = match sets.get_opt(&of.set).await? {
        // Deleted with its pods left alone: the API server is not done with it.
        Some(set) if set.metadata.deletion_timestamp.is_some() => return Ok(true),
        found => found.is_none(),
    };
    if is_absent {
        let params = PatchParams::apply(&of.field_manager).force();
        sets.patch(&of.set, &params, &Patch::Apply(&set)).await?;
        tracing::info!(namespace = %of.namespace, set = %of.set, "made again with a larger template");
    }
    kept.delete(&name, &DeleteParams::default()).await?;
    Ok(true)
}

async fn grow(
    client: &Client,
    of: &Of,
    set: Option<&StatefulSet>,
    (size, wanted): (&Quantity, u128),
) -> Result<Growth, Error> {
    let all = of.claims(client).list(&ListParams::default()).await?;
    let of_set = all.iter().filter(|it| of.pod_of(&it.name_any()).is_some());
    let claims: Vec<Claim> = of_set.map(Claim::of).collect();
    let small = claims.iter().filter(|claim| claim.requested_bytes < wanted);
    let classes = small.filter_map(|claim| claim.class.clone()).collect();
    let may_grow = that_grow(client, classes).await?;
    let template = set.and_then(growth::template_bytes);
    let growth = growth::decide(wanted, template, &claims, &may_grow);
    match (&growth, set) {
        (Growth::Patch { claims }, _) => ask_for_more(client, of, claims, size).await?,
        (Growth::Recreate, Some(set)) => recreate(client, of, set, size).await?,
        _ => {}
    }
    Ok(growth)
}

/// Which of these classes of storage allow volumes to grow.
async fn that_grow(
    client: &Client,
    classes: BTreeSet<String>,
) -> Result<BTreeMap<String, bool>, Error> {
    let api: Api<StorageClass> = Api::all(client.clone());
    let mut may_grow = BTreeMap::new();
    for name in classes {
        let class = api.get_opt(&name).await?;
        let allows = class.and_then(|class| class.allow_volume_expansion);
        may_grow.insert(name, allows.unwrap_or(false));
    }
    Ok(may_grow)
}

/// The size in the template of the StatefulSet as it is, if there is one.
fn template_size(set: &StatefulSet) -> Option<Quantity> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let template = templates.iter().find(|it| it.name_any() == TEMPLATE)?;
    let requests = template
        .spec
        .as_ref()?
        .resources
        .as_ref()?
        .requests
        .as_ref()?;
    requests.get("storage").cloned()
}

async fn ask_for_more(
    client: &Client,
    of: &Of,
    claims: &[String],
    size: &Quantity,
) -> Result<(), Error> {
    let api = of.claims(client);
    let patch =
        Patch::Merge(json!({ "spec": { "resources": { "requests": { "storage": size } } } }));
    for claim in claims {
        api.patch(claim, &PatchParams::default(), &patch).await?;
        tracing::info!(namespace = %of.namespace, claim, size = %size.0, "the volume is to grow");
    }
    Ok(())
}

/// Keeps the StatefulSet with the larger template, deletes it with its pods left alone, and makes it again.
async fn recreate(
    client: &Client,
    of: &Of,
    set: &StatefulSet,
    size: &Quantity,
) -> Result<(), Error> {
    let kept: Api<ConfigMap> = Api::namespaced(client.clone(), &of.namespace);
    let map = pending(of, set, size)?;
    match kept.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => drop(other?),
    }
    let sets = of.sets(client);
    let orphan = DeleteParams::orphan();
    sets.delete(&of.set, &orphan).await?;
    resume(client, of).await?;
    Ok(())
}

/// The StatefulSet as it will be, in a ConfigMap: what was asked for, nothing that the API server adds.
fn pending(of: &Of, set: &StatefulSet, size: &Quantity) -> Result<ConfigMap, Error> {
    let mut spec = set.spec.clone();
    let templates = spec
        .iter_mut()
        .flat_map(|spec| &mut spec.volume_claim_templates);
    for template in templates.flatten() {
        template.status = None;
        if template.name_any() != TEMPLATE {
            continue;
        }
        let claim = template.spec.iter_mut();
        let requests = claim.flat_map(|claim| &mut claim.resources);
        for requests in requests.flat_map(|resources| &mut resources.requests) {
            requests.insert("storage".to_owned(), size.clone());
        }
    }
    let next = StatefulSet {
        metadata: ObjectMeta {
            name: Some(of.set.clone()),
            namespace: Some(of.namespace.clone()),
            labels: set.metadata.labels.clone(),
            annotations: set.metadata.annotations.clone(),
            owner_references: set.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    let name = of.pending_name();
    let text = serde_json::to_string(&next).map_err(|source| Error::Kept {
        name: name.clone(),
        source,
    })?;
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(of.namespace.clone()),
            // Without labels nobody takes it for something left over.
            owner_references: Some(vec![of.owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some([(PENDING.to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}

/// Gives one lost volume up, if one is lost: deletes the claim, then the pod, in whose place an empty one comes. A person
/// has declared the pods in `declared` lost. Needs to list Nodes and PersistentVolumes of the whole cluster, so it is a
/// feature that can be left off.
///
/// # Errors
/// [`Error`].
pub async fn replace_lost(
    client: &Client,
    of: &Of,
    declared: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Verdict, Error> {
    let volumes = volumes(client, of, declared, now).await?;
    if !volumes.iter().any(|volume| volume.is_stuck) {
        return Ok(Verdict::Sound);
    }
    let nodes: Api<Node> = Api::all(client.clone());
    // The first answer comes from the API server's cache, the second from its store.
    let cached = nodes.list(&ListParams::default().match_any()).await?;
    let fresh = nodes.list(&ListParams::default()).await?;
    let machines = |nodes: &[Node]| nodes.iter().map(Machine::of).collect::<Vec<_>>();
    let verdict = lost::decide(&volumes, &machines(&cached.items), &machines(&fresh.items));
    if let Verdict::Replace { pod, claim } = &verdict {
        tracing::warn!(namespace = %of.namespace, pod, claim, "a lost volume is given up");
        let pods: Api<Pod> = Api::namespaced(client.clone(), &of.namespace);
        let params = DeleteParams::default();
        // Without its claim first, the pod would come back to the same one.
        gone(of.claims(client).delete(claim, &params).await.map(drop))?;
        gone(pods.delete(pod, &params).await.map(drop))?;
    }
    Ok(verdict)
}

fn gone(deleted: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

async fn volumes(
    client: &Client,
    of: &Of,
    declared: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Vec<Volume>, Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &of.namespace);
    let pods = pods
        .list(&ListParams::default().labels(&of.selector))
        .await?;
    let claims = of.claims(client).list(&ListParams::default()).await?;
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    let mut volumes = Vec::new();
    for claim in &claims {
        let name = claim.name_any();
        let Some(pod_name) = of.pod_of(&name) else {
            continue;
        };
        let pod = pods.iter().find(|pod| pod.name_any() == pod_name);
        let is_stuck = pod.is_some_and(|pod| is_stuck(pod, now));
        let bound_to = claim.spec.as_ref().and_then(|it| it.volume_name.clone());
        let affinity = match &bound_to {
            Some(volume) if is_stuck => persistent.get_opt(volume).await?,
            _ => None,
        };
        volumes.push(Volume {
            pod: pod_name.to_owned(),
            claim: name.clone(),
            affinity: affinity.as_ref().and_then(lost::affinity),
            is_stuck,
            is_unbound: bound_to.is_none() || claim.metadata.deletion_timestamp.is_some(),
            is_declared_lost: declared.contains(pod_name),
        });
    }
    Ok(volumes)
}

/// Whether a pod has found no machine for too long.
fn is_stuck(pod: &Pod, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        let since = condition.last_transition_time.as_ref();
        let since = since.and_then(|at| u64::try_from(at.0.as_millisecond()).ok());
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && since.is_some_and(|since| Timestamp(since).plus(STUCK_AFTER) <= now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> Of {
        Of {
            namespace: "zim".to_owned(),
            set: "main-node".to_owned(),
            selector: "app.kubernetes.io/instance=main".to_owned(),
            field_manager: "zimcache-operator".to_owned(),
            owner: OwnerReference::default(),
        }
    }

    #[test]
    fn only_claims_of_this_set_are_its_own() {
        let of = of();
        assert_eq!(of.pod_of("data-main-node-0"), Some("main-node-0"));
        for foreign in [
            "data-other-main-node-0",
            "data-main-node-x",
            "data-main-node-1-2",
            "logs-main-node-0",
            "data-main-node",
        ] {
            assert_eq!(of.pod_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_kept_set_has_the_new_size_and_nothing_of_the_old_object() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": { "name": "main-node", "uid": "1", "resourceVersion": "7", "labels": { "a": "b" },
                "managedFields": [] },
            "spec": { "replicas": 4, "selector": {}, "serviceName": "main-node", "template": {},
                "volumeClaimTemplates": [
                    { "metadata": { "name": "data" },
                      "spec": { "resources": { "requests": { "storage": "1Gi" } } }, "status": { "phase": "Pending" } },
                    { "metadata": { "name": "logs" }, "spec": { "resources": { "requests": { "storage": "1Gi" } } } },
                ] },
            "status": { "replicas": 4 },
        }))
        .unwrap();
        let map = pending(&of(), &set, &Quantity("2Gi".to_owned())).unwrap();
        let kept: StatefulSet = serde_json::from_str(&map.data.unwrap()[PENDING]).unwrap();
        assert_eq!(template_size(&kept), Some(Quantity("2Gi".to_owned())));
        let logs = &kept
            .spec
            .as_ref()
            .unwrap()
            .volume_claim_templates
            .as_ref()
            .unwrap()[1];
        let logs = logs.spec.as_ref().unwrap().resources.as_ref().unwrap();
        assert_eq!(logs.requests.as_ref().unwrap()["storage"].0, "1Gi");
        assert_eq!(
            kept.spec.unwrap().replicas,
            Some(4),
            "a drain under way goes on"
        );
        assert_eq!(kept.metadata.labels.unwrap()["a"], "b");
        assert!(kept.metadata.uid.is_none() && kept.metadata.resource_version.is_none());
        assert!(kept.metadata.managed_fields.is_none() && kept.status.is_none());
    }

    #[test]
    fn a_pod_is_stuck_only_after_a_while_without_a_machine() {
        let pod: Pod = serde_json::from_value(json!({
            "status": { "conditions": [
                { "type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-11-01T00:00:00Z" },
            ] },
        }))
        .unwrap();
        let began = Timestamp(1_793_491_200_000);
        let just_before = STUCK_AFTER.checked_sub(Duration::from_secs(1)).unwrap();
        assert!(!is_stuck(&pod, began.plus(just_before)));
        assert!(is_stuck(&pod, began.plus(STUCK_AFTER)));
        assert!(!is_stuck(&Pod::default(), began.plus(STUCK_AFTER)));
    }
}
