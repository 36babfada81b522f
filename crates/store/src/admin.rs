//! What the people who run a store ask of it: figures, what is held by whom, garbage collection, retention,
//! verification.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zimcache_types::{Digest, EntryKind, Namespace, Timestamp};

use crate::{ClusterReport, Result};

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
    /// Payload bytes of live records as clients sent them.
    #[serde(rename = "uncompressed_bytes")]
    pub raw_bytes: u64,
    /// Payload bytes of the same records as they are stored: the ratio of both is what compression saves.
    #[serde(rename = "compressed_bytes")]
    pub stored_bytes: u64,
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
    /// Records that left because their time was over.
    pub expired_records: u64,
    /// Leases ended early because the store was full of leased data.
    pub leases_broken: u64,
    /// Records found corrupt.
    pub corrupt_records: u64,
    /// Whether writes are refused, and why.
    pub read_only: Option<String>,
    /// How long opening the store took, in milliseconds.
    pub recovery_millis: u64,
}

/// What a garbage collection is to free. Without any condition it only compacts. Also a JSON body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcOptions {
    /// Evict, oldest first, until at most so many bytes are live: in the store, or in the namespace if one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bytes: Option<u64>,
    /// Remove what was put longer ago than this.
    #[serde(
        rename = "older_than_seconds",
        with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub older_than: Option<Duration>,
    /// Touch this namespace alone.
    #[serde(with = "name", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Change nothing, say what would be freed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What a garbage collection freed, or would have freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GcReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Live bytes before.
    pub before_bytes: u64,
    /// Live bytes after.
    pub after_bytes: u64,
    /// Records evicted to come down to the target.
    pub evicted_records: u64,
    /// Bytes of records evicted.
    pub evicted_bytes: u64,
    /// Records removed by age: older than asked for, or past their retention.
    pub expired_records: u64,
    /// Bytes of records removed by age.
    pub expired_bytes: u64,
    /// Bytes of dead records and padding given back for reuse.
    pub compacted_bytes: u64,
    /// Objects removed from the durable tier because nobody used them for their whole life.
    pub swept_objects: u64,
    /// Bytes of them.
    pub swept_bytes: u64,
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// How long after its put a record is served, where its namespace says nothing else; `None`: as long as it fits.
    pub default_ttl: Option<Duration>,
    /// Eviction spares records younger than this while anything older can go.
    pub min_lifetime: Duration,
    /// Namespaces that differ from `default_ttl`; `None`: as long as it fits.
    pub namespaces: BTreeMap<Namespace, Option<Duration>>,
}

impl Retention {
    /// How long records of a namespace are served.
    pub fn ttl(&self, namespace: &Namespace) -> Option<Duration> {
        match self.namespaces.get(namespace) {
            Some(own) => *own,
            None => self.default_ttl,
        }
    }
}

/// What is held: blobs, or entries of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UsageKind {
    /// Immutable bytes named by a digest.
    Blob,
    /// Entries of this kind.
    Entry(EntryKind),
}

impl UsageKind {
    /// Lower-case name, a closed set: safe as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            UsageKind::Blob => "blob",
            UsageKind::Entry(kind) => kind.as_str(),
        }
    }
}

/// What a namespace holds of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The namespace.
    pub namespace: Namespace,
    /// Of what.
    pub kind: UsageKind,
    /// How many.
    pub count: u64,
    /// Bytes of their values as clients sent them: before compression, without headers.
    pub bytes: u64,
}

/// One row of a listing of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name, with its size.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was put.
    pub created: Timestamp,
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

    /// Compacts, and removes what the options say. Pinned data stays; leased data leaves only for a target, and last.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    async fn gc(&self, options: GcOptions) -> Result<GcReport>;

    /// Sets how long things are kept, from now on; may be called again. What is past its time is a miss at once, but
    /// for blobs under a lease, and its space goes back in the background. Age counts from the put.
    fn set_retention(&self, retention: Retention);

    /// What is held, by namespace and kind. Cheap: answered from counters. What has expired and was not removed yet
    /// is still in it.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell.
    async fn usage(&self) -> Result<Vec<Usage>>;

    /// Lists the blobs of a namespace in the order of their digests (function first, then hash), from behind `after`,
    /// at most `limit`. May be slow: it reads the disk. Blobs under a hash of more than 32 bytes (SHA-384, SHA-512)
    /// are left out: stores keep a hash of theirs only.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    async fn list_blobs(
        &self,
        namespace: &Namespace,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>>;

    /// Reads and verifies everything now. Damaged records are no longer served afterwards.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    async fn verify(&self, on_progress: OnProgress) -> Result<VerifyReport>;

    /// How the cluster stands; `None` of a store that is no cluster.
    fn cluster(&self) -> Option<ClusterReport> {
        None
    }
}

/// An optional duration as a whole number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(
        clippy::ref_option,
        reason = "serde hands out a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|age| age.as_secs()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}

/// An optional namespace by its name.
mod name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use zimcache_types::Namespace;

    #[allow(
        clippy::ref_option,
        reason = "serde hands out a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Namespace>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Namespace::as_str).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Namespace>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        name.map(|name| Namespace::new(&name))
            .transpose()
            .map_err(D::Error::custom)
    }
}
