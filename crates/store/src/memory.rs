//! The reference store: everything in RAM, nothing survives a restart, nothing leaves unless it is told to.
//!
//! It is the model other stores are compared with, and the store of gateway tests. Not for production.

mod admin;
mod replica;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
pub use replica::MemoryReplica;
use zimcache_types::{
    Clock, Digest, EntryKey, EntryKind, Hash, Hasher, Namespace, SystemClock, Timestamp,
};

use crate::{
    BlobStore, BlobWriter, ByteRange, CreateOptions, Entry, EntryInfo, EntryMeta, EntryStore,
    EntryWriter, Error, Precondition, Reader, Result, Retention, Touch,
};

/// How long "present" is a promise.
const LEASE: Duration = Duration::from_hours(4);

/// A store in RAM. Clones share their content.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
    versions: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<(Namespace, Hash), StoredBlob>,
    partial: HashMap<(Namespace, Box<str>), BytesMut>,
    entries: BTreeMap<EntryKey, Stored>,
    retention: Retention,
    expired_records: u64,
}

#[derive(Debug, Clone)]
struct StoredBlob {
    value: Bytes,
    created: Timestamp,
    leased_until: Timestamp,
}

#[derive(Debug, Clone)]
struct Stored {
    version: u64,
    created: Timestamp,
    meta: EntryMeta,
    value: Bytes,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore {
            state: Arc::default(),
            clock: Arc::new(SystemClock),
            versions: Arc::new(AtomicU64::new(1)),
        }
    }
}

impl MemoryStore {
    /// An empty store that reads this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> MemoryStore {
        MemoryStore {
            clock,
            ..MemoryStore::default()
        }
    }

    /// The exact set of blobs held, for tests.
    pub fn blob_names(&self) -> Vec<(Namespace, Hash)> {
        let mut names: Vec<_> = self.state.lock().blobs.keys().cloned().collect();
        names.sort();
        names
    }

    /// The exact set of entries held, for tests.
    pub fn entry_keys(&self) -> Vec<EntryKey> {
        self.state.lock().entries.keys().cloned().collect()
    }

    fn find(&self, namespace: &Namespace, digest: &Digest, touch: Touch) -> Option<Bytes> {
        if digest.is_empty_blob() {
            return Some(Bytes::new());
        }
        let now = self.clock.now();
        let state = &mut *self.state.lock();
        let blob = state.blobs.get_mut(&(namespace.clone(), digest.hash))?;
        let size_fits = digest
            .size_bytes
            .is_none_or(|size| size == blob.value.len() as u64);
        if !size_fits || !blob.is_served(state.retention.ttl(namespace), now) {
            return None;
        }
        if touch == Touch::Lease {
            blob.leased_until = now.plus(LEASE);
        }
        Some(blob.value.clone())
    }

    fn find_entry(&self, key: &EntryKey) -> Option<Stored> {
        let state = self.state.lock();
        let stored = state.entries.get(key)?;
        let ttl = state.retention.ttl(&key.namespace);
        is_fresh(stored.created, ttl, self.clock.now()).then(|| stored.clone())
    }
}

/// Whether something put at `created` is still served.
fn is_fresh(created: Timestamp, ttl: Option<Duration>, now: Timestamp) -> bool {
    ttl.is_none_or(|ttl| now.since(created) < ttl)
}

impl StoredBlob {
    fn is_served(&self, ttl: Option<Duration>, now: Timestamp) -> bool {
        now < self.leased_until || is_fresh(self.created, ttl, now)
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    async fn open(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        let Some(value) = self.find(namespace, digest, Touch::Use) else {
            return Ok(None);
        };
        let range = range.resolve(value.len() as u64)?;
        Ok(Some(Reader::from_bytes_range(&value, range)))
    }

    async fn create(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        options: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>> {
        if Hasher::for_digest(digest).is_none() {
            return Err(Error::SizeNeeded(digest.hash.function()));
        }
        let key = options.resume_as.map(|name| (namespace.clone(), name));
        // Taken away, so that two writers of one name do not mix.
        let held = key
            .as_ref()
            .and_then(|key| self.state.lock().partial.remove(key));
        let body = held.unwrap_or_default();
        Ok(Box::new(MemoryBlobWriter {
            store: self.clone(),
            namespace: namespace.clone(),
            digest: *digest,
            offset: body.len() as u64,
            limit: options.limit_bytes.unwrap_or(u64::MAX),
            lease: options.lease,
            resume: key,
            body,
        }))
    }

    async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        Ok(digests
            .iter()
            .map(|digest| self.find(namespace, digest, touch).is_none())
            .collect())
    }

    async fn delete(&self, namespace: &Namespace, digest: &Digest) -> Result<bool> {
        if digest.is_empty_blob() || self.find(namespace, digest, Touch::No).is_none() {
            return Ok(false);
        }
        let key = (namespace.clone(), digest.hash);
        Ok(self.state.lock().blobs.remove(&key).is_some())
    }
}

#[derive(Debug)]
struct MemoryBlobWriter {
    store: MemoryStore,
    namespace: Namespace,
    digest: Digest,
    offset: u64,
    limit: u64,
    lease: bool,
    resume: Option<(Namespace, Box<str>)>,
    body: BytesMut,
}

#[async_trait]
impl BlobWriter for MemoryBlobWriter {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if self.body.len() as u64 + chunk.len() as u64 > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        self.body.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<u64> {
        let size = self.body.len() as u64;
        self.resume = None;
        if let Some(expected) = self.digest.size_bytes.filter(|expected| *expected != size) {
            return Err(Error::SizeMismatch {
                expected,
                actual: size,
            });
        }
        let actual = Digest::of(self.digest.hash.function(), &self.body).hash;
        if actual != self.digest.hash {
            return Err(Error::DigestMismatch {
                expected: self.digest.hash,
                actual,
            });
        }
        if size > 0 {
            let value = std::mem::take(&mut self.body).freeze();
            let key = (self.namespace.clone(), self.digest.hash);
            let created = self.store.clock.now();
            let blob = StoredBlob {
                value,
                created,
                leased_until: Timestamp(0),
            };
            let mut state = self.store.state.lock();
            let held = state.blobs.entry(key).or_insert(blob);
            held.created = created;
            if self.lease {
                held.leased_until = created.plus(LEASE);
            }
        }
        Ok(size)
    }
}

impl Drop for MemoryBlobWriter {
    /// Leaves what came for the next writer of the name.
    fn drop(&mut self) {
        if let Some(key) = self.resume.take().filter(|_| !self.body.is_empty()) {
            let body = std::mem::take(&mut self.body);
            self.store.state.lock().partial.insert(key, body);
        }
    }
}

#[async_trait]
impl EntryStore for MemoryStore {
    async fn get(&self, key: &EntryKey, range: ByteRange) -> Result<Option<Entry>> {
        let Some(stored) = self.find_entry(key) else {
            return Ok(None);
        };
        let range = range.resolve(stored.value.len() as u64)?;
        Ok(Some(Entry {
            version: stored.version,
            created: stored.created,
            meta: stored.meta,
            value: Reader::from_bytes_range(&stored.value, range),
        }))
    }

    async fn put(
        &self,
        key: &EntryKey,
        meta: EntryMeta,
        precondition: Precondition,
        limit_bytes: Option<u64>,
    ) -> Result<Box<dyn EntryWriter>> {
        let size = meta.size_bytes();
        if size > EntryMeta::MAX_BYTES {
            return Err(Error::MetadataTooLarge {
                size,
                limit: EntryMeta::MAX_BYTES,
            });
        }
        Ok(Box::new(MemoryEntryWriter {
            store: self.clone(),
            key: key.clone(),
            meta,
            precondition,
            limit: limit_bytes.unwrap_or(u64::MAX),
            body: BytesMut::new(),
        }))
    }

    async fn delete(&self, key: &EntryKey) -> Result<bool> {
        let fresh = self.find_entry(key).is_some();
        Ok(self.state.lock().entries.remove(key).is_some() && fresh)
    }

    async fn list(
        &self,
        namespace: &Namespace,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryInfo>> {
        let state = self.state.lock();
        let (ttl, now) = (state.retention.ttl(namespace), self.clock.now());
        let wanted = |key: &EntryKey, stored: &Stored| {
            key.namespace == *namespace
                && is_fresh(stored.created, ttl, now)
                && key.kind == kind
                && key.text.starts_with(prefix)
                && after.is_none_or(|after| &*key.text > after)
        };
        let rows = state
            .entries
            .iter()
            .filter(|(key, stored)| wanted(key, stored))
            .take(limit);
        Ok(rows.map(|(key, stored)| stored.info(key)).collect())
    }

    async fn purge(&self, namespace: &Namespace) -> Result<()> {
        let mut state = self.state.lock();
        state.entries.retain(|key, _| key.namespace != *namespace);
        state.blobs.retain(|(owner, _), _| owner != namespace);
        Ok(())
    }
}

impl Stored {
    fn info(&self, key: &EntryKey) -> EntryInfo {
        EntryInfo {
            text: key.text.clone(),
            size_bytes: self.value.len() as u64,
            version: self.version,
            created: self.created,
        }
    }
}

#[derive(Debug)]
struct MemoryEntryWriter {
    store: MemoryStore,
    key: EntryKey,
    meta: EntryMeta,
    precondition: Precondition,
    limit: u64,
    body: BytesMut,
}

#[async_trait]
impl EntryWriter for MemoryEntryWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if self.body.len() as u64 + chunk.len() as u64 > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        self.body.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<u64> {
        let version = self.store.versions.fetch_add(1, Ordering::Relaxed);
        let created = self.store.clock.now();
        let stored = Stored {
            version,
            created,
            meta: self.meta,
            value: self.body.freeze(),
        };
        if self.precondition == Precondition::Absent && self.store.find_entry(&self.key).is_some() {
            return Err(Error::Conflict);
        }
        let mut state = self.store.state.lock();
        state.entries.insert(self.key, stored);
        Ok(version)
    }
}
