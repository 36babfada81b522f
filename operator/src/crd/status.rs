//! `status`: what the operator says of a cache. People read it; the operator decides nothing by it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of the conditions.
pub mod condition {
    /// Pods, ring and drain are as the spec says, for its generation.
    pub const READY: &str = "Ready";
    /// Clients are served.
    pub const AVAILABLE: &str = "Available";
    /// Something is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// As [`PROGRESSING`], under the name that kstatus looks for; absent when nothing is under way.
    pub const RECONCILING: &str = "Reconciling";
    /// The spec cannot succeed; somebody has to change something. Absent otherwise, as kstatus wants it.
    pub const STALLED: &str = "Stalled";
    /// Fewer copies or gateways than wanted.
    pub const DEGRADED: &str = "Degraded";
    /// A node that is to go cannot hand over what it has.
    pub const SCALE_DOWN_BLOCKED: &str = "ScaleDownBlocked";
    /// Volumes are growing.
    pub const STORAGE_RESIZING: &str = "StorageResizing";
    /// The certificates between gateways and nodes are good.
    pub const CERTIFICATES_READY: &str = "CertificatesReady";
    /// The bucket answers the nodes. Absent without one.
    pub const DURABLE_TIER_REACHABLE: &str = "DurableTierReachable";
    /// Redis answers the gateways. Absent without one.
    pub const RATE_LIMITER_REACHABLE: &str = "RateLimiterReachable";
    /// A change of the ring waits for somebody for long.
    pub const RING_TRANSITION_BLOCKED: &str = "RingTransitionBlocked";
    /// The operator keeps its hands off.
    pub const RECONCILIATION_PAUSED: &str = "ReconciliationPaused";
}

/// How a cache stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZimCacheStatus {
    /// The generation of the spec that the rest is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people; programs look at the conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Nodes there are.
    pub replicas: i32,
    /// Nodes that are ready.
    pub ready_replicas: i32,
    /// Finds the pods of the nodes.
    pub selector: String,
    /// The gateways.
    pub gateways: GatewayCount,
    /// The ring that is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,
    /// The nodes, by number.
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<NodeStatus>,
    /// Bytes that the nodes may keep.
    pub capacity_bytes: i64,
    /// Bytes that they keep.
    pub used_bytes: i64,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// Share of the look-ups that were hits since the gateways started, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<String>,
    /// What is so, by type.
    #[schemars(extend("x-kubernetes-list-type" = "map"), extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One word for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The first pods are on their way.
    Creating,
    /// All is as wanted.
    Running,
    /// Nodes join or leave.
    Scaling,
    /// Pods are replaced.
    Updating,
    /// It serves, with less than wanted.
    Degraded,
    /// The operator keeps its hands off.
    Paused,
    /// The spec cannot succeed.
    Stalled,
    /// It is on its way out.
    Deleting,
}

/// How many gateways there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayCount {
    /// Wanted.
    pub desired: i32,
    /// Ready.
    pub ready: i32,
}

/// The ring that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RingStatus {
    /// Its number.
    pub epoch: i64,
    /// Who is in the current placement.
    pub members: Vec<String>,
    /// Whether the placement before is still open.
    pub changing: bool,
    /// Who keeps it open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its pod, which is its name in the ring.
    pub name: String,
    /// Its number.
    pub ordinal: i32,
    /// What it does.
    pub state: NodePhase,
    /// Whether it answers the operator.
    #[serde(default)]
    pub reachable: bool,
    /// What fails together with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Version of its program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Bytes it may keep.
    #[serde(default)]
    pub capacity_bytes: i64,
    /// Bytes it keeps.
    #[serde(default)]
    pub used_bytes: i64,
    /// Records that are not in the bucket yet.
    #[serde(default)]
    pub dirty: i64,
    /// Records that another owner may lack.
    #[serde(default)]
    pub hints: i64,
    /// Epoch of the last placement for which it handed everything over.
    #[serde(default)]
    pub synced_epoch: i64,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodePhase {
    /// Its pod is on the way; the ring does not have it yet.
    Starting,
    /// It takes over its share.
    Joining,
    /// In full service.
    Active,
    /// It learns what it missed.
    CatchingUp,
    /// It hands over what it has.
    Draining,
    /// It has handed over everything.
    Drained,
    /// Given up.
    Lost,
    /// It does not answer.
    Unreachable,
}
