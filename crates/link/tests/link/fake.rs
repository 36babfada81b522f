//! A node in RAM that remembers what it was asked.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_link::{
    Body, Error, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read,
    Result, Status, StatusQuestion, Write, Writing,
};
use zimcache_store::{ByteRange, Pins, RecordHead, RecordKey, Version, Written};
use zimcache_types::{Code, Digest, Function, Namespace, Timestamp};

/// What was asked, as text, in order; and what is held.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) values: Mutex<HashMap<RecordKey, (RecordHead, Bytes, Pins)>>,
    /// What the next call fails with.
    pub(crate) failure: Mutex<Option<Error>>,
    /// How many bytes each chunk of a value has; 0 is all in one.
    pub(crate) chunk_bytes: usize,
    /// After how many chunks a value breaks off.
    pub(crate) breaks_after: Option<usize>,
    /// How much of every upload that can be taken up again is held.
    pub(crate) held: Bytes,
    /// Calls never end.
    pub(crate) hangs: bool,
    /// Writes begun and neither committed nor dropped; calls that hang.
    pub(crate) open: Arc<()>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Fake> {
        Arc::default()
    }

    /// How many calls are being worked on.
    pub(crate) fn under_way(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    async fn note(&self, what: &impl std::fmt::Debug) -> Result<()> {
        self.asked.lock().push(format!("{what:?}"));
        if self.hangs {
            let _open = Arc::clone(&self.open);
            std::future::pending::<()>().await;
        }
        self.failure.lock().take().map_or(Ok(()), Err)
    }
}

pub(crate) fn blob(value: &[u8]) -> RecordKey {
    RecordKey::blob(&Namespace::default(), &Digest::of(Function::Sha256, value))
}

#[derive(Debug)]
struct Chunks(VecDeque<Result<Bytes>>);

#[async_trait]
impl Body for Chunks {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        self.0.pop_front()
    }
}

fn chunks(mut value: Bytes, size: usize, breaks_after: Option<usize>) -> Chunks {
    let mut chunks = VecDeque::new();
    while !value.is_empty() {
        let most = match size {
            0 => value.len(),
            size => size.min(value.len()),
        };
        chunks.push_back(Ok(value.split_to(most)));
    }
    if let Some(count) = breaks_after {
        chunks.truncate(count);
        chunks.push_back(Err(Error::Refused {
            code: Code::Corrupt,
            message: "rotten".into(),
        }));
    }
    Chunks(chunks)
}

#[derive(Debug)]
struct Taking {
    fake: Arc<Fake>,
    write: Write,
    offset: u64,
    value: Vec<u8>,
    _open: Arc<()>,
}

#[async_trait]
impl Writing for Taking {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.value.extend_from_slice(&chunk);
        match self.write.options.limit_bytes {
            Some(limit) if self.value.len() as u64 > limit => Err(Error::Refused {
                code: Code::TooLarge,
                message: "too much".into(),
            }),
            _ => Ok(()),
        }
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let size_bytes = self.value.len() as u64;
        let head = self.write.head;
        let version = head.version;
        let record = (head, self.value.into(), pins);
        self.fake.values.lock().insert(self.write.key, record);
        Ok(Written {
            size_bytes,
            version,
        })
    }
}

/// The peer that a fake is.
#[derive(Debug)]
pub(crate) struct Node(pub(crate) Arc<Fake>);

#[async_trait]
impl Peer for Node {
    async fn read(&self, read: Read) -> Result<Found> {
        self.0.note(&read).await?;
        let held = self.0.values.lock().get(&read.key).cloned();
        let Some((head, value, pins)) = held else {
            return Ok(Found::No(if read.fill {
                Presence::Unknown
            } else {
                Presence::Absent
            }));
        };
        let range = if head.deleted {
            0..0
        } else {
            read.range.resolve(value.len() as u64)?
        };
        let part = value.slice(range.start as usize..range.end as usize);
        Ok(Found::Yes {
            head,
            created: Timestamp(77),
            pins,
            total_bytes: value.len() as u64,
            is_unsure: read.fill,
            body: Box::new(chunks(part, self.0.chunk_bytes, self.0.breaks_after)),
        })
    }

    async fn write(&self, write: Write) -> Result<Box<dyn Writing>> {
        self.0.note(&write).await?;
        let value = match write.options.resume_as {
            Some(_) => self.0.held.to_vec(),
            None => Vec::new(),
        };
        Ok(Box::new(Taking {
            fake: Arc::clone(&self.0),
            write,
            offset: value.len() as u64,
            value,
            _open: Arc::clone(&self.0.open),
        }))
    }

    async fn find(&self, find: Find) -> Result<Vec<Presence>> {
        self.0.note(&find).await?;
        let values = self.0.values.lock();
        let presence = |key| {
            if values.contains_key(key) {
                Presence::Present
            } else {
                Presence::Absent
            }
        };
        Ok(find.keys.iter().map(presence).collect())
    }

    async fn pull(&self, pull: Pull) -> Result<Vec<bool>> {
        self.0.note(&pull).await?;
        Ok(pull.keys.iter().map(|key| key.id[0] % 2 == 0).collect())
    }

    async fn settle(&self, records: Vec<(RecordKey, Version)>, pins: Pins) -> Result<()> {
        self.0.note(&(records, pins)).await
    }

    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool> {
        self.0.note(&(epoch, &key)).await?;
        Ok(self.0.values.lock().remove(&key).is_some())
    }

    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()> {
        self.0.note(&(epoch, namespace)).await
    }

    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        self.0.note(&listing).await?;
        Ok(vec![ListedEntry {
            text: "one".into(),
            size_bytes: 3,
            version: Version {
                clock: 9,
                writer: 8,
            },
            created: Timestamp(7),
        }])
    }

    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>> {
        self.0.note(&listing).await?;
        Ok(vec![ListedBlob {
            digest: Digest::of(Function::Blake3, b"listed"),
            size_bytes: 6,
            created: Timestamp(5),
        }])
    }

    async fn status(&self, question: StatusQuestion) -> Result<Status> {
        self.0.note(&question).await?;
        Ok(status())
    }

    async fn manage(&self, work: Manage) -> Result<Bytes> {
        self.0.note(&work).await?;
        Ok(Bytes::from_static(b"{}"))
    }
}

/// A status in which everything is set.
pub(crate) fn status() -> Status {
    Status {
        id: "node-1".into(),
        store_id: [3; 16],
        version: "0.1.0".into(),
        epoch: 12,
        synced_epoch: 11,
        catching_up: true,
        draining: true,
        pinned: zimcache_store::PinnedCounts {
            dirty: 1,
            dirty_bytes: 2,
            hints: 3,
            hint_bytes: 4,
        },
        in_flight: 5,
        stats: zimcache_store::StoreStats {
            blobs: 6,
            read_only: Some("why".to_owned()),
            ..zimcache_store::StoreStats::default()
        },
        usage: Bytes::from_static(b"[]"),
        nothing_for_member: true,
        ring: Some(Bytes::from_static(b"{ring}")),
        tier_reachable: Some(false),
    }
}

/// All of a value.
pub(crate) async fn read_all(
    peer: &dyn Peer,
    key: &RecordKey,
    range: ByteRange,
) -> Result<Vec<u8>> {
    let read = Read {
        epoch: 1,
        key: key.clone(),
        range,
        fill: false,
    };
    let Found::Yes { mut body, .. } = peer.read(read).await? else {
        panic!("it is not there");
    };
    let mut value = Vec::new();
    while let Some(chunk) = body.next().await {
        value.extend_from_slice(&chunk?);
    }
    Ok(value)
}
