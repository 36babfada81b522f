//! The contract for blobs: immutable bytes named by a digest.
//!
//! Invariants every implementation keeps (checked by [`crate::testing::conformance`]): nothing is visible before its
//! digest verified and the bytes are as durable as the store promises; a commit of a blob that exists already is a
//! success and leaves the visible bytes alone; the body is verified even then; dropping a writer aborts it and leaves
//! nothing visible; the empty blob is always present.

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_types::{Digest, Namespace};

use crate::{ByteRange, Reader, Result};

/// What a look-up does to the thing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Nothing: an operator is looking.
    No,
    /// Counts as a use for eviction.
    Use,
    /// Counts as a use and makes sure of a lease: "present" is a promise for at least four hours from the answer on,
    /// across restarts too. Waits for the disk only when no lease of four hours or more is on it already.
    Lease,
}

/// How a blob is to be written.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Name under which an interrupted upload can be taken up again, also after a restart. The writer's
    /// [`BlobWriter::offset`] says how many bytes are already held.
    pub resume_as: Option<Box<str>>,
    /// Refuse bodies larger than this many bytes.
    pub limit_bytes: Option<u64>,
    /// The acknowledged blob starts with a lease, as after a look-up with [`Touch::Lease`].
    pub lease: bool,
}

/// Immutable bytes named by a digest.
#[async_trait]
pub trait BlobStore: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a blob for reading; `None` when it is absent. Counts as a use.
    ///
    /// # Errors
    /// `RangeInvalid` when the range starts behind the end; `Corrupt`, `Unavailable` when the disk fails.
    async fn open(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Reader>>;

    /// Starts writing a blob. Nothing is visible before [`BlobWriter::commit`] returned.
    ///
    /// # Errors
    /// `OutOfSpace`, `Unavailable` when the store takes no writes.
    async fn create(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        options: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>>;

    /// For each digest whether it is absent. Present ones are touched as told.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell.
    async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        touch: Touch,
    ) -> Result<Vec<bool>>;

    /// Removes a blob durably; `false` when it was absent. A removed blob never returns by itself.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    async fn delete(&self, namespace: &Namespace, digest: &Digest) -> Result<bool>;
}

/// A blob being written. Dropping it without a commit aborts.
#[async_trait]
pub trait BlobWriter: Send + std::fmt::Debug {
    /// How many leading bytes are already held durably from an earlier, interrupted upload of the same name.
    /// The next [`BlobWriter::write`] continues there.
    fn offset(&self) -> u64 {
        0
    }

    /// Takes the next bytes; waits while the store is busy.
    ///
    /// # Errors
    /// `TooLarge`, `OutOfSpace`, `Unavailable`.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Verifies the digest, makes the bytes durable, then visible. Returns the size in bytes.
    ///
    /// # Errors
    /// `Invalid` on a wrong hash or size, `OutOfSpace`, `Unavailable`. Nothing is visible then.
    async fn commit(self: Box<Self>) -> Result<u64>;
}
