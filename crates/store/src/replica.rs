//! The contract between the nodes of a cluster: values named by their record key, written with the version and the pins
//! that the cluster gave them, walked through, and settled.
//!
//! A [`RecordKey`] is all that placement and copying need: no text of an entry and no hash longer than 32 bytes. Not here:
//! which node holds what (`ring`), how values travel (`link`). Invariants every implementation keeps: of two versions
//! of an entry the higher one wins, whatever order they arrive in, also after a restart; a deletion is a version like any
//! other and stays until it is settled; a pinned record is never evicted, and pins are as durable as the record; nothing
//! is visible before its digest verified and its bytes are durable.

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Namespace, Timestamp};

use crate::{ByteRange, EntryMeta, Precondition, Reader, Result};

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// A blob under a hash of this function.
    Blob(Function),
    /// An entry of this kind.
    Entry(EntryKind),
}

/// The name of a value inside a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    /// The tenant's room.
    pub namespace: Namespace,
    /// What it holds.
    pub kind: RecordKind,
    /// Of a blob its hash, padded with zeros, or the SHA-256 of a longer hash; of an entry the SHA-256 of its key text.
    pub id: [u8; 32],
}

impl RecordKey {
    /// The name of a blob.
    pub fn blob(namespace: &Namespace, digest: &Digest) -> RecordKey {
        let hash = digest.hash.as_bytes();
        let mut id = [0; 32];
        match id.get_mut(..hash.len()) {
            Some(start) => start.copy_from_slice(hash),
            None => id = sha256(hash),
        }
        RecordKey {
            namespace: namespace.clone(),
            kind: RecordKind::Blob(digest.hash.function()),
            id,
        }
    }

    /// The name of an entry.
    pub fn entry(key: &EntryKey) -> RecordKey {
        RecordKey {
            namespace: key.namespace.clone(),
            kind: RecordKind::Entry(key.kind),
            id: sha256(key.text.as_bytes()),
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(Digest::of(Function::Sha256, bytes).hash.as_bytes());
    id
}

/// Which of two values of an entry is the newer one. Blobs have none: theirs is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version {
    /// Hybrid clock: milliseconds since the Unix epoch, shifted left by 16, and a counter.
    pub clock: u64,
    /// Who gave it: random for each start of a gateway.
    pub writer: u32,
}

/// Why a record must not be evicted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pins {
    /// It is not in the durable tier.
    pub dirty: bool,
    /// Another owner may lack it.
    pub hint: bool,
}

/// What stands before a value that is written or read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordHead {
    /// Of an entry: its key text; empty for a blob.
    pub text: Box<str>,
    /// Of an entry: what travels with it.
    pub meta: EntryMeta,
    /// Of an entry: its version. The default lets the store give one.
    pub version: Version,
    /// Of an entry: it says that the key is deleted; there is no value.
    pub deleted: bool,
}

/// How a value is to be written.
#[derive(Debug, Clone, Default)]
pub struct RecordOptions {
    /// Size of the value in bytes, where it is known; a blob of another size is refused.
    pub size_bytes: Option<u64>,
    /// As [`crate::CreateOptions::resume_as`]; blobs only.
    pub resume_as: Option<Box<str>>,
    /// Refuse values larger than this many bytes.
    pub limit_bytes: Option<u64>,
    /// The acknowledged blob starts with a lease.
    pub lease: bool,
    /// When an entry may take effect.
    pub precondition: Precondition,
}

/// A value found under a record key.
#[derive(Debug)]
pub struct Record {
    /// What stands before it.
    pub head: RecordHead,
    /// When it was put.
    pub created: Timestamp,
    /// Why it must stay.
    pub pins: Pins,
    /// The value, or the asked range of it; empty for a deletion.
    pub value: Reader,
}

impl Record {
    /// Itself, unless it says that a blob was deleted: such a blob is not there. A deletion of an entry is a version,
    /// which the other nodes have to learn of; that of a blob reaches each of them by itself.
    pub fn unless_deleted_blob(self, key: &RecordKey) -> Option<Record> {
        let is_gone = self.head.deleted && matches!(key.kind, RecordKind::Blob(_));
        (!is_gone).then_some(self)
    }
}

/// A record met on a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordInfo {
    /// Its name.
    pub key: RecordKey,
    /// Size of the value in bytes.
    pub size_bytes: u64,
    /// Of an entry: its version.
    pub version: Version,
    /// Whether it says that the key is deleted.
    pub deleted: bool,
    /// Why it must stay.
    pub pins: Pins,
    /// When it was last used, to within some minutes.
    pub used: Timestamp,
}

/// Which records a walk meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Walk {
    /// All that are live, and deletions.
    #[default]
    All,
    /// Those not yet in the durable tier.
    Dirty,
    /// Those that another owner may lack.
    Hinted,
}

/// How much is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinnedCounts {
    /// Records not yet in the durable tier.
    pub dirty: u64,
    /// Bytes of them.
    pub dirty_bytes: u64,
    /// Records that another owner may lack.
    pub hints: u64,
    /// Bytes of them.
    pub hint_bytes: u64,
}

/// What became of a value that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Size of the value in bytes.
    pub size_bytes: u64,
    /// Of an entry: the highest version held now. Higher than the one written when that was superseded already.
    pub version: Version,
}

/// A store that is one of several.
#[async_trait]
pub trait Replica: Send + Sync + std::fmt::Debug + 'static {
    /// Random for each store ever made: tells a disk from the one that was there before it.
    fn store_id(&self) -> [u8; 16];

    /// Opens what lies under a key, deletions included; `None` when there is nothing. Counts as a use.
    ///
    /// # Errors
    /// `RangeInvalid`; `Corrupt`, `Unavailable` when the disk fails.
    async fn open_record(&self, key: &RecordKey, range: ByteRange) -> Result<Option<Record>>;

    /// Starts writing a value, or a deletion. A version no higher than the one held is taken as a success.
    ///
    /// # Errors
    /// As [`crate::BlobStore::create`] and [`crate::EntryStore::put`].
    async fn write_record(
        &self,
        key: &RecordKey,
        head: RecordHead,
        options: RecordOptions,
    ) -> Result<Box<dyn RecordWriter>>;

    /// Of each blob whether it is absent, as [`crate::BlobStore::missing`] does; by their record keys. `sizes` are those
    /// the digests name, 0 where they name none.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell.
    async fn missing_records(
        &self,
        keys: &[RecordKey],
        sizes: &[u64],
        touch: crate::Touch,
    ) -> Result<Vec<bool>>;

    /// The next records of a walk, at most `limit`, and where to go on; `None` at the end. Records that come into being
    /// meanwhile may or may not be met; those that were there before and stay are.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    async fn walk(
        &self,
        which: Walk,
        after: Option<WalkMark>,
        limit: usize,
    ) -> Result<(Vec<RecordInfo>, Option<WalkMark>)>;

    /// Takes these pins off records, durably, where they still have the version named. What is not there is passed over.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    async fn settle(&self, records: &[(RecordKey, Version)], pins: Pins) -> Result<()>;

    /// How much is pinned. Cheap.
    fn pinned(&self) -> PinnedCounts;

    /// Ends when something is pinned that was not when it was called; it may end for nothing.
    async fn pinned_more(&self);
}

/// Where a walk stands. Good for the store that gave it, until that is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkMark(pub u64);

/// A value being written. Dropping it without a commit aborts.
#[async_trait]
pub trait RecordWriter: Send + std::fmt::Debug {
    /// As [`crate::BlobWriter::offset`].
    fn offset(&self) -> u64 {
        0
    }

    /// Takes the next bytes; waits while the store is busy.
    ///
    /// # Errors
    /// `TooLarge`, `OutOfSpace`, `Unavailable`.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Verifies, makes durable with these pins, then visible. A blob that is there already gets the pins it lacks.
    ///
    /// # Errors
    /// `Invalid` on a wrong hash or size, `Conflict`, `OutOfSpace`, `Unavailable`. Nothing is visible then.
    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written>;
}
