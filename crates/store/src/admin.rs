//! What the people who run a store ask of it: figures, garbage collection, verification.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Figures of a store at one moment. Counters count since the process started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStats {
    /// Most bytes the store may take on disk.
    pub capacity_bytes: u64,
    /// Bytes of live records, headers included.
    pub live_bytes: u64,
    /// Bytes the store's files take on disk.
    pub disk_bytes: u64,
    /// Live blobs.
    pub blobs: u64,
    /// Live entries.
    pub entries: u64,
    /// RAM taken by the index, in bytes.
    pub index_bytes: u64,
    /// Bytes pinned: must not be evicted.
    pub pinned_bytes: u64,
    /// Payload bytes accepted.
    pub written_payload_bytes: u64,
    /// Bytes written to the disk for them, padding, headers and moves included.
    pub written_disk_bytes: u64,
    /// Syncs of the disk.
    pub syncs: u64,
    /// Records evicted to make room.
    pub evicted_records: u64,
    /// Bytes of them.
    pub evicted_bytes: u64,
    /// Leases ended early because the store was full of leased data.
    pub leases_broken: u64,
    /// Records found corrupt.
    pub corrupt_records: u64,
    /// Whether writes are refused, and why.
    pub read_only: Option<String>,
    /// How long opening the store took, in milliseconds.
    pub recovery_millis: u64,
}

/// What a garbage collection freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GcReport {
    /// Live bytes before.
    pub before_bytes: u64,
    /// Live bytes after.
    pub after_bytes: u64,
    /// Records evicted.
    pub evicted_records: u64,
    /// Bytes of records evicted.
    pub evicted_bytes: u64,
    /// Bytes of dead records and padding given back for reuse.
    pub compacted_bytes: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyReport {
    /// Records read and checked.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records that failed; they are no longer served.
    pub damaged: u64,
    /// The first damaged records, as text for people.
    pub examples: Vec<String>,
}

/// How far a long operation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, as far as known.
    pub total_bytes: u64,
}

/// Called from time to time during a long operation.
pub type OnProgress = Box<dyn Fn(Progress) + Send + Sync>;

/// Operations for the people who run a store.
#[async_trait]
pub trait StoreAdmin: Send + Sync + std::fmt::Debug + 'static {
    /// Figures now.
    fn stats(&self) -> StoreStats;

    /// Compacts and, with a target, evicts down to that many live bytes. Pinned data stays.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    async fn gc(&self, target_bytes: Option<u64>) -> Result<GcReport>;

    /// Reads and verifies everything now. Damaged records are no longer served afterwards.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    async fn verify(&self, on_progress: OnProgress) -> Result<VerifyReport>;
}
