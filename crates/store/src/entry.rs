//! The contract for entries: named, versioned records with metadata and a value that streams.
//!
//! Invariants every implementation keeps: a committed put is durable; the newest committed version wins, also after a
//! restart; a deleted entry never returns; a reader keeps reading the version it opened.

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_types::{EntryKey, EntryKind, Namespace, Timestamp};

use crate::{ByteRange, Reader, Result};

/// What travels with an entry's value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryMeta {
    /// Media type the client sent, if any.
    pub content_type: Option<Box<str>>,
    /// Client metadata to be echoed (lower-case name, value); at most [`EntryMeta::MAX_BYTES`] in all.
    pub client: Vec<(Box<str>, Box<str>)>,
}

impl EntryMeta {
    /// Most metadata an entry may carry, in bytes of names and values.
    pub const MAX_BYTES: usize = 8 << 10;

    /// Size in bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        let client: usize = self
            .client
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        client + self.content_type.as_ref().map_or(0, |text| text.len())
    }
}

/// When a put may take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Always: the newest put wins.
    #[default]
    None,
    /// Only when the key has no live entry.
    Absent,
}

/// An entry opened for reading.
#[derive(Debug)]
pub struct Entry {
    /// Identity of this version: differs between any two puts of a key. Fit for an ETag.
    pub version: u64,
    /// When it was put.
    pub created: Timestamp,
    /// Metadata stored with it.
    pub meta: EntryMeta,
    /// The value, or the asked range of it.
    pub value: Reader,
}

/// One row of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Key text.
    pub text: Box<str>,
    /// Size of the value in bytes.
    pub size_bytes: u64,
    /// Version, as in [`Entry::version`].
    pub version: u64,
    /// When it was put.
    pub created: Timestamp,
}

/// Named, versioned records.
#[async_trait]
pub trait EntryStore: Send + Sync + std::fmt::Debug + 'static {
    /// Opens the newest version of an entry; `None` when there is none. Counts as a use.
    ///
    /// # Errors
    /// `RangeInvalid` when the range starts behind the end; `Corrupt`, `Unavailable` when the disk fails.
    async fn get(&self, key: &EntryKey, range: ByteRange) -> Result<Option<Entry>>;

    /// Starts a put. Nothing is visible before [`EntryWriter::commit`] returned.
    ///
    /// # Errors
    /// `Invalid` when the metadata is too large; `OutOfSpace`, `Unavailable`.
    async fn put(
        &self,
        key: &EntryKey,
        meta: EntryMeta,
        precondition: Precondition,
        limit_bytes: Option<u64>,
    ) -> Result<Box<dyn EntryWriter>>;

    /// Deletes an entry durably; `false` when there was none.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    async fn delete(&self, key: &EntryKey) -> Result<bool>;

    /// Lists live entries of a kind whose key text starts with `prefix` and comes after `after`, in key order, at
    /// most `limit`. May be slow: it may read the disk.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    async fn list(
        &self,
        namespace: &Namespace,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryInfo>>;

    /// Forgets everything in a namespace, entries and blobs, durably.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    async fn purge(&self, namespace: &Namespace) -> Result<()>;
}

/// An entry being written. Dropping it without a commit aborts.
#[async_trait]
pub trait EntryWriter: Send + std::fmt::Debug {
    /// Takes the next bytes of the value; waits while the store is busy.
    ///
    /// # Errors
    /// `TooLarge`, `OutOfSpace`, `Unavailable`.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Makes the value durable, then visible. Returns the version.
    ///
    /// # Errors
    /// `Conflict` when the precondition does not hold; `OutOfSpace`, `Unavailable`. Nothing is visible then.
    async fn commit(self: Box<Self>) -> Result<u64>;
}
