//! The blobs of the cluster: reads by way of RAM, flights and searches; writes, look-ups and deletions each have a file.
//!
//! NOT_FOUND is said only with proof. The empty blob is always there.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_link::Error;
use zimcache_store::{
    BlobStore, BlobWriter, ByteRange, CreateOptions, Reader, RecordKey, Result, Touch,
};
use zimcache_types::{Code, Digest, Hasher, Namespace};

use crate::{
    config::Durability,
    flight, missing,
    node::{store_error, unavailable},
    repair::Repair,
    search::{Findings, Wanted, search},
    shared::{Shared, until_all_can},
    source::Source,
    write::{BlobPut, EmptyPut},
};

/// Blobs of this size or unknown size are asked for again soon when a node is slow; in bytes.
const SMALL_BYTES: u64 = 1 << 20;

/// How many rings one deletion follows.
const MOST_RINGS: usize = 3;

/// The blobs of the cluster.
#[derive(Debug)]
pub(crate) struct Blobs(pub(crate) Arc<Shared>);

#[async_trait]
impl BlobStore for Blobs {
    async fn open(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        if digest.is_empty_blob() {
            let range = range.resolve(0)?;
            return Ok(Some(Reader::from_bytes_range(&Bytes::new(), range)));
        }
        let key = RecordKey::blob(namespace, digest);
        let reader = match self.0.ram.get(&key) {
            Some(value) => {
                crate::shared::count(&self.0.counts.ram_hits);
                let range = range.resolve(value.len() as u64)?;
                Some(Reader::from_bytes_range(&value, range))
            }
            None if range == ByteRange::Full => {
                flight::read(&self.0, &key, digest.size_bytes).await?
            }
            None => part(&self.0, &key, range, digest.size_bytes).await?,
        };
        let fits = |reader: &Reader| {
            digest
                .size_bytes
                .is_none_or(|size| size == reader.total_bytes())
        };
        Ok(reader.filter(fits))
    }

    async fn create(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        options: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>> {
        let Some(hasher) = Hasher::for_digest(digest) else {
            return Err(zimcache_store::Error::SizeNeeded(digest.hash.function()));
        };
        if digest.is_empty_blob() {
            return Ok(Box::new(EmptyPut::new(*digest, hasher)));
        }
        let put = BlobPut::open(Arc::clone(&self.0), namespace, *digest, hasher, options).await?;
        Ok(Box::new(put))
    }

    async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        missing::missing(&self.0, namespace, digests, touch).await
    }

    async fn delete(&self, namespace: &Namespace, digest: &Digest) -> Result<bool> {
        if digest.is_empty_blob() {
            return Ok(false);
        }
        let key = RecordKey::blob(namespace, digest);
        if self.has_other_size(&key, digest.size_bytes).await {
            return Ok(false);
        }
        self.forget(&key);
        let deleted = self.0.on_all_members(|node, epoch| {
            let (node, key) = (Arc::clone(node), key.clone());
            async move { node.peer.delete(epoch, key).await }
        });
        let deleted = deleted.await;
        // Again: a read may have begun meanwhile.
        self.forget(&key);
        Ok(deleted?.into_iter().any(|was_there| was_there))
    }
}

impl Blobs {
    /// Whether the blob of that hash is not of that size, so that the digest names nothing.
    async fn has_other_size(&self, key: &RecordKey, size: Option<u64>) -> bool {
        let Some(size) = size else { return false };
        let found = find(&self.0, key, ByteRange::Full, None).await;
        matches!(found, Ok(Some(source)) if source.total() != size)
    }

    fn forget(&self, key: &RecordKey) {
        self.0.ram.delete(key);
        self.0.flights.forget(|flying| flying == key);
    }
}

/// A range of a blob.
async fn part(
    shared: &Arc<Shared>,
    key: &RecordKey,
    range: ByteRange,
    size: Option<u64>,
) -> Result<Option<Reader>> {
    match find(shared, key, range, size).await {
        Ok(source) => Ok(source.map(Source::into_reader)),
        Err(error) if error.code() == Code::RangeInvalid => {
            let whole = find(shared, key, ByteRange::Full, size).await;
            let size = whole
                .map_err(store_error)?
                .map_or(0, |source| source.total());
            Err(zimcache_store::Error::RangeInvalid { size })
        }
        Err(error) => Err(store_error(error)),
    }
}

/// Looks for a blob; `None` when it is proven to be absent.
///
/// # Errors
/// `Unavailable` when it was not found and absence is not proven.
pub(crate) async fn find(
    shared: &Arc<Shared>,
    key: &RecordKey,
    range: ByteRange,
    size: Option<u64>,
) -> zimcache_link::Result<Option<Source>> {
    let is_large = size.is_some_and(|size| size > SMALL_BYTES);
    let hedge = if is_large {
        shared.config.timing.hedge_large
    } else {
        shared.latency.hedge_after()
    };
    let mut findings = search(shared, Wanted { key, range, hedge }).await?;
    let Some(hit) = findings.hits.pop() else {
        let may_replace = shared.durability_of(&key.namespace) != Durability::Local;
        return if findings.is_not_in_tier && findings.is_proven(may_replace) {
            Ok(None)
        } else {
            Err(not_proven())
        };
    };
    for target in findings.lacking() {
        shared.repair(Repair {
            key: key.clone(),
            target: Arc::clone(target),
            from: Arc::clone(&hit.node),
            size_bytes: hit.total,
        });
    }
    let others = if hit.is_all_there() {
        Vec::new()
    } else {
        others(&findings, &shared.config.zone)
    };
    Ok(Some(Source::new(
        Arc::clone(shared),
        key.clone(),
        hit,
        others,
    )))
}

/// The nodes a value may go on from: all but those that are known to lack it.
pub(crate) fn others(findings: &Findings, zone: &str) -> Vec<Arc<crate::node::Node>> {
    let order = findings.plan.reading_order(zone);
    let may = |number: &usize| findings.answers[*number] != crate::proof::Answer::Absent;
    let candidates = &findings.plan.candidates;
    order
        .into_iter()
        .filter(may)
        .map(|number| Arc::clone(&candidates[number].node))
        .collect()
}

fn not_proven() -> Error {
    Error::Refused {
        code: Code::Unavailable,
        message: "too few nodes can be reached to say that it is absent".into(),
    }
}

impl Shared {
    /// Does something on every member that is neither drained nor lost, under the epoch of the ring that says so. Again
    /// when a node knows of a newer ring, or this gateway does by then: that may have members which this one has not. And
    /// again for a while when one of them cannot be reached. What all rounds brought is returned, so that a second one
    /// does not hide what the first one found.
    ///
    /// # Errors
    /// `Unavailable` when one of them stays away or fails.
    pub(crate) async fn on_all_members<T, F>(
        &self,
        work: impl Fn(&Arc<crate::node::Node>, u64) -> F,
    ) -> Result<Vec<T>>
    where
        F: Future<Output = zimcache_link::Result<T>>,
    {
        let all = Mutex::new(Vec::new());
        until_all_can(|| self.on_members_of_the_newest_ring(&work, &all)).await?;
        Ok(all.into_inner())
    }

    async fn on_members_of_the_newest_ring<T, F>(
        &self,
        work: impl Fn(&Arc<crate::node::Node>, u64) -> F,
        all: &Mutex<Vec<T>>,
    ) -> Result<()>
    where
        F: Future<Output = zimcache_link::Result<T>>,
    {
        for _ in 0..MOST_RINGS {
            let round = || self.on_members_of(self.view(), &work, all);
            let done = crate::shared::under_the_newest_ring(self, round).await;
            if done.map_err(store_error)? {
                return Ok(());
            }
        }
        Err(unavailable(
            "the members of the cluster change all the time",
        ))
    }

    /// One round; whether those were all members that there are now.
    async fn on_members_of<T, F>(
        &self,
        view: Arc<crate::view::View>,
        work: impl Fn(&Arc<crate::node::Node>, u64) -> F,
        all: &Mutex<Vec<T>>,
    ) -> zimcache_link::Result<bool>
    where
        F: Future<Output = zimcache_link::Result<T>>,
    {
        let limit = self.config.timing.answer;
        let calls = view
            .present()
            .map(|node| node.call(limit, work(node, view.epoch())));
        let done = futures_util::future::join_all(calls).await;
        let mut failure = None;
        for one in done {
            match one {
                Ok(value) => all.lock().push(value),
                Err(stale @ Error::StaleRing { .. }) => failure = Some(stale),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error @ Error::StaleRing { .. }) => Err(error),
            _ if self.view().epoch() > view.epoch() => Ok(false),
            Some(error) => Err(error),
            None => Ok(true),
        }
    }
}
