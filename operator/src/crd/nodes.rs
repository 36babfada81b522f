//! `spec.nodes`: the pods that keep the data, and their volumes.

use k8s_openapi::api::core::v1::ResourceRequirements;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::NODES)))]
pub struct NodesSpec {
    /// How many there are. More: they join and take their share. Fewer: one after the other, highest number first, hands
    /// over what it has and goes.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// The volume of each node.
    pub storage: StorageSpec,
    /// Label of the machines that says which of them fail together.
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$")
    )]
    pub zones_key: String,
    /// What each node asks for and may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// How a node leaves.
    pub drain: DrainSpec,
    /// How a change of the pods reaches them.
    pub update_strategy: UpdateStrategy,
}

impl Default for NodesSpec {
    fn default() -> NodesSpec {
        NodesSpec {
            replicas: 3,
            storage: StorageSpec::default(),
            zones_key: "topology.kubernetes.io/zone".to_owned(),
            resources: None,
            drain: DrainSpec::default(),
            update_strategy: UpdateStrategy::default(),
        }
    }
}

/// The volume of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::STORAGE)))]
pub struct StorageSpec {
    /// Size of each volume, such as 100Gi. It can only grow.
    #[schemars(length(min = 1, max = 32))]
    pub size: String,
    /// Class of the volumes. Absent: the default class of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volumes when the cache or a node goes: kept for one of the same name, or deleted.
    pub reclaim: ReclaimPolicy,
}

impl Default for StorageSpec {
    fn default() -> StorageSpec {
        StorageSpec {
            size: "100Gi".to_owned(),
            storage_class_name: None,
            reclaim: ReclaimPolicy::Retain,
        }
    }
}

/// What becomes of volumes that nobody uses any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted, with the data on them.
    Delete,
}

/// How a node leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DrainSpec {
    /// After this the condition ScaleDownBlocked says what it waits for. It goes on waiting: nothing is forced.
    #[schemars(length(max = 32), regex(pattern = r"^[1-9][0-9]*(s|m|h|d)$"))]
    pub timeout: String,
}

impl Default for DrainSpec {
    fn default() -> DrainSpec {
        DrainSpec {
            timeout: "30m".to_owned(),
        }
    }
}

/// How a change of the pods reaches them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateStrategy {
    /// Whether the operator restarts the nodes, one after the other when all have caught up, or people do.
    #[serde(rename = "type")]
    pub kind: UpdateStrategyType,
    /// Only nodes with this number and above are restarted.
    #[schemars(range(min = 0, max = 1000))]
    pub partition: i32,
}

/// Who restarts nodes whose pods are out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStrategyType {
    /// The operator.
    #[default]
    RollingUpdate,
    /// Whoever deletes the pods.
    OnDelete,
}
