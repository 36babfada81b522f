//! How a cluster stands, for the people who run it. Also a JSON body.

use serde::{Deserialize, Serialize};

/// The ring that is followed, and its members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterReport {
    /// Number of the ring document.
    pub epoch: u64,
    /// Copies wanted of everything.
    pub replicas: u32,
    /// Whether a change of the placement is under way.
    pub changing: bool,
    /// Members that the change waits for.
    pub waiting_for: Vec<String>,
    /// All members, also those that are about to leave.
    pub members: Vec<MemberReport>,
    /// The ring document itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<serde_json::Value>,
}

/// A node of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemberReport {
    /// Its name.
    pub id: String,
    /// Where it is.
    pub address: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// Its share, beside those of the others.
    pub weight: u32,
    /// What the ring says of it: joining, ready, draining, drained, lost.
    pub state: String,
    /// Whether it answers.
    pub reachable: bool,
    /// Version of the program.
    pub version: String,
    /// Epoch of the ring it follows.
    pub epoch: u64,
    /// Epoch of the last placement for which it handed everything over.
    pub synced_epoch: u64,
    /// Whether it does not know yet what it missed.
    pub catching_up: bool,
    /// Records that are not in the durable tier yet.
    pub dirty: u64,
    /// Bytes of them.
    pub dirty_bytes: u64,
    /// Records that another owner may lack.
    pub hints: u64,
    /// Bytes of them.
    pub hint_bytes: u64,
    /// Calls it is working on.
    pub calls: u64,
    /// Most bytes it may keep.
    pub capacity_bytes: u64,
    /// Bytes it keeps.
    pub live_bytes: u64,
    /// Blobs it keeps.
    pub blobs: u64,
    /// Entries it keeps.
    pub entries: u64,
    /// Whether the durable tier answers it; `None` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier_reachable: Option<bool>,
}
