//! Nodes in memory, with faults.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_link::{
    Body, Error, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read,
    Result, Status, StatusQuestion, Write, Writing,
};
use zimcache_store::{
    GcReport, Pins, Precondition, RecordKey, RecordKind, StoreStats, VerifyReport, Version, Written,
};
use zimcache_types::{Code, Digest, Hash, Namespace};

use super::records::{Records, refused};

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Connections are refused.
    Down,
    /// It takes calls and never answers, as a stopped process does.
    Hang,
    /// Every answer takes so long.
    Slow(Duration),
    /// It takes bodies and answers, but what has to be synced takes so long.
    SlowDisk(Duration),
    /// Bodies break off after so many bytes, both ways.
    BreaksAfter(u64),
    /// Bodies stop, without an end, after so many bytes, both ways.
    StopsAfter(u64),
    /// Commits fail after the body.
    FailsCommits,
    /// Commits succeed, and nobody is told.
    LosesAcks,
    /// There is no room.
    Full,
}

/// A node in memory.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) id: Box<str>,
    net: Net,
    pub(crate) state: Mutex<State>,
    /// Calls by name, that were answered or not.
    pub(crate) reads: AtomicU64,
    pub(crate) finds: AtomicU64,
    pub(crate) pulls: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) records: Records,
    pub(crate) fault: Fault,
    pub(crate) is_catching_up: bool,
    /// A newer ring: everything under an older one is refused with it.
    pub(crate) ring: Option<(u64, Bytes)>,
    /// Of writes it says so at their end, as a node does that is far away.
    pub(crate) refuses_late: bool,
    /// New records are dirty for so many looks.
    pub(crate) dirty_for: u32,
    /// What only the durable tier has.
    pub(crate) tier: BTreeMap<RecordKey, Bytes>,
    pub(crate) chunk: usize,
}

/// The nodes by their names.
pub(crate) type Net = Arc<Mutex<BTreeMap<Box<str>, Arc<Fake>>>>;

/// A node that nobody can reach.
pub(crate) fn nobody() -> Arc<dyn Peer> {
    let node = Fake::new("nobody", &Net::default());
    node.state.lock().fault = Fault::Down;
    node
}

impl Fake {
    pub(crate) fn new(id: &str, net: &Net) -> Arc<Fake> {
        let node = Arc::new(Fake {
            id: id.into(),
            net: Arc::clone(net),
            state: Mutex::new(State {
                chunk: 64 << 10,
                ..State::default()
            }),
            reads: AtomicU64::new(0),
            finds: AtomicU64::new(0),
            pulls: AtomicU64::new(0),
        });
        net.lock().insert(id.into(), Arc::clone(&node));
        node
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.lock().fault = fault;
    }

    pub(crate) fn fault(&self) -> Fault {
        self.state.lock().fault
    }

    /// Its disk is replaced by an empty one; it knows that it lacks what it had.
    pub(crate) fn lose_disk(&self) {
        let mut state = self.state.lock();
        state.records = Records::default();
        state.is_catching_up = true;
    }

    pub(crate) fn has(&self, key: &RecordKey) -> bool {
        self.state.lock().records.held.contains_key(key)
    }

    pub(crate) fn is_hinted(&self, key: &RecordKey) -> bool {
        self.state
            .lock()
            .records
            .held
            .get(key)
            .is_some_and(|held| held.pins.hint)
    }

    /// What every call meets first.
    async fn arrive(&self, epoch: Option<u64>) -> Result<()> {
        let (fault, ring) = {
            let state = self.state.lock();
            (state.fault, state.ring.clone())
        };
        match fault {
            Fault::Down => return Err(self.unreachable()),
            Fault::Hang => std::future::pending().await,
            Fault::Slow(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        match ring {
            Some((newest, ring)) if epoch.is_some_and(|epoch| epoch < newest) => {
                Err(Error::StaleRing { ring })
            }
            _ => Ok(()),
        }
    }

    /// What every sync meets first.
    async fn sync(&self) -> Result<()> {
        if let Fault::SlowDisk(time) = self.fault() {
            tokio::time::sleep(time).await;
        }
        match self.fault() {
            Fault::Down => Err(self.unreachable()),
            _ => Ok(()),
        }
    }

    pub(crate) fn unreachable(&self) -> Error {
        Error::Unreachable {
            node: self.id.clone(),
            why: "it is switched off".into(),
        }
    }

    fn absent(&self) -> Presence {
        if self.state.lock().is_catching_up {
            Presence::Unknown
        } else {
            Presence::Absent
        }
    }
}

/// A body in pieces, which may break off or stop.
#[derive(Debug)]
struct Pieces {
    node: Arc<Fake>,
    rest: Bytes,
    sent: u64,
    chunk: usize,
}

#[async_trait]
impl Body for Pieces {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.rest.is_empty() {
            return None;
        }
        match self.node.fault() {
            Fault::BreaksAfter(bytes) if self.sent >= bytes => {
                return Some(Err(self.node.unreachable()));
            }
            Fault::Down => return Some(Err(self.node.unreachable())),
            Fault::StopsAfter(bytes) if self.sent >= bytes => std::future::pending().await,
            Fault::Hang => std::future::pending().await,
            _ => {}
        }
        let size = self.chunk.min(self.rest.len());
        let chunk = self.rest.split_to(size);
        self.sent += chunk.len() as u64;
        Some(Ok(chunk))
    }
}

#[derive(Debug)]
struct Incoming {
    node: Arc<Fake>,
    write: Write,
    offset: u64,
    body: Vec<u8>,
    is_over: bool,
}

#[async_trait]
impl Writing for Incoming {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.node.arrive(None).await?;
        let after = (self.body.len() + chunk.len()) as u64;
        match self.node.fault() {
            Fault::BreaksAfter(bytes) if after > bytes => return Err(self.node.unreachable()),
            Fault::StopsAfter(bytes) if after > bytes => std::future::pending().await,
            _ => {}
        }
        self.body.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit(mut self: Box<Self>, mut pins: Pins) -> Result<Written> {
        let is_late = self.node.state.lock().refuses_late;
        let epoch = self.write.epoch;
        self.node.arrive(is_late.then_some(epoch)).await?;
        self.node.sync().await?;
        self.is_over = true;
        let fault = self.node.fault();
        if fault == Fault::FailsCommits {
            return Err(self.node.unreachable());
        }
        let written = {
            let mut state = self.node.state.lock();
            pins.dirty |= state.dirty_for > 0;
            let body = std::mem::take(&mut self.body).into();
            let Write {
                key, head, options, ..
            } = &self.write;
            state.records.put(key, head.clone(), body, options, pins)?
        };
        if fault == Fault::LosesAcks {
            return Err(self.node.unreachable());
        }
        Ok(written)
    }
}

impl Drop for Incoming {
    /// Keeps the start of an upload that may be taken up again.
    fn drop(&mut self) {
        let Some(name) = self.write.options.resume_as.clone() else {
            return;
        };
        if !self.is_over && !self.body.is_empty() {
            let body = std::mem::take(&mut self.body);
            let key = (self.write.key.clone(), name);
            self.node.state.lock().records.partial.insert(key, body);
        }
    }
}

#[async_trait]
impl Peer for Fake {
    async fn read(&self, read: Read) -> Result<Found> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.arrive(Some(read.epoch)).await?;
        let this = self.net.lock().get(&self.id).cloned();
        let mut state = self.state.lock();
        let filled = state.tier.get(&read.key).filter(|_| read.fill).cloned();
        if let Some(value) = filled {
            let options = zimcache_store::RecordOptions::default();
            let head = zimcache_store::RecordHead::default();
            state
                .records
                .put(&read.key, head, value, &options, Pins::default())?;
        }
        let (chunk, is_unsure) = (state.chunk, state.is_catching_up);
        state.dirty_for = state.dirty_for.saturating_sub(1);
        let is_clean = state.dirty_for == 0;
        let Some(held) = state.records.held.get_mut(&read.key) else {
            drop(state);
            return Ok(Found::No(self.absent()));
        };
        held.pins.dirty &= !is_clean;
        let total_bytes = held.value.len() as u64;
        let range = read
            .range
            .resolve(total_bytes)
            .map_err(|_| refused(Code::RangeInvalid));
        let range = if held.head.deleted { 0..0 } else { range? };
        Ok(Found::Yes {
            head: held.head.clone(),
            created: held.created,
            pins: held.pins,
            total_bytes,
            is_unsure,
            body: Box::new(Pieces {
                node: this.ok_or_else(|| self.unreachable())?,
                rest: held.value.slice(range.start as usize..range.end as usize),
                sent: 0,
                chunk,
            }),
        })
    }

    async fn write(&self, write: Write) -> Result<Box<dyn Writing>> {
        let is_late = self.state.lock().refuses_late;
        self.arrive((!is_late).then_some(write.epoch)).await?;
        if self.fault() == Fault::Full {
            return Err(refused(Code::OutOfSpace));
        }
        let wants_absence = write.options.precondition == Precondition::Absent;
        if wants_absence && self.state.lock().is_catching_up {
            return Err(refused(Code::Unavailable));
        }
        let this = self.net.lock().get(&self.id).cloned();
        let name = write
            .options
            .resume_as
            .clone()
            .map(|name| (write.key.clone(), name));
        let partial = name.and_then(|name| self.state.lock().records.partial.remove(&name));
        let body = partial.unwrap_or_default();
        Ok(Box::new(Incoming {
            node: this.ok_or_else(|| self.unreachable())?,
            write,
            offset: body.len() as u64,
            body,
            is_over: false,
        }))
    }

    async fn find(&self, find: Find) -> Result<Vec<Presence>> {
        self.finds.fetch_add(1, Ordering::Relaxed);
        self.arrive(Some(find.epoch)).await?;
        let absent = self.absent();
        let state = self.state.lock();
        let both = find.keys.iter().zip(&find.sizes);
        Ok(both
            .map(|(key, size)| match state.records.held.get(key) {
                Some(held) if size.is_none_or(|size| size == held.value.len() as u64) => {
                    Presence::Present
                }
                _ => absent,
            })
            .collect())
    }

    async fn pull(&self, pull: Pull) -> Result<Vec<bool>> {
        self.pulls.fetch_add(1, Ordering::Relaxed);
        self.arrive(Some(pull.epoch)).await?;
        self.sync().await?;
        if self.fault() == Fault::Full {
            return Err(refused(Code::OutOfSpace));
        }
        let from = self.net.lock().get(&pull.from).cloned();
        let can_read = |node: &Fault| !matches!(node, Fault::Down | Fault::Hang);
        let from = from.filter(|node| can_read(&node.fault()));
        let mut held = Vec::new();
        for key in &pull.keys {
            let theirs = from.as_ref().filter(|from| *from.id != *self.id);
            let theirs = theirs.and_then(|node| node.state.lock().records.held.get(key).cloned());
            held.push(self.state.lock().records.pull(key, theirs, pull.pins));
        }
        Ok(held)
    }

    async fn settle(&self, records: Vec<(RecordKey, Version)>, _: Pins) -> Result<()> {
        self.arrive(None).await?;
        let mut state = self.state.lock();
        for (key, version) in records {
            if let Some(held) = state
                .records
                .held
                .get_mut(&key)
                .filter(|it| it.head.version == version)
            {
                held.pins.hint = false;
            }
        }
        Ok(())
    }

    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool> {
        self.arrive(Some(epoch)).await?;
        Ok(self.state.lock().records.held.remove(&key).is_some())
    }

    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()> {
        self.arrive(Some(epoch)).await?;
        self.state
            .lock()
            .records
            .held
            .retain(|key, _| key.namespace != namespace);
        Ok(())
    }

    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        self.arrive(None).await?;
        let Listing::Entries {
            namespace,
            kind,
            prefix,
            after,
            limit,
        } = listing
        else {
            return Err(refused(Code::Invalid));
        };
        let state = self.state.lock();
        let of_kind =
            |key: &RecordKey| key.namespace == namespace && key.kind == RecordKind::Entry(kind);
        let live = state
            .records
            .held
            .iter()
            .filter(|(key, held)| of_kind(key) && !held.head.deleted);
        let mut rows: Vec<ListedEntry> = live
            .filter(|(_, held)| held.head.text.starts_with(&*prefix))
            .filter(|(_, held)| after.as_ref().is_none_or(|after| held.head.text > *after))
            .map(|(_, held)| ListedEntry {
                text: held.head.text.clone(),
                size_bytes: held.value.len() as u64,
                version: held.head.version,
                created: held.created,
            })
            .collect();
        rows.sort_by(|a, b| a.text.cmp(&b.text));
        rows.truncate(limit);
        Ok(rows)
    }

    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>> {
        self.arrive(None).await?;
        let Listing::Blobs {
            namespace,
            after,
            limit,
        } = listing
        else {
            return Err(refused(Code::Invalid));
        };
        let state = self.state.lock();
        let rows = state.records.held.iter().filter_map(|(key, held)| {
            let RecordKind::Blob(function) = key.kind else {
                return None;
            };
            let hash = Hash::from_bytes(function, &key.id[..function.hash_len()])?;
            let size_bytes = held.value.len() as u64;
            (key.namespace == namespace).then(|| ListedBlob {
                digest: Digest::sized(hash, size_bytes),
                size_bytes,
                created: held.created,
            })
        });
        let place = |hash: &Hash| (hash.function().number(), hash.as_bytes().to_vec());
        let mut rows: Vec<_> = rows
            .filter(|row| {
                after
                    .as_ref()
                    .is_none_or(|it| place(&row.digest.hash) > place(&it.hash))
            })
            .collect();
        rows.sort_by_key(|row| place(&row.digest.hash));
        rows.truncate(limit);
        Ok(rows)
    }

    async fn status(&self, _: StatusQuestion) -> Result<Status> {
        self.arrive(None).await?;
        let state = self.state.lock();
        let is_blob = |key: &&RecordKey| matches!(key.kind, RecordKind::Blob(_));
        let blobs = state.records.held.keys().filter(is_blob).count() as u64;
        let live_bytes = state
            .records
            .held
            .values()
            .map(|held| held.value.len() as u64)
            .sum();
        Ok(Status {
            id: self.id.clone(),
            catching_up: state.is_catching_up,
            stats: StoreStats {
                blobs,
                live_bytes,
                ..StoreStats::default()
            },
            usage: Bytes::from_static(
                br#"[{"namespace":"team","kind":"nx","count":1,"bytes":10},{"namespace":"team","kind":"blob","count":2,"bytes":5}]"#,
            ),
            ..Status::default()
        })
    }

    async fn manage(&self, work: Manage) -> Result<Bytes> {
        self.arrive(None).await?;
        let report = match work {
            Manage::Gc(options) => serde_json::to_vec(&GcReport {
                dry_run: options.dry_run,
                before_bytes: 100,
                after_bytes: options.target_bytes.unwrap_or(100),
                evicted_records: 3,
                ..GcReport::default()
            }),
            Manage::Verify => serde_json::to_vec(&VerifyReport {
                records: 2,
                bytes: 10,
                damaged: 1,
                examples: vec![format!("a record on {}", self.id)],
            }),
            Manage::Drain(_) => Ok(Vec::new()),
        };
        Ok(report.map_err(|_| refused(Code::Internal))?.into())
    }
}
