//! From a checked cache to the objects of Kubernetes: pure, one file per kind of object.
//!
//! | object | name | file |
//! | --- | --- | --- |
//! | StatefulSet | `<zc>-node` | `node_set` |
//! | Deployment, HorizontalPodAutoscaler | `<zc>-gateway` | `gateway` |
//! | Service | `<zc>-node`, `<zc>-gateway` | `service` |
//! | PodDisruptionBudget, NetworkPolicy, ServiceAccount | `<zc>-node`, `<zc>-gateway` | `guard` |
//! | CronJob | `<zc>-gc` | `gc` |
//!
//! The ring's ConfigMap and the Secrets are not made here. Invariants: what cannot be seen in the spec does not change the
//! pods (`pinned`); nothing here asks the API server or a clock.

mod gateway;
mod gc;
mod guard;
mod node_set;
mod pinned;
mod pod;
mod service;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::CronJob,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, api::ApiResource};
use serde::Serialize;
use serde_json::Value;

use crate::{
    names::{Component, INPUTS, Names},
    validate::Cache,
};

/// What the objects depend on beside the spec.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The cache.
    pub cache: &'a Cache,
    /// The image of pods whose cache names none.
    pub default_image: &'a str,
    /// How many pods of nodes there have to be.
    pub node_pods: i32,
    /// Whether every node is in full service, so that one of them may be away.
    pub may_disrupt: bool,
    /// Hash of the credentials for S3.
    pub s3_credentials: Option<&'a str>,
    /// Hash of the Redis URL that is in a Secret.
    pub redis_url: Option<&'a str>,
    /// The nodes as they are.
    pub node_set: Option<&'a StatefulSet>,
    /// The gateways as they are.
    pub gateways: Option<&'a Deployment>,
}

impl Inputs<'_> {
    fn names(&self) -> &Names {
        &self.cache.names
    }

    fn image(&self) -> &str {
        self.cache
            .spec
            .image
            .as_deref()
            .unwrap_or(self.default_image)
    }
}

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// Itself, without anything that the API server adds.
    pub body: Value,
}

impl Object {
    fn of<K>(object: &K) -> Object
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
    {
        Object {
            resource: ApiResource::erase::<K>(&()),
            name: object.meta().name.clone().unwrap_or_default(),
            // Types of the API always serialise.
            body: serde_json::to_value(object).unwrap_or_default(),
        }
    }
}

/// Everything that the cache is made of, in the order in which it is applied: what pods need comes before them.
pub fn build(inputs: &Inputs<'_>) -> Vec<Object> {
    let mut objects = Vec::new();
    for component in [Component::Node, Component::Gateway] {
        objects.push(Object::of(&guard::account(inputs, component)));
        objects.push(Object::of(&guard::network_policy(inputs, component)));
        objects.push(Object::of(&guard::disruption_budget(inputs, component)));
    }
    objects.push(Object::of(&service::nodes(inputs)));
    objects.push(Object::of(&service::gateways(inputs)));
    objects.push(Object::of(&node_set::build(inputs)));
    objects.push(Object::of(&gateway::build(inputs)));
    objects.extend(gateway::autoscaler(inputs).as_ref().map(Object::of));
    objects.extend(gc::build(inputs).as_ref().map(Object::of));
    objects
}

/// Whether the workloads are as they were built: of the same inputs, and as many.
pub fn are_as_built(
    objects: &[Object],
    node_set: Option<&StatefulSet>,
    gateways: Option<&Deployment>,
) -> bool {
    let wanted = |kind: &str| {
        let object = objects.iter().find(|object| object.resource.kind == kind)?;
        let inputs = object.body["metadata"]["annotations"][INPUTS].as_str()?;
        let replicas = object.body["spec"]["replicas"].as_i64()?;
        Some((inputs.to_owned(), replicas))
    };
    let has = |meta: &ObjectMeta, replicas: Option<i32>| {
        let inputs = meta.annotations.as_ref()?.get(INPUTS)?;
        Some((inputs.clone(), i64::from(replicas?)))
    };
    let nodes = node_set.and_then(|set| has(&set.metadata, set.spec.as_ref()?.replicas));
    let gateways = gateways.and_then(|set| has(&set.metadata, set.spec.as_ref()?.replicas));
    wanted("StatefulSet") == nodes && wanted("Deployment") == gateways
}

/// Kinds that a cache has or has not, depending on its spec: what is left over is looked for here.
pub fn optional_kinds() -> [ApiResource; 2] {
    [
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        ApiResource::erase::<CronJob>(&()),
    ]
}

/// The head of an object that belongs to the cache and goes with it.
fn meta(cache: &Cache, name: String, component: Option<Component>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cache.names.namespace.clone()),
        labels: Some(cache.names.labels(component)),
        owner_references: Some(vec![owner(cache)]),
        ..ObjectMeta::default()
    }
}

/// The cache as the owner of what goes with it.
pub fn owner(cache: &Cache) -> OwnerReference {
    OwnerReference {
        api_version: "zimcache.dev/v1alpha1".to_owned(),
        kind: "ZimCache".to_owned(),
        name: cache.names.cache.clone(),
        uid: cache.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests;
