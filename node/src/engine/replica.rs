//! The contract of a store that is one of several, over the engine: records by their names, with versions and pins.
//!
//! Blobs and entries are those of the two other contracts; what differs is how they are named and who gives versions.
//! Not here: pins (`pins`), going through everything (`walk`), which version wins (`decide`).

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{
    ByteRange, CreateOptions, Error, PinnedCounts, Pins, Reader, Record, RecordHead, RecordInfo,
    RecordKey, RecordKind, RecordOptions, RecordWriter, Replica, Result, Touch, Version, Walk,
    WalkMark,
};
use zimcache_types::{Digest, Function, Namespace, Timestamp};

use super::{
    blob_writer::{self, Wanted},
    blobs::id_of,
    entries::{check_meta, id_of_text},
    entry_front::Front,
    entry_writer,
    read::{ATTEMPTS, Loaded},
    record::KeyClass,
    record_writers::{BlobRecord, Deletion, EntryRecord, rule_of},
    recovery::MAX_VERSION,
    retention::put_millis,
    shared::{Key, Newest, Shared},
    slot::KeyHash,
    walk::Walking,
};

/// The records of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Records(pub(crate) Arc<Shared>);

fn key_of(namespace: u32, record: &RecordKey) -> Key {
    let (class, function) = match record.kind {
        RecordKind::Blob(function) => (KeyClass::Blob, function.number()),
        RecordKind::Entry(kind) => (KeyClass::Entry, kind.number()),
    };
    Key {
        class,
        function,
        namespace,
        part: 0,
        bytes: record.id,
    }
}

/// Whether a key names the empty blob, which is always there.
fn is_empty_blob(key: &RecordKey) -> bool {
    let RecordKind::Blob(function) = key.kind else {
        return false;
    };
    EMPTY.contains(&(function, key.id))
}

/// The empty blob in every function.
static EMPTY: LazyLock<[(Function, [u8; 32]); Function::ALL.len()]> = LazyLock::new(|| {
    Function::ALL.map(|function| (function, id_of(&Digest::of(function, b"").hash)))
});

/// What a look-up came to.
enum Found {
    Record(Box<Record>),
    /// There is one whose time is over.
    Over,
    Nothing,
}

#[async_trait]
impl Replica for Records {
    fn store_id(&self) -> [u8; 16] {
        self.0.meta.store_id
    }

    async fn open_record(&self, key: &RecordKey, range: ByteRange) -> Result<Option<Record>> {
        if is_empty_blob(key) {
            return empty_blob(range).map(Some);
        }
        let Some(number) = self.0.namespace_number(&key.namespace) else {
            return Ok(None);
        };
        let key = key_of(number, key);
        let hash = self.0.hash(&key);
        for _ in 0..ATTEMPTS {
            match self.live(key, hash, range).await? {
                Found::Record(record) => return Ok(Some(*record)),
                Found::Over => return Ok(None),
                Found::Nothing => {}
            }
            let Some(newest) = self.newest(key, hash).await? else {
                return Ok(None);
            };
            if newest.header.is_tombstone() {
                return Ok(Some(deletion(&key, &newest)));
            }
        }
        Err(Error::Retry(
            "the record changes faster than it can be read",
        ))
    }

    async fn write_record(
        &self,
        key: &RecordKey,
        head: RecordHead,
        options: RecordOptions,
    ) -> Result<Box<dyn RecordWriter>> {
        let shared = &self.0;
        check_head(key, &head)?;
        if head.deleted {
            shared.check_writable()?;
        } else {
            shared.check_takes_values()?;
        }
        let number = shared.namespace_for_writing(&key.namespace).await?;
        let record_key = key_of(number, key);
        match key.kind {
            _ if head.deleted => Ok(Box::new(Deletion {
                shared: Arc::clone(shared),
                key: record_key,
                version: head.version,
                precondition: options.precondition,
            })),
            RecordKind::Blob(function) => {
                let wanted = Wanted::of(function, &key.id, options.size_bytes);
                let options = CreateOptions {
                    resume_as: options.resume_as,
                    limit_bytes: options.limit_bytes,
                    lease: options.lease,
                };
                let writer = blob_writer::Writer::start(shared, record_key, wanted, options);
                Ok(Box::new(BlobRecord(Box::new(writer.await?))))
            }
            RecordKind::Entry(_) => {
                let rule = rule_of(head.version, options.precondition);
                let front = Front {
                    created: Timestamp(0),
                    text: head.text,
                    meta: head.meta,
                };
                let limit = options.limit_bytes;
                let writer = entry_writer::Writer::start(shared, record_key, front, rule, limit);
                Ok(Box::new(EntryRecord(writer.with_version(head.version))))
            }
        }
    }

    async fn missing_records(
        &self,
        keys: &[RecordKey],
        sizes: &[u64],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        let mut missing = vec![true; keys.len()];
        for (namespace, numbers) in by_namespace(keys) {
            let answers = self
                .missing_in(namespace, keys, &numbers, sizes, touch)
                .await?;
            for (number, answer) in numbers.into_iter().zip(answers) {
                missing[number] = answer && !is_empty_blob(&keys[number]);
            }
        }
        Ok(missing)
    }

    async fn walk(
        &self,
        which: Walk,
        after: Option<WalkMark>,
        limit: usize,
    ) -> Result<(Vec<RecordInfo>, Option<WalkMark>)> {
        let walking = Walking::new(Arc::clone(&self.0), which);
        let walked = tokio::task::spawn_blocking(move || walking.step(after, limit)).await;
        walked.unwrap_or(Err(Error::Stopping))
    }

    async fn settle(&self, records: &[(RecordKey, Version)], pins: Pins) -> Result<()> {
        let known = records.iter().filter_map(|(key, version)| {
            let number = self.0.namespace_number(&key.namespace)?;
            Some((key_of(number, key), *version))
        });
        let known: Vec<(Key, Version)> = known.collect();
        self.0.settle_pins(&known, pins).await
    }

    fn pinned(&self) -> PinnedCounts {
        self.0.pinned_counts()
    }

    // Not `async`: what is pinned from this call on counts, not from the first poll on.
    fn pinned_more<'life0, 'async_trait>(
        &'life0 self,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.0.pinned.more())
    }
}

impl Records {
    async fn live(&self, key: Key, hash: KeyHash, range: ByteRange) -> Result<Found> {
        let touch = Some(self.0.lease_clock());
        let Some(loaded) = self.0.load(key, hash, touch).await? else {
            return Ok(Found::Nothing);
        };
        // What must still be copied elsewhere is served until it is, whatever its age.
        if !loaded.view.is_unsettled() && self.0.is_over(&loaded.header, &loaded.view) {
            return Ok(Found::Over);
        }
        let opened = if key.class == KeyClass::Blob {
            let value = self.0.blob_reader(hash, &loaded, range)?;
            value.map(|value| (RecordHead::default(), created(&loaded), value))
        } else {
            let opened = self.0.open_entry(hash, &loaded, range)?;
            opened.map(|(front, value)| {
                let head = RecordHead {
                    text: front.text,
                    meta: front.meta,
                    version: loaded.header.stamp(),
                    deleted: false,
                };
                (head, front.created, value)
            })
        };
        Ok(opened.map_or(Found::Nothing, |(head, created, value)| {
            Found::Record(Box::new(Record {
                head,
                created,
                pins: loaded.view.pins(),
                value,
            }))
        }))
    }

    /// The newest record of a key, deletions included.
    async fn newest(&self, key: Key, hash: KeyHash) -> Result<Option<Newest>> {
        if self.0.index.find(hash).iter().next().is_none() {
            return Ok(None);
        }
        let shared = Arc::clone(&self.0);
        let found = tokio::task::spawn_blocking(move || shared.newest(&key, hash)).await;
        found.unwrap_or(Err(Error::Stopping))
    }

    /// Which of the keys of these numbers, all of one namespace, are missing.
    async fn missing_in(
        &self,
        namespace: &Namespace,
        keys: &[RecordKey],
        numbers: &[usize],
        sizes: &[u64],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        let Some(room) = self.0.namespace_number(namespace) else {
            return Ok(vec![true; numbers.len()]);
        };
        let key = |at: usize| key_of(room, &keys[numbers[at]]);
        let hashes: Vec<KeyHash> = (0..numbers.len()).map(|at| self.0.hash(&key(at))).collect();
        let size = |at: usize| sizes.get(numbers[at]).copied().filter(|size| *size > 0);
        let presence = self.0.look_for_hashes(room, &hashes, size, touch);
        self.0.settle_presence(room, presence, key, touch).await
    }
}

/// The numbers of the keys of each namespace.
fn by_namespace(keys: &[RecordKey]) -> BTreeMap<&Namespace, Vec<usize>> {
    let mut groups: BTreeMap<&Namespace, Vec<usize>> = BTreeMap::new();
    for (number, key) in keys.iter().enumerate() {
        groups.entry(&key.namespace).or_default().push(number);
    }
    groups
}

fn empty_blob(range: ByteRange) -> Result<Record> {
    let range = range.resolve(0)?;
    Ok(Record {
        head: RecordHead::default(),
        created: Timestamp(0),
        pins: Pins::default(),
        value: Reader::from_bytes_range(&Bytes::new(), range),
    })
}

fn created(loaded: &Loaded) -> Timestamp {
    Timestamp(put_millis(loaded.header.version))
}

fn deletion(key: &Key, newest: &Newest) -> Record {
    let stamp = newest.header.stamp();
    let is_entry = key.class == KeyClass::Entry;
    Record {
        head: RecordHead {
            version: if is_entry { stamp } else { Version::default() },
            deleted: true,
            ..RecordHead::default()
        },
        created: Timestamp(put_millis(stamp.clock)),
        pins: newest.view.pins(),
        value: Reader::from_bytes(Bytes::new()),
    }
}

/// Refuses what does not belong under its key. A deletion need not say the text: it is not kept with one.
fn check_head(key: &RecordKey, head: &RecordHead) -> Result<()> {
    check_meta(&head.meta)?;
    if head.version.clock > MAX_VERSION {
        return Err(Error::NotARecord("the version is of no clock"));
    }
    let is_entry = matches!(key.kind, RecordKind::Entry(_));
    if !is_entry && head.version != Version::default() {
        return Err(Error::NotARecord("a blob has no version"));
    }
    let needs_text = is_entry && !(head.deleted && head.text.is_empty());
    if needs_text && id_of_text(&head.text) != key.id {
        return Err(Error::NotARecord("the text has another key"));
    }
    Ok(())
}
