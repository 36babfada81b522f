//! The custom resource `ZimCache`: what people write, and what the operator says of it.
//!
//! The one source of `crds/zimcache.dev_zimcaches.yaml` and of the chart's copy. Not here: what follows from a spec
//! (`validate`, `build`). Invariants: defaults have one home, the `Default` of each struct; every
//! string and list is bounded, else the API server refuses the rules as too costly; each rule's message says what to write.

mod access;
mod gateway;
mod nodes;
mod pods;
mod rules;
mod status;
mod tier;
mod yaml;

use k8s_openapi::api::core::v1::LocalObjectReference;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{
    AnonymousPolicy, AuthSpec, InternalTls, IssuerRef, RateLimitSpec, RedisSpec, SecretKeyRef,
    TlsSpec, TokensRef, TokensSecret, UrlRef,
};
pub use gateway::{AutoscalingSpec, GatewaySpec, ServiceSpec, ServiceType};
pub use nodes::{
    DrainSpec, NodesSpec, ReclaimPolicy, StorageSpec, UpdateStrategy, UpdateStrategyType,
};
pub use pods::{PodTemplate, TelemetrySpec};
pub use status::{
    GatewayCount, NodePhase, NodeStatus, Phase, RingStatus, ZimCacheStatus, condition,
};
pub use tier::{Durability, DurableTierSpec, GcSpec, ReplicationSpec, S3Secret, S3Spec};

/// Most nodes of a cache.
pub const MOST_NODES: i32 = 1_000;
/// Longest name of a `ZimCache`: `<name>-gateway-<hash>-<hash>` must fit into a label.
pub const LONGEST_NAME: usize = 40;

/// What is wanted of a cache.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "zimcache.dev",
    version = "v1alpha1",
    kind = "ZimCache",
    plural = "zimcaches",
    singular = "zimcache",
    shortname = "zc",
    category = "zim",
    namespaced,
    status = "ZimCacheStatus",
    derive = "PartialEq",
    doc = "A build cache: gateways that speak every dialect, nodes that keep the data, and a bucket behind them.",
    scale(
        spec_replicas_path = ".spec.nodes.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40")
        .message("metadata.name: write at most 40 lower-case letters, digits and dashes, starting with a letter: Services are named after it"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".spec.nodes.replicas", description = "Nodes wanted"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.capacity"),
    printcolumn(name = "Hit%", type_ = "string", json_path = ".status.hitRatio"),
    printcolumn(name = "Gateways", type_ = "integer", json_path = ".status.gateways.ready", priority = 10),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.ring.epoch", priority = 10),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 10),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::SPEC)))]
pub struct ZimCacheSpec {
    /// The image of gateways and nodes. Absent: what the operator was started with when the pods were first made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the kubelet fetches the image: Always, IfNotPresent or Never. Absent: what Kubernetes does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Always", "IfNotPresent", "Never"]))]
    pub image_pull_policy: Option<String>,
    /// Secrets for the registry of the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// The gateways, which speak to clients and keep nothing.
    pub gateway: GatewaySpec,
    /// The nodes, which keep the data.
    pub nodes: NodesSpec,
    /// How many copies there are of everything, and when a write counts.
    pub replication: ReplicationSpec,
    /// A bucket that everything is copied to. Absent: the nodes' disks are all there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_tier: Option<DurableTierSpec>,
    /// What is forgotten by age, and when the nodes compact.
    pub gc: GcSpec,
    /// How many requests are served.
    pub rate_limits: RateLimitSpec,
    /// Who may do what.
    pub auth: AuthSpec,
    /// Certificates: the public one of the gateways, and those between gateways and nodes.
    pub tls: TlsSpec,
    /// Logs and traces.
    pub telemetry: TelemetrySpec,
    /// What is added to the pods of gateways and nodes.
    pub pod_template: PodTemplate,
    /// Whether the operator leaves everything as it is. Status is still written.
    pub paused: bool,
}

/// The definition of the resource as YAML, with a line on where it comes from: the file in `crds/`.
pub fn definition_yaml() -> String {
    let definition = serde_json::to_value(ZimCache::crd()).unwrap_or_default();
    let head = "# Generated from operator/src/crd by `cargo xtask gen`. Do not edit.\n";
    head.to_owned() + &yaml::render(&definition)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(path: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(root.join(path)).unwrap_or_default()
    }

    #[test]
    fn the_files_in_crds_and_in_the_chart_are_what_the_types_say() {
        let expected = definition_yaml();
        for path in [
            "crds/zimcache.dev_zimcaches.yaml",
            "charts/zimcache/crds/zimcache.dev_zimcaches.yaml",
        ] {
            assert!(
                file(path) == expected,
                "{path} is out of date: run make gen"
            );
        }
    }

    #[test]
    fn an_empty_spec_is_a_cache_of_three_nodes_and_two_gateways() {
        let spec: ZimCacheSpec = serde_json::from_str("{}").unwrap();
        assert_eq!((spec.nodes.replicas, spec.gateway.replicas), (3, 2));
        assert_eq!(spec.replication.factor, 2);
        assert_eq!(spec.nodes.storage.size, "100Gi");
        assert_eq!(spec, ZimCacheSpec::default());
    }

    #[test]
    fn the_scale_subresource_is_about_nodes() {
        let definition = serde_json::to_value(ZimCache::crd()).unwrap();
        let version = &definition["spec"]["versions"][0];
        let scale = &version["subresources"]["scale"];
        assert_eq!(scale["specReplicasPath"], ".spec.nodes.replicas");
        assert_eq!(scale["statusReplicasPath"], ".status.replicas");
        assert_eq!(scale["labelSelectorPath"], ".status.selector");
        assert_eq!(definition["spec"]["names"]["shortNames"][0], "zc");
        assert_eq!(definition["spec"]["names"]["categories"][0], "zim");
    }

    /// Every string and list of the spec, as `path: what is missing`. What Kubernetes itself defines is left out.
    fn unbounded(schema: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        let foreign = [
            "affinity",
            "tolerations",
            "topologySpreadConstraints",
            "resources",
        ];
        if foreign.iter().any(|name| path.ends_with(name)) {
            return;
        }
        let bounded = |key: &str| schema.get(key).is_some() || schema.get("enum").is_some();
        match schema["type"].as_str() {
            Some("string") if !bounded("maxLength") => found.push(format!("{path}: maxLength")),
            Some("array") if !bounded("maxItems") => found.push(format!("{path}: maxItems")),
            _ => {}
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(property, &format!("{path}.{name}"), found);
        }
        for key in ["items", "additionalProperties"] {
            if schema[key].is_object() && !path.ends_with("imagePullSecrets") {
                unbounded(&schema[key], &format!("{path}[]"), found);
            }
        }
    }

    #[test]
    fn every_string_and_list_of_the_spec_is_bounded() {
        let definition = serde_json::to_value(ZimCache::crd()).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = Vec::new();
        unbounded(&schema["properties"]["spec"], "spec", &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn every_rule_has_a_message() {
        fn visit(schema: &serde_json::Value, rules: &mut usize) {
            for rule in schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                assert!(rule["message"].is_string(), "{rule}");
                *rules += 1;
            }
            for (_, property) in schema["properties"].as_object().into_iter().flatten() {
                visit(property, rules);
            }
        }
        let definition = serde_json::to_value(ZimCache::crd()).unwrap();
        let mut rules = 0;
        visit(
            &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            &mut rules,
        );
        assert!(rules >= 12, "only {rules} rules");
    }
}
