//! A node's records in RAM, as the contract in `zimcache_store::replica` wants them; it verifies what it is given.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, RwLockWriteGuard};
use zimcache_store::{
    ByteRange, EntryMeta, Error, PinnedCounts, Pins, Reader, Record, RecordHead, RecordInfo,
    RecordKey, RecordKind, RecordOptions, RecordWriter, Replica, Result, Touch, Version, Walk,
    WalkMark, Written,
};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Hash, Namespace, Timestamp};

/// Records in RAM. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryReplica {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    pinned: Notify,
    full: AtomicBool,
    /// Held while no record is begun.
    busy: RwLock<()>,
}

#[derive(Debug, Default)]
struct State {
    log: BTreeMap<u64, Stored>,
    places: BTreeMap<RecordKey, u64>,
    next: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    key: RecordKey,
    head: RecordHead,
    value: Bytes,
    pins: Pins,
}

const DIRTY: Pins = Pins {
    dirty: true,
    hint: false,
};

pub(crate) fn version(clock: u64) -> Version {
    Version { clock, writer: 1 }
}

pub(crate) fn blob_key(body: &[u8]) -> RecordKey {
    RecordKey::blob(&Namespace::default(), &Digest::of(Function::Sha256, body))
}

pub(crate) fn entry_key(text: &str) -> RecordKey {
    RecordKey::entry(&EntryKey::new(Namespace::default(), EntryKind::Gradle, text).unwrap())
}

impl MemoryReplica {
    pub(crate) fn put_blob(&self, body: &[u8]) -> RecordKey {
        let key = blob_key(body);
        let value = Bytes::copy_from_slice(body);
        self.put(&key, RecordHead::default(), value, DIRTY);
        key
    }

    pub(crate) fn put_entry(&self, text: &str, clock: u64, value: &[u8]) -> RecordKey {
        let key = entry_key(text);
        let head = RecordHead {
            text: text.into(),
            meta: EntryMeta {
                content_type: Some("text/plain".into()),
                client: vec![("duration".into(), "17".into())],
            },
            version: version(clock),
            deleted: false,
        };
        self.put(&key, head, Bytes::copy_from_slice(value), DIRTY);
        key
    }

    pub(crate) fn delete_entry(&self, text: &str, clock: u64) -> RecordKey {
        let key = entry_key(text);
        let head = RecordHead {
            text: text.into(),
            version: version(clock),
            deleted: true,
            ..RecordHead::default()
        };
        self.put(&key, head, Bytes::new(), DIRTY);
        key
    }

    /// Takes a record as it is, unless a higher version is there. A blob that is there gets the pins it lacks.
    pub(crate) fn put(
        &self,
        key: &RecordKey,
        head: RecordHead,
        value: Bytes,
        pins: Pins,
    ) -> Version {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        let old = state.places.get(key).copied();
        let held = old.and_then(|place| state.log.get_mut(&place));
        if let Some(held) = held
            && (held.head.version > head.version || matches!(key.kind, RecordKind::Blob(_)))
        {
            held.pins.dirty |= pins.dirty;
            return held.head.version;
        }
        if let Some(old) = old {
            state.log.remove(&old);
        }
        state.next += 1;
        let version = head.version;
        let stored = Stored {
            key: key.clone(),
            head,
            value,
            pins,
        };
        state.log.insert(state.next, stored);
        state.places.insert(key.clone(), state.next);
        self.shared.pinned.notify_waiters();
        version
    }

    /// As if the disk had needed the room.
    pub(crate) fn evict(&self, key: &RecordKey) {
        let mut state = self.shared.state.lock();
        if let Some(place) = state.places.remove(key) {
            state.log.remove(&place);
        }
    }

    pub(crate) fn holds(&self, key: &RecordKey) -> bool {
        self.shared.state.lock().places.contains_key(key)
    }

    pub(crate) fn is_dirty(&self, key: &RecordKey) -> bool {
        self.find(key).is_some_and(|stored| stored.pins.dirty)
    }

    /// From now on nothing more is taken, or again.
    pub(crate) fn set_full(&self, full: bool) {
        self.shared.full.store(full, Ordering::SeqCst);
    }

    /// No record is begun until this is dropped.
    pub(crate) async fn busy(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.busy.write().await
    }

    fn find(&self, key: &RecordKey) -> Option<Stored> {
        let state = self.shared.state.lock();
        state.log.get(state.places.get(key)?).cloned()
    }
}

#[async_trait]
impl Replica for MemoryReplica {
    fn store_id(&self) -> [u8; 16] {
        [7; 16]
    }

    async fn open_record(&self, key: &RecordKey, range: ByteRange) -> Result<Option<Record>> {
        let Some(stored) = self.find(key) else {
            return Ok(None);
        };
        let range = range.resolve(stored.value.len() as u64)?;
        Ok(Some(Record {
            head: stored.head,
            created: Timestamp(5),
            pins: stored.pins,
            value: Reader::from_bytes_range(&stored.value, range),
        }))
    }

    async fn write_record(
        &self,
        key: &RecordKey,
        head: RecordHead,
        options: RecordOptions,
    ) -> Result<Box<dyn RecordWriter>> {
        drop(self.shared.busy.read().await);
        if self.shared.full.load(Ordering::SeqCst) {
            return Err(Error::OutOfSpace("test"));
        }
        Ok(Box::new(Writer {
            replica: self.clone(),
            key: key.clone(),
            head,
            size: options.size_bytes,
            value: BytesMut::new(),
        }))
    }

    async fn missing_records(
        &self,
        keys: &[RecordKey],
        _sizes: &[u64],
        _touch: Touch,
    ) -> Result<Vec<bool>> {
        Ok(keys.iter().map(|key| !self.holds(key)).collect())
    }

    async fn walk(
        &self,
        which: Walk,
        after: Option<WalkMark>,
        limit: usize,
    ) -> Result<(Vec<RecordInfo>, Option<WalkMark>)> {
        let state = self.shared.state.lock();
        let after = after.map_or(0, |mark| mark.0);
        let met = state
            .log
            .range(after + 1..)
            .filter(|(_, stored)| match which {
                Walk::All => true,
                Walk::Dirty => stored.pins.dirty,
                Walk::Hinted => stored.pins.hint,
            });
        let met: Vec<_> = met.take(limit).collect();
        let next = met.last().filter(|_| met.len() == limit);
        let next = next.map(|(place, _)| WalkMark(**place));
        let infos = met.iter().map(|(_, stored)| RecordInfo {
            key: stored.key.clone(),
            size_bytes: stored.value.len() as u64,
            version: stored.head.version,
            deleted: stored.head.deleted,
            pins: stored.pins,
            used: Timestamp(5),
        });
        Ok((infos.collect(), next))
    }

    async fn settle(&self, records: &[(RecordKey, Version)], pins: Pins) -> Result<()> {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        for (key, version) in records {
            let place = state.places.get(key);
            if let Some(stored) = place.and_then(|place| state.log.get_mut(place))
                && stored.head.version == *version
            {
                stored.pins.dirty &= !pins.dirty;
                stored.pins.hint &= !pins.hint;
            }
        }
        Ok(())
    }

    fn pinned(&self) -> PinnedCounts {
        let state = self.shared.state.lock();
        let dirty = || state.log.values().filter(|stored| stored.pins.dirty);
        PinnedCounts {
            dirty: dirty().count() as u64,
            dirty_bytes: dirty().map(|stored| stored.value.len() as u64).sum(),
            ..PinnedCounts::default()
        }
    }

    async fn pinned_more(&self) {
        self.shared.pinned.notified().await;
    }
}

#[derive(Debug)]
struct Writer {
    replica: MemoryReplica,
    key: RecordKey,
    head: RecordHead,
    size: Option<u64>,
    value: BytesMut,
}

#[async_trait]
impl RecordWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.value.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let actual = self.value.len() as u64;
        if let Some(expected) = self.size.filter(|expected| *expected != actual) {
            return Err(Error::SizeMismatch { expected, actual });
        }
        if let RecordKind::Blob(function) = self.key.kind {
            let digest = Digest::of(function, &self.value);
            if RecordKey::blob(&self.key.namespace, &digest) != self.key {
                return Err(Error::DigestMismatch {
                    expected: Hash::from_bytes(function, &self.key.id).unwrap_or(digest.hash),
                    actual: digest.hash,
                });
            }
        }
        let value = self.value.freeze();
        let version = self.replica.put(&self.key, self.head, value, pins);
        Ok(Written {
            size_bytes: actual,
            version,
        })
    }
}
