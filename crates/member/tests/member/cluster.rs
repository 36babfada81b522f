//! A cluster of members over stores in RAM, joined by a net that can be cut.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_link::{
    Error, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Pull, Read, Result, Status,
    StatusQuestion, Write, Writing,
};
use zimcache_member::{DurableTier, Member, Notes, Parts, Rings, Settings, Workers, point};
use zimcache_ring::{self as ring, Document, Ring};
use zimcache_store::{
    ByteRange, Pins, RecordHead, RecordKey, RecordOptions, Replica, Version,
    memory::{MemoryReplica, MemoryStore},
};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Namespace, SystemClock};

/// Who answers at which address, and who is cut off.
#[derive(Debug, Default)]
pub(crate) struct Net {
    peers: Mutex<HashMap<String, Arc<dyn Peer>>>,
    down: Mutex<HashSet<String>>,
}

impl Net {
    fn at(&self, address: &str) -> Result<Arc<dyn Peer>> {
        let is_down = self.down.lock().contains(address);
        let peer = self.peers.lock().get(address).cloned();
        peer.filter(|_| !is_down).ok_or_else(|| Error::Unreachable {
            node: address.into(),
            why: "cut off".into(),
        })
    }

    pub(crate) fn put(&self, address: &str, peer: Arc<dyn Peer>) {
        self.peers.lock().insert(address.to_owned(), peer);
    }
}

/// The way to an address.
#[derive(Debug)]
struct Way(Arc<Net>, String);

#[async_trait]
impl Peer for Way {
    async fn read(&self, read: Read) -> Result<Found> {
        self.0.at(&self.1)?.read(read).await
    }
    async fn write(&self, write: Write) -> Result<Box<dyn Writing>> {
        self.0.at(&self.1)?.write(write).await
    }
    async fn find(&self, find: Find) -> Result<Vec<zimcache_link::Presence>> {
        self.0.at(&self.1)?.find(find).await
    }
    async fn pull(&self, pull: Pull) -> Result<Vec<bool>> {
        self.0.at(&self.1)?.pull(pull).await
    }
    async fn settle(&self, records: Vec<(RecordKey, Version)>, pins: Pins) -> Result<()> {
        self.0.at(&self.1)?.settle(records, pins).await
    }
    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool> {
        self.0.at(&self.1)?.delete(epoch, key).await
    }
    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()> {
        self.0.at(&self.1)?.purge(epoch, namespace).await
    }
    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        self.0.at(&self.1)?.list_entries(listing).await
    }
    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>> {
        self.0.at(&self.1)?.list_blobs(listing).await
    }
    async fn status(&self, question: StatusQuestion) -> Result<Status> {
        self.0.at(&self.1)?.status(question).await
    }
    async fn manage(&self, work: Manage) -> Result<Bytes> {
        self.0.at(&self.1)?.manage(work).await
    }
}

/// A node: its disk, and its process while it runs.
pub(crate) struct Node {
    pub(crate) store: MemoryReplica,
    /// Where blobs and entries are deleted, which the records are not.
    pub(crate) rest: Arc<MemoryStore>,
    pub(crate) tier: Option<Arc<dyn DurableTier>>,
    notes: PathBuf,
    running: Option<(Member, Workers, Arc<Rings>)>,
}

pub(crate) struct Cluster {
    pub(crate) net: Arc<Net>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) document: Document,
    folder: tempfile::TempDir,
    disks: u8,
}

pub(crate) fn address(id: &str) -> String {
    format!("http://{id}:1")
}

pub(crate) fn ring_member(id: &str) -> ring::Member {
    ring::Member {
        address: Some(address(id)),
        ..ring::Member::new(id)
    }
}

impl Cluster {
    /// Nodes that run and have caught up; two copies of everything.
    pub(crate) async fn of(ids: &[&str]) -> Cluster {
        let members = ids.iter().map(|id| ring_member(id)).collect();
        let mut cluster = Cluster {
            net: Arc::default(),
            nodes: BTreeMap::new(),
            document: Document::first(2, members).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            disks: 0,
        };
        for id in ids {
            cluster.add(id).await;
        }
        cluster.all_caught_up().await;
        cluster
    }

    /// A node with an empty disk, running.
    pub(crate) async fn add(&mut self, id: &str) {
        self.disks += 1;
        let node = Node {
            store: MemoryReplica::new([self.disks; 16], Arc::new(SystemClock)),
            rest: Arc::default(),
            tier: None,
            notes: self.folder.path().join(format!("{id}-{}.json", self.disks)),
            running: None,
        };
        self.nodes.insert(id.to_owned(), node);
        self.start(id).await;
    }

    pub(crate) async fn start(&mut self, id: &str) {
        let net = Arc::clone(&self.net);
        let rings = Arc::new(Rings::default());
        rings.adopt(self.document.clone()).await;
        let node = self.nodes.get_mut(id).unwrap();
        let rest = &node.rest;
        let member = Member::new(Parts {
            id: id.into(),
            version: "test".into(),
            replica: Arc::new(node.store.clone()),
            blobs: rest.clone(),
            entries: rest.clone(),
            admin: rest.clone(),
            rings: Arc::clone(&rings),
            peers: Arc::new(move |address| Arc::new(Way(Arc::clone(&net), address.to_owned()))),
            clock: Arc::new(SystemClock),
            tier: node.tier.clone(),
            notes: Notes::open(node.notes.clone()).await.unwrap(),
            settings: Settings {
                retry: Duration::from_millis(20),
                ..Settings::default()
            },
        });
        self.net.put(&address(id), Arc::new(member.clone()));
        let workers = member.start();
        node.running = Some((member, workers, rings));
    }

    /// Ends a node's process; its disk stays.
    pub(crate) fn stop(&mut self, id: &str) {
        self.nodes.get_mut(id).unwrap().running = None;
        self.net.peers.lock().remove(&address(id));
    }

    /// Ends a node's process and takes its disk away; another one with an empty disk starts.
    pub(crate) async fn lose_disk(&mut self, id: &str) {
        self.stop(id);
        self.add(id).await;
    }

    pub(crate) fn cut(&self, id: &str, is_cut: bool) {
        let mut down = self.net.down.lock();
        if is_cut {
            down.insert(address(id));
        } else {
            down.remove(&address(id));
        }
    }

    pub(crate) fn member(&self, id: &str) -> &Member {
        &self.nodes[id].running.as_ref().unwrap().0
    }

    /// Makes a new ring known to every node that runs.
    pub(crate) async fn publish(&mut self, document: Document) {
        for node in self.nodes.values() {
            if let Some((_, _, rings)) = &node.running {
                rings.adopt(document.clone()).await;
            }
        }
        self.document = document;
    }

    pub(crate) async fn status(&self, id: &str) -> Status {
        self.member(id)
            .status(StatusQuestion::default())
            .await
            .unwrap()
    }

    /// The ids of the owners of a record.
    pub(crate) fn owners(&self, key: &RecordKey) -> Vec<String> {
        let ring = Ring::new(&self.document);
        let owners = ring.owners(point(key)).iter();
        owners.map(|node| ring.member(*node).id.clone()).collect()
    }

    /// Who holds a record, and in which version.
    pub(crate) fn holders(&self, key: &RecordKey) -> BTreeMap<String, Version> {
        let held = self.nodes.iter().filter_map(|(id, node)| {
            let (head, ..) = node.store.records().remove(key)?;
            Some((id.clone(), head.version))
        });
        held.collect()
    }

    pub(crate) fn pins(&self, id: &str, key: &RecordKey) -> Option<Pins> {
        self.nodes[id]
            .store
            .records()
            .remove(key)
            .map(|(.., pins)| pins)
    }

    pub(crate) async fn all_caught_up(&self) {
        for id in self.nodes.keys() {
            let member = self.member(id).clone();
            let caught_up = async || {
                let status = member.status(StatusQuestion::default()).await.unwrap();
                !status.catching_up
            };
            eventually(&format!("{id} has caught up"), caught_up).await;
        }
    }
}

/// Puts a record onto a node, as a gateway would.
pub(crate) async fn put(
    store: &MemoryReplica,
    key: &RecordKey,
    head: RecordHead,
    value: &Bytes,
    pins: Pins,
) {
    let written = store.write_record(key, head, RecordOptions::default());
    let mut writer = written.await.unwrap();
    writer.write(value.clone()).await.unwrap();
    writer.commit(pins).await.unwrap();
}

pub(crate) const HINT: Pins = Pins {
    dirty: false,
    hint: true,
};

/// The n-th blob, and its name.
pub(crate) fn blob(n: u64) -> (RecordKey, Bytes) {
    let value = Bytes::from(format!("blob {n}"));
    let digest = Digest::of(Function::Sha256, &value);
    (RecordKey::blob(&Namespace::default(), &digest), value)
}

/// The n-th entry's name, and its head in a version.
pub(crate) fn entry(n: u64, clock: u64) -> (RecordKey, RecordHead) {
    let text = format!("entry {n}");
    let key = EntryKey::new(Namespace::default(), EntryKind::Nx, text.as_str()).unwrap();
    let head = RecordHead {
        text: text.into(),
        version: Version { clock, writer: 1 },
        ..RecordHead::default()
    };
    (RecordKey::entry(&key), head)
}

pub(crate) fn read(key: &RecordKey, epoch: u64) -> Read {
    Read {
        epoch,
        key: key.clone(),
        range: ByteRange::Full,
        fill: false,
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("still not so: {what}"));
}
