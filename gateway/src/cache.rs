//! The domain operations that every dialect calls: blobs and entries; blobs on their way in are in `uploads`, action
//! results in `action_results`.
//!
//! One set for all dialects, so that a rule (size limit, verification, completeness) is written once; the rights of the
//! caller are checked in front of it (`room`). No HTTP type and no status below this line. Invariant: bytes that fail
//! verification are a miss for the client and an alarm for us.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use tokio::sync::Semaphore;
use zimcache_store::{
    self as store, BlobStore, ByteRange, Entry, EntryInfo, EntryMeta, EntryStore, Precondition,
    Reader, Touch,
};
use zimcache_types::{ByteSize, Code, Digest, EntryKey, EntryKind, Hash, Namespace};

use crate::{Error, chunks, error::Result, functions::Functions};

/// Values up to this size are read into memory without queueing.
pub(crate) const SMALL_BYTES: u64 = 1 << 20;
/// Absent names of no certain function that are tried under the other one where nothing is known of it.
const TRIED: usize = 4;
/// Names of no certain function that are asked for under the other one along with the question: nearly always there are
/// [`TRIED`] absent ones among them, and nobody waits for a second question.
const ALONG: usize = 16;
/// How many larger values may be in memory at once, over all requests.
const LARGE_VALUES: usize = 2;

/// A body that comes in chunks.
pub trait Chunks: Send {
    /// The next chunk; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes>>> + Send;

    /// Size of the whole body in bytes, where it is known before the first chunk.
    fn announced_bytes(&self) -> Option<u64> {
        None
    }

    /// Of an upload that can be taken up again: so many bytes of the value are held, and the next chunk is to continue
    /// there.
    ///
    /// # Errors
    /// When the body begins behind that.
    fn begin_at(&mut self, _held: u64) -> Result<()> {
        Ok(())
    }
}

/// The name of a blob, as a client gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Under the likeliest hash function.
    pub digest: Digest,
    /// Whether the function is known: else the hash may be of any that has hashes of its length.
    pub certain: bool,
}

impl Named {
    /// A name that says nothing of its function, as dialects over HTTP have it.
    pub const fn bare(hash: Hash, size_bytes: Option<u64>) -> Named {
        Named {
            digest: Digest { hash, size_bytes },
            certain: false,
        }
    }
}

/// The cache, as the dialects see it.
#[derive(Debug)]
pub struct Cache {
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) entries: Arc<dyn EntryStore>,
    pub(crate) max_value_bytes: u64,
    large_values: Semaphore,
    pub(crate) functions: Functions,
    /// Cutting a blob into chunks is work; so many at once.
    pub(crate) cuttings: Semaphore,
}

impl Cache {
    /// A cache over these stores that accepts values up to `max_value`.
    pub fn new(
        blobs: Arc<dyn BlobStore>,
        entries: Arc<dyn EntryStore>,
        max_value: ByteSize,
    ) -> Cache {
        Cache {
            blobs,
            entries,
            max_value_bytes: max_value.as_u64(),
            large_values: Semaphore::new(LARGE_VALUES),
            functions: Functions::default(),
            cuttings: Semaphore::new(chunks::CUTTINGS),
        }
    }

    /// Opens a blob; `None` when it is absent.
    ///
    /// # Errors
    /// `RangeInvalid`; `Unavailable` when the store cannot tell.
    pub async fn open_blob(
        &self,
        namespace: &Namespace,
        named: &Named,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        let readings = self.readings(namespace, named);
        if readings.clone().any(|digest| digest.is_empty_blob()) {
            let range = range.resolve(0)?;
            return Ok(Some(Reader::from_bytes_range(&Bytes::new(), range)));
        }
        for digest in readings {
            let hash = digest.hash;
            let opened = self.blobs.open(namespace, &digest, range).await;
            if let Some(reader) = alarm(opened, &hash)? {
                self.functions.learn(namespace, hash.function());
                return Ok(Some(reader));
            }
        }
        Ok(None)
    }

    /// For each blob whether it is absent; what is present is leased. Names whose function is not certain are looked for
    /// under the other one, too: all that are absent where blobs of another one are known, else a few, to learn of them.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot tell.
    pub(crate) async fn missing_blobs(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        certain: bool,
    ) -> Result<Vec<bool>> {
        if certain {
            return Ok(self.blobs.missing(namespace, digests, Touch::Lease).await?);
        }
        let is_known = self.functions.any_other();
        let most_along = if is_known { 0 } else { ALONG };
        let numbered = digests.iter().enumerate();
        let along = numbered.filter_map(|(number, digest)| Some((number, other(digest)?)));
        let (numbers, along): (Vec<usize>, Vec<Digest>) = along.take(most_along).unzip();
        let asked = [digests, &along].concat();
        let mut missing = self.blobs.missing(namespace, &asked, Touch::Lease).await?;
        let others = missing.split_off(digests.len());
        let tried = numbers.iter().filter(|number| missing[**number]).count();
        let absent = missing.iter().filter(|gone| **gone).count();
        let wanted = if is_known { usize::MAX } else { TRIED };
        let is_any = others.contains(&false)
            || tried < wanted.min(absent)
                && self
                    .find_others(namespace, digests, &mut missing, wanted)
                    .await?;
        if is_any && !is_known {
            self.find_others(namespace, digests, &mut missing, usize::MAX)
                .await?;
        }
        for (gone, digest) in missing.iter_mut().zip(digests) {
            *gone &= digest.size_bytes != Some(0)
                || !readings(&digest.hash).any(|hash| Digest { hash, ..*digest }.is_empty_blob());
        }
        Ok(missing)
    }

    /// Looks for the first so many that are absent under their other function; whether there is any.
    async fn find_others(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        missing: &mut [bool],
        tried: usize,
    ) -> Result<bool> {
        let absent = missing.iter_mut().zip(digests).filter(|(gone, _)| **gone);
        let (again, others): (Vec<&mut bool>, Vec<Digest>) = absent
            .filter_map(|(gone, digest)| Some((gone, other(digest)?)))
            .take(tried)
            .unzip();
        let still = self.blobs.missing(namespace, &others, Touch::Lease).await?;
        let found = still.iter().position(|gone| !gone);
        if let Some(found) = found {
            let function = others[found].hash.function();
            self.functions.learn(namespace, function);
        }
        for (gone, still) in again.into_iter().zip(still) {
            *gone = still;
        }
        Ok(found.is_some())
    }

    /// The digests that a name may mean, likeliest first.
    pub(crate) fn readings(
        &self,
        namespace: &Namespace,
        named: &Named,
    ) -> impl Iterator<Item = Digest> + Clone + use<> {
        let Named { digest, certain } = *named;
        let own = certain.then_some(digest.hash).into_iter();
        let any = (!certain).then(|| self.functions.readings(namespace, &digest.hash));
        own.chain(any.into_iter().flatten())
            .map(move |hash| Digest { hash, ..digest })
    }

    /// Removes a blob under every function its hash may be of; false when there was none.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    pub async fn delete_blob(&self, namespace: &Namespace, hash: &Hash) -> Result<bool> {
        let mut found = false;
        for hash in readings(hash) {
            found |= self
                .blobs
                .delete(namespace, &Digest::unsized_(hash))
                .await?;
        }
        Ok(found)
    }

    /// Opens an entry; `None` when there is none.
    ///
    /// # Errors
    /// `RangeInvalid`; `Unavailable` when the store cannot tell.
    pub async fn open_entry(&self, key: &EntryKey, range: ByteRange) -> Result<Option<Entry>> {
        alarm(self.entries.get(key, range).await, &key.text)
    }

    /// Stores an entry whose value nobody looks into; gives its version.
    ///
    /// # Errors
    /// `Conflict` when the precondition does not hold, `Invalid` when the body is cut short, `TooLarge`, `Timeout`,
    /// `OutOfSpace`, `Unavailable`.
    pub async fn put_entry(
        &self,
        key: &EntryKey,
        meta: EntryMeta,
        precondition: Precondition,
        body: &mut impl Chunks,
    ) -> Result<u64> {
        self.check_size(body.announced_bytes())?;
        let limit = Some(self.max_value_bytes);
        let mut writer = self.entries.put(key, meta, precondition, limit).await?;
        while let Some(chunk) = body.next().await {
            writer.write(chunk?).await?;
        }
        Ok(writer.commit().await?)
    }

    /// Lists entries whose key texts start so, in order.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    pub async fn list_entries(
        &self,
        namespace: &Namespace,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryInfo>> {
        Ok(self
            .entries
            .list(namespace, kind, prefix, after, limit)
            .await?)
    }

    /// Forgets everything in a namespace, durably.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    pub async fn purge(&self, namespace: &Namespace) -> Result<()> {
        Ok(self.entries.purge(namespace).await?)
    }

    /// Deletes an entry; false when there was none.
    ///
    /// # Errors
    /// `Unavailable` when the store takes no writes.
    pub async fn delete_entry(&self, key: &EntryKey) -> Result<bool> {
        Ok(self.entries.delete(key).await?)
    }

    /// Waits until a value of this size may be taken into memory. Small ones never wait.
    pub(crate) async fn turn_for(
        &self,
        size_bytes: u64,
    ) -> Option<tokio::sync::SemaphorePermit<'_>> {
        if size_bytes <= SMALL_BYTES {
            return None;
        }
        self.large_values.acquire().await.ok()
    }

    pub(crate) fn check_size(&self, size: Option<u64>) -> Result<()> {
        let limit = self.max_value_bytes;
        if size.is_some_and(|size| size > limit) {
            return Err(Error::TooLarge { limit });
        }
        Ok(())
    }
}

/// The digest under the other function that its name may be of, if there is one.
fn other(digest: &Digest) -> Option<Digest> {
    let hash = readings(&digest.hash).find(|hash| *hash != digest.hash)?;
    Some(Digest { hash, ..*digest })
}

/// The hash as the output of each function that may have been meant, most likely first.
pub(crate) fn readings(hash: &Hash) -> impl Iterator<Item = Hash> + Clone + use<> {
    let hash = *hash;
    let functions = hash.function().readings().iter();
    functions.filter_map(move |function| hash.reinterpret(*function))
}

/// A value that failed verification and has no good copy left is absent for the client; we want to know.
pub(crate) fn alarm<T>(
    outcome: store::Result<Option<T>>,
    what: &dyn std::fmt::Display,
) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.code() == Code::Corrupt => {
            tracing::error!(%error, %what, "a stored value is damaged and no longer served");
            Ok(None)
        }
        other => Ok(other?),
    }
}
