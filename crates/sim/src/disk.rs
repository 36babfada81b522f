//! A node's disk: what is on it stays when the node crashes, and nothing else does.
//!
//! The reference replica with the time that syncing takes around it. A write that is under way when its node crashes
//! is on the disk or is not; what was acknowledged is.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::bug::Bug;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng};
use zimcache_member::Paper;
use zimcache_store::{
    BlobStore, BlobWriter, ByteRange, CreateOptions, EntryInfo, EntryMeta, EntryStore, EntryWriter,
    PinnedCounts, Pins, Precondition, Reader, Record, RecordHead, RecordInfo, RecordKey,
    RecordOptions, RecordWriter, Replica, Result, Touch, Version, Walk, WalkMark, Written,
    memory::{MemoryReplica, MemoryStore},
};
use zimcache_types::{Clock, Digest, EntryKey, EntryKind, Namespace};

/// With a bug: how many of the records acknowledged last are not safe.
const UNSYNCED: usize = 10;
/// The longest that an ordinary sync takes.
const SYNC_MILLIS: u64 = 6;

/// A disk. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    records: MemoryReplica,
    random: Mutex<StdRng>,
    /// How much longer than usual a sync takes, in milliseconds.
    slow_millis: AtomicU64,
    notes: Mutex<Option<Vec<u8>>>,
    bug: Option<Bug>,
    /// With a bug: what was acknowledged and is not safe yet.
    unsynced: Mutex<VecDeque<RecordKey>>,
    /// What members do not use of a store.
    rest: MemoryStore,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(mut random: StdRng, clock: Arc<dyn Clock>, bug: Option<Bug>) -> Disk {
        Disk(Arc::new(Inner {
            records: MemoryReplica::new(random.random(), clock),
            random: Mutex::new(random),
            slow_millis: AtomicU64::new(0),
            notes: Mutex::default(),
            bug,
            unsynced: Mutex::default(),
            rest: MemoryStore::default(),
        }))
    }

    /// Makes syncs take so much longer.
    pub(crate) fn slow_down(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap();
        self.0.slow_millis.store(millis, Ordering::Relaxed);
    }

    /// What is on it.
    pub(crate) fn records(&self) -> &MemoryReplica {
        &self.0.records
    }

    /// The page for the member's notes.
    pub(crate) fn paper(&self) -> Box<dyn Paper> {
        Box::new(Page(self.clone()))
    }

    /// Waits as long as half a sync takes.
    async fn half_a_sync(&self) {
        let usual = self.0.random.lock().random_range(0..=SYNC_MILLIS);
        let slow = self.0.slow_millis.load(Ordering::Relaxed);
        let wait = Duration::from_millis(usual + slow) / 2;
        tokio::time::sleep(wait).await;
    }
}

/// Notes on a disk.
#[derive(Debug)]
struct Page(Disk);

#[async_trait]
impl Paper for Page {
    fn path(&self) -> PathBuf {
        PathBuf::from("members.json")
    }

    async fn read(&self) -> io::Result<Vec<u8>> {
        let written = self.0.0.notes.lock().clone();
        written.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.0.half_a_sync().await;
        *self.0.0.notes.lock() = Some(content.to_vec());
        self.0.half_a_sync().await;
        Ok(())
    }
}

#[async_trait]
impl Replica for Disk {
    fn store_id(&self) -> [u8; 16] {
        self.0.records.store_id()
    }

    async fn open_record(&self, key: &RecordKey, range: ByteRange) -> Result<Option<Record>> {
        self.0.records.open_record(key, range).await
    }

    async fn write_record(
        &self,
        key: &RecordKey,
        head: RecordHead,
        options: RecordOptions,
    ) -> Result<Box<dyn RecordWriter>> {
        let (version, deleted) = (head.version, head.deleted);
        let writer = self.0.records.write_record(key, head, options).await?;
        Ok(Box::new(Syncing {
            disk: self.clone(),
            writer,
            key: key.clone(),
            version,
            deleted,
        }))
    }

    async fn missing_records(
        &self,
        keys: &[RecordKey],
        sizes: &[u64],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        self.0.records.missing_records(keys, sizes, touch).await
    }

    async fn walk(
        &self,
        which: Walk,
        after: Option<WalkMark>,
        limit: usize,
    ) -> Result<(Vec<RecordInfo>, Option<WalkMark>)> {
        self.0.records.walk(which, after, limit).await
    }

    async fn settle(&self, records: &[(RecordKey, Version)], pins: Pins) -> Result<()> {
        self.half_a_sync().await;
        self.0.records.settle(records, pins).await?;
        self.half_a_sync().await;
        Ok(())
    }

    fn pinned(&self) -> PinnedCounts {
        self.0.records.pinned()
    }

    async fn pinned_more(&self) {
        self.0.records.pinned_more().await;
    }
}

/// A record on its way to a disk.
#[derive(Debug)]
struct Syncing {
    disk: Disk,
    writer: Box<dyn RecordWriter>,
    key: RecordKey,
    version: Version,
    deleted: bool,
}

#[async_trait]
impl RecordWriter for Syncing {
    fn offset(&self) -> u64 {
        self.writer.offset()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.writer.write(chunk).await
    }

    async fn commit(self: Box<Self>, mut pins: Pins) -> Result<Written> {
        let disk = self.disk;
        if let Some(bug) = disk.0.bug {
            if bug == Bug::ForgetsDeletions && self.deleted {
                disk.0.records.forget(&self.key);
                return Ok(Written {
                    size_bytes: 0,
                    version: self.version,
                });
            }
            disk.sabotage_before(bug, &self.key, self.version, &mut pins);
        }
        disk.half_a_sync().await;
        let written = self.writer.commit(pins).await?;
        disk.half_a_sync().await;
        if let Some(bug) = disk.0.bug {
            disk.sabotage_after(bug, &self.key, self.version, pins)
                .await;
        }
        Ok(written)
    }
}

/// Bugs.
impl Disk {
    /// The node has crashed: what only seemed to be durable is gone.
    pub(crate) fn crash(&self) {
        for key in self.0.unsynced.lock().drain(..) {
            self.0.records.forget(&key);
        }
    }

    fn sabotage_before(&self, bug: Bug, key: &RecordKey, version: Version, pins: &mut Pins) {
        if bug == Bug::DropsHints {
            pins.hint = false;
        }
        let held = self.0.records.records().remove(key);
        let is_newer = held.is_some_and(|(head, ..)| head.version > version);
        if bug == Bug::OlderReplacesNewer && is_newer {
            self.0.records.forget(key);
        }
    }

    async fn sabotage_after(&self, bug: Bug, key: &RecordKey, version: Version, pins: Pins) {
        let records = &self.0.records;
        match bug {
            Bug::AcksBeforeSync => {
                let unsynced = &mut *self.0.unsynced.lock();
                unsynced.push_back(key.clone());
                if unsynced.len() > UNSYNCED {
                    unsynced.pop_front();
                }
            }
            Bug::SettlesUndelivered if pins.hint => {
                records.settle(&[(key.clone(), version)], pins).await.ok();
            }
            Bug::EvictsPinned if pins.hint => drop(records.forget(key)),
            Bug::EvictsLeased => {
                let is_unlucky = self.0.random.lock().random_bool(0.02);
                let other = records.records().into_keys().next();
                if let Some(other) = other.filter(|_| is_unlucky) {
                    records.forget(&other);
                }
            }
            _ => {}
        }
    }
}

#[async_trait]
impl BlobStore for Disk {
    async fn open(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        self.0.rest.open(namespace, digest, range).await
    }

    async fn create(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        options: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>> {
        self.0.rest.create(namespace, digest, options).await
    }

    async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        self.0.rest.missing(namespace, digests, touch).await
    }

    async fn delete(&self, namespace: &Namespace, digest: &Digest) -> Result<bool> {
        self.half_a_sync().await;
        let was_there = self.0.records.forget(&RecordKey::blob(namespace, digest));
        self.half_a_sync().await;
        Ok(was_there)
    }
}

#[async_trait]
impl EntryStore for Disk {
    async fn get(&self, key: &EntryKey, range: ByteRange) -> Result<Option<zimcache_store::Entry>> {
        self.0.rest.get(key, range).await
    }

    async fn put(
        &self,
        key: &EntryKey,
        meta: EntryMeta,
        precondition: Precondition,
        limit_bytes: Option<u64>,
    ) -> Result<Box<dyn EntryWriter>> {
        self.0.rest.put(key, meta, precondition, limit_bytes).await
    }

    async fn delete(&self, key: &EntryKey) -> Result<bool> {
        EntryStore::delete(&self.0.rest, key).await
    }

    async fn list(
        &self,
        namespace: &Namespace,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryInfo>> {
        self.0
            .rest
            .list(namespace, kind, prefix, after, limit)
            .await
    }

    async fn purge(&self, namespace: &Namespace) -> Result<()> {
        self.half_a_sync().await;
        let held = self.0.records.records().into_keys();
        for key in held.filter(|key| key.namespace == *namespace) {
            self.0.records.forget(&key);
        }
        self.half_a_sync().await;
        Ok(())
    }
}
