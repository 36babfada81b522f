//! The reference replica: records in RAM with versions and pins, for tests of what is built on replicas.
//!
//! A store of its own: what is put here is not in a [`MemoryStore`](super::MemoryStore).

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use zimcache_types::{Clock, Digest, Hash, Timestamp};

use crate::{
    ByteRange, Error, PinnedCounts, Pins, Precondition, Reader, Record, RecordHead, RecordInfo,
    RecordKey, RecordKind, RecordOptions, RecordWriter, Replica, Result, Touch, Version, Walk,
    WalkMark, Written,
};

/// Records in RAM. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryReplica {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: [u8; 16],
    clock: Arc<dyn Clock>,
    records: Mutex<BTreeMap<RecordKey, Held>>,
    numbers: AtomicU64,
    pinned: Notify,
}

#[derive(Debug, Clone)]
struct Held {
    /// Its place on a walk.
    number: u64,
    head: RecordHead,
    value: Bytes,
    created: Timestamp,
    used: Timestamp,
    pins: Pins,
}

impl MemoryReplica {
    /// An empty store of this identity.
    pub fn new(id: [u8; 16], clock: Arc<dyn Clock>) -> MemoryReplica {
        let shared = Shared {
            id,
            clock,
            records: Mutex::default(),
            numbers: AtomicU64::new(1),
            pinned: Notify::new(),
        };
        MemoryReplica {
            shared: Arc::new(shared),
        }
    }

    /// What is held, for tests: heads, values and pins.
    pub fn records(&self) -> BTreeMap<RecordKey, (RecordHead, Bytes, Pins)> {
        let records = self.shared.records.lock();
        let row = |held: &Held| (held.head.clone(), held.value.clone(), held.pins);
        records
            .iter()
            .map(|(key, held)| (key.clone(), row(held)))
            .collect()
    }

    /// Removes a record, as eviction would, whatever it is pinned for.
    pub fn forget(&self, key: &RecordKey) -> bool {
        self.shared.records.lock().remove(key).is_some()
    }
}

#[async_trait]
impl Replica for MemoryReplica {
    fn store_id(&self) -> [u8; 16] {
        self.shared.id
    }

    async fn open_record(&self, key: &RecordKey, range: ByteRange) -> Result<Option<Record>> {
        let mut records = self.shared.records.lock();
        let Some(held) = records.get_mut(key) else {
            return Ok(None);
        };
        held.used = self.shared.clock.now();
        let range = if held.head.deleted {
            0..0
        } else {
            range.resolve(held.value.len() as u64)?
        };
        Ok(Some(Record {
            head: held.head.clone(),
            created: held.created,
            pins: held.pins,
            value: Reader::from_bytes_range(&held.value, range),
        }))
    }

    async fn write_record(
        &self,
        key: &RecordKey,
        head: RecordHead,
        options: RecordOptions,
    ) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(Writer {
            store: self.clone(),
            key: key.clone(),
            head,
            options,
            value: BytesMut::new(),
        }))
    }

    async fn missing_records(
        &self,
        keys: &[RecordKey],
        sizes: &[u64],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        let now = self.shared.clock.now();
        let mut records = self.shared.records.lock();
        let mut is_missing = |(key, size): (&RecordKey, &u64)| match records.get_mut(key) {
            Some(held) if *size == 0 || *size == held.value.len() as u64 => {
                if touch != Touch::No {
                    held.used = now;
                }
                false
            }
            _ => true,
        };
        Ok(keys.iter().zip(sizes).map(&mut is_missing).collect())
    }

    async fn walk(
        &self,
        which: Walk,
        after: Option<WalkMark>,
        limit: usize,
    ) -> Result<(Vec<RecordInfo>, Option<WalkMark>)> {
        let records = self.shared.records.lock();
        let by_number: BTreeMap<u64, (&RecordKey, &Held)> = records
            .iter()
            .map(|(key, held)| (held.number, (key, held)))
            .collect();
        let from = after.map_or(Bound::Unbounded, |mark| Bound::Excluded(mark.0));
        let wanted = |held: &Held| match which {
            Walk::All => true,
            Walk::Dirty => held.pins.dirty,
            Walk::Hinted => held.pins.hint,
        };
        let rows = by_number.range((from, Bound::Unbounded));
        let rows: Vec<_> = rows
            .filter(|(_, (_, held))| wanted(held))
            .take(limit)
            .collect();
        let mark = rows.last().filter(|_| rows.len() == limit);
        let mark = mark.map(|(number, _)| WalkMark(**number));
        let rows = rows.into_iter().map(|(_, (key, held))| held.info(key));
        Ok((rows.collect(), mark))
    }

    async fn settle(&self, settled: &[(RecordKey, Version)], pins: Pins) -> Result<()> {
        let mut records = self.shared.records.lock();
        for (key, version) in settled {
            if let Some(held) = records
                .get_mut(key)
                .filter(|held| held.head.version == *version)
            {
                held.pins.dirty &= !pins.dirty;
                held.pins.hint &= !pins.hint;
            }
        }
        Ok(())
    }

    fn pinned(&self) -> PinnedCounts {
        let mut counts = PinnedCounts::default();
        for held in self.shared.records.lock().values() {
            let bytes = held.value.len() as u64;
            if held.pins.dirty {
                counts.dirty += 1;
                counts.dirty_bytes += bytes;
            }
            if held.pins.hint {
                counts.hints += 1;
                counts.hint_bytes += bytes;
            }
        }
        counts
    }

    async fn pinned_more(&self) {
        self.shared.pinned.notified().await;
    }
}

impl Held {
    fn info(&self, key: &RecordKey) -> RecordInfo {
        RecordInfo {
            key: key.clone(),
            size_bytes: self.value.len() as u64,
            version: self.head.version,
            deleted: self.head.deleted,
            pins: self.pins,
            used: self.used,
        }
    }
}

#[derive(Debug)]
struct Writer {
    store: MemoryReplica,
    key: RecordKey,
    head: RecordHead,
    options: RecordOptions,
    value: BytesMut,
}

impl Writer {
    /// Whether the value is what its name says.
    fn verify(&self) -> Result<()> {
        let size = self.value.len() as u64;
        if let Some(expected) = self.options.size_bytes.filter(|expected| *expected != size) {
            return Err(Error::SizeMismatch {
                expected,
                actual: size,
            });
        }
        let RecordKind::Blob(function) = self.key.kind else {
            return Ok(());
        };
        if self.head.deleted {
            return Ok(());
        }
        let digest = Digest::of(function, &self.value);
        let named = Hash::from_bytes(function, &self.key.id[..function.hash_len().min(32)]);
        match named {
            _ if RecordKey::blob(&self.key.namespace, &digest).id == self.key.id => Ok(()),
            Some(expected) => Err(Error::DigestMismatch {
                expected,
                actual: digest.hash,
            }),
            None => Err(Error::Corrupt("the value is not what its name says")),
        }
    }
}

#[async_trait]
impl RecordWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let limit = self.options.limit_bytes.unwrap_or(u64::MAX);
        if (self.value.len() + chunk.len()) as u64 > limit {
            return Err(Error::TooLarge { limit });
        }
        self.value.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        self.verify()?;
        let shared = &self.store.shared;
        let now = shared.clock.now();
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        let mut records = shared.records.lock();
        let there = records.get_mut(&self.key);
        let is_live = there.as_ref().is_some_and(|held| !held.head.deleted);
        if is_live && self.options.precondition == Precondition::Absent {
            return Err(Error::Conflict);
        }
        let size_bytes = self.value.len() as u64;
        let version = match there {
            Some(held) if held.head.version > self.head.version => held.head.version,
            Some(held) if held.head.version == self.head.version => {
                held.pins.dirty |= pins.dirty;
                held.pins.hint |= pins.hint;
                held.head.version
            }
            _ => {
                let version = self.head.version;
                let held = Held {
                    number,
                    head: self.head,
                    value: self.value.freeze(),
                    created: now,
                    used: now,
                    pins,
                };
                records.insert(self.key, held);
                version
            }
        };
        if pins != Pins::default() {
            shared.pinned.notify_one();
        }
        Ok(Written {
            size_bytes,
            version,
        })
    }
}
