//! The calls to a node, in our own words; `zimcache/node/v1/node.proto` has them on the wire.

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{
    ByteRange, GcOptions, Pins, RecordHead, RecordKey, RecordOptions, StoreStats, Touch, Version,
    Written,
};
use zimcache_types::{Digest, EntryKind, Namespace, Timestamp};

use crate::Result;

/// What a node says about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// It is not here, and the node knows it.
    Absent,
    /// It is here.
    Present,
    /// The node cannot tell: it is catching up.
    Unknown,
}

/// Asks for a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Epoch of the caller's ring.
    pub epoch: u64,
    /// Its name.
    pub key: RecordKey,
    /// Which bytes of it.
    pub range: ByteRange,
    /// Look in the durable tier too, and keep what is found.
    pub fill: bool,
}

/// The answer to [`Read`].
#[derive(Debug)]
pub enum Found {
    /// There is nothing here.
    No(Presence),
    /// There is a value, or a deletion.
    Yes {
        /// What stands before it.
        head: RecordHead,
        /// When it was put.
        created: Timestamp,
        /// Why it must stay.
        pins: Pins,
        /// Size of the whole value in bytes.
        total_bytes: u64,
        /// Whether the node was away and cannot tell yet if another one holds a newer version.
        is_unsure: bool,
        /// The bytes asked for.
        body: Box<dyn Body>,
    },
}

/// Bytes on their way from a node.
#[async_trait]
pub trait Body: Send + Sync + std::fmt::Debug {
    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// When the value breaks off.
    async fn next(&mut self) -> Option<Result<Bytes>>;
}

/// Begins to store a value.
#[derive(Debug, Clone)]
pub struct Write {
    /// Epoch of the caller's ring.
    pub epoch: u64,
    /// Its name.
    pub key: RecordKey,
    /// What stands before it.
    pub head: RecordHead,
    /// How.
    pub options: RecordOptions,
}

/// A value on its way to a node. Dropping it aborts.
#[async_trait]
pub trait Writing: Send + std::fmt::Debug {
    /// How many leading bytes the node holds already; the next chunk continues there.
    fn offset(&self) -> u64;

    /// Sends the next bytes; waits while the node is busy.
    ///
    /// # Errors
    /// When the node refuses them or is gone.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Ends the value. The answer comes when it is durable with these pins.
    ///
    /// # Errors
    /// When it is not.
    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written>;
}

/// Asks which blobs are there.
#[derive(Debug, Clone)]
pub struct Find {
    /// Epoch of the caller's ring.
    pub epoch: u64,
    /// Their names; all of one namespace.
    pub keys: Vec<RecordKey>,
    /// Their sizes in bytes, where they are known.
    pub sizes: Vec<Option<u64>>,
    /// What that does to those found.
    pub touch: Touch,
}

/// Tells a node to fetch records from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Epoch of the caller's ring.
    pub epoch: u64,
    /// Address of the node that has them.
    pub from: Box<str>,
    /// Their names.
    pub keys: Vec<RecordKey>,
    /// What the copies are pinned for.
    pub pins: Pins,
}

/// Asks for names in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// Entries of a kind.
    Entries {
        /// Of this namespace.
        namespace: Namespace,
        /// Of this kind.
        kind: EntryKind,
        /// Whose key texts start so.
        prefix: Box<str>,
        /// And come behind this.
        after: Option<Box<str>>,
        /// At most so many.
        limit: usize,
    },
    /// Blobs.
    Blobs {
        /// Of this namespace.
        namespace: Namespace,
        /// From behind this one.
        after: Option<Digest>,
        /// At most so many.
        limit: usize,
    },
}

/// A row of a listing of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// Key text.
    pub text: Box<str>,
    /// Size of the value in bytes.
    pub size_bytes: u64,
    /// Its version.
    pub version: Version,
    /// When it was put.
    pub created: Timestamp,
}

/// A row of a listing of blobs.
pub type ListedBlob = zimcache_store::BlobInfo;

/// Asks how a node is.
#[derive(Debug, Clone, Default)]
pub struct StatusQuestion {
    /// A ring document in JSON that the caller knows of.
    pub ring: Option<Bytes>,
    /// The member that asks, and the store it has, when it wants to know whether something is held for it.
    pub for_member: Option<(Box<str>, [u8; 16])>,
    /// Whether figures and usage are wanted; they take longer.
    pub with_figures: bool,
}

/// How a node is.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Its name in the ring.
    pub id: Box<str>,
    /// Its store.
    pub store_id: [u8; 16],
    /// Version of the program.
    pub version: Box<str>,
    /// Epoch of the ring it follows.
    pub epoch: u64,
    /// Epoch of the last placement for which everything it has was handed to its owners.
    pub synced_epoch: u64,
    /// Whether its "no" is not to be trusted yet.
    pub catching_up: bool,
    /// Whether it is about to leave.
    pub draining: bool,
    /// What is pinned.
    pub pinned: zimcache_store::PinnedCounts,
    /// Requests it is working on.
    pub in_flight: u64,
    /// Figures, if they were asked for.
    pub stats: StoreStats,
    /// What is held by whom, if it was asked for: rows of `StoreAdmin::usage` in JSON.
    pub usage: Bytes,
    /// Whether nothing is held here that the member that asks lacks.
    pub nothing_for_member: bool,
    /// The node's ring, a document in JSON, when it is newer than the caller's.
    pub ring: Option<Bytes>,
    /// Whether the durable tier answers; `None` without one.
    pub tier_reachable: Option<bool>,
}

/// Work for a node's keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manage {
    /// Collect garbage. The answer is a `GcReport` in JSON.
    Gc(GcOptions),
    /// Verify everything. The answer is a `VerifyReport` in JSON.
    Verify,
    /// Hand everything over and take nothing new; or stop doing so.
    Drain(bool),
}

/// A node, as gateways and other nodes see it.
#[async_trait]
pub trait Peer: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a value.
    ///
    /// # Errors
    /// `RangeInvalid`; `StaleRing`; when the node fails.
    async fn read(&self, read: Read) -> Result<Found>;

    /// Begins to store a value, or a deletion.
    ///
    /// # Errors
    /// `Invalid`, `Conflict`, `OutOfSpace`; `StaleRing`; when the node fails.
    async fn write(&self, write: Write) -> Result<Box<dyn Writing>>;

    /// What the node says about each blob.
    ///
    /// # Errors
    /// `StaleRing`; when the node fails.
    async fn find(&self, find: Find) -> Result<Vec<Presence>>;

    /// Makes the node fetch records from another one; for each whether it holds that value durably now, or a newer one.
    ///
    /// # Errors
    /// When the node fails.
    async fn pull(&self, pull: Pull) -> Result<Vec<bool>>;

    /// Takes pins off records that still have these versions.
    ///
    /// # Errors
    /// When the node fails.
    async fn settle(&self, records: Vec<(RecordKey, Version)>, pins: Pins) -> Result<()>;

    /// Removes a blob durably; false when there was none.
    ///
    /// # Errors
    /// When the node fails.
    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool>;

    /// Forgets everything in a namespace, durably.
    ///
    /// # Errors
    /// When the node fails.
    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()>;

    /// Lists entries.
    ///
    /// # Errors
    /// When the node fails.
    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>>;

    /// Lists blobs.
    ///
    /// # Errors
    /// When the node fails.
    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>>;

    /// How the node is.
    ///
    /// # Errors
    /// When the node fails.
    async fn status(&self, question: StatusQuestion) -> Result<Status>;

    /// Does what its keeper asks; a report in JSON, empty where there is none.
    ///
    /// # Errors
    /// When the node fails.
    async fn manage(&self, work: Manage) -> Result<Bytes>;
}
