//! Clusters of nodes in memory, gateways on them, and short ways to put and get.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;
use zimcache_link::Peer;
use zimcache_ring::{Document, Member, Ring, RingKey};
use zimcache_store::{
    ByteRange, CreateOptions, EntryMeta, Pins, Precondition, RecordKey, RecordKind, Result,
};
use zimcache_types::{
    Clock, Digest, EntryKey, EntryKind, Function, ManualClock, Namespace, Timestamp,
};

use super::fake::{Fake, Fault, Net};
use crate::{Cluster, Config};

/// Some time in 2026.
pub(crate) const NOW: Timestamp = Timestamp(1_780_000_000_000);

/// Nodes and their ring.
pub(crate) struct Rig {
    pub(crate) net: Net,
    pub(crate) rings: watch::Sender<Arc<Document>>,
    pub(crate) clock: Arc<ManualClock>,
}

/// A gateway.
pub(crate) struct Gateway {
    pub(crate) cluster: Cluster,
    pub(crate) blobs: Arc<dyn zimcache_store::BlobStore>,
    pub(crate) entries: Arc<dyn zimcache_store::EntryStore>,
}

/// Members of these names.
pub(crate) fn members(names: &[&str]) -> Vec<Member> {
    names.iter().map(|name| Member::new(*name)).collect()
}

impl Rig {
    /// A cluster of these nodes with so many copies of everything.
    pub(crate) fn new(replicas: u32, names: &[&str]) -> Rig {
        let document = Document::first(replicas, members(names)).unwrap();
        let net = Net::default();
        for name in names {
            Fake::new(name, &net);
        }
        Rig {
            net,
            rings: watch::Sender::new(Arc::new(document)),
            clock: Arc::new(ManualClock::new(NOW)),
        }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        self.gateway_with(1, plain())
    }

    pub(crate) fn gateway_with(&self, seed: u64, config: Config) -> Gateway {
        self.gateway_at(Arc::clone(&self.clock) as _, seed, config)
    }

    pub(crate) fn gateway_at(&self, clock: Arc<dyn Clock>, seed: u64, config: Config) -> Gateway {
        let net = Arc::clone(&self.net);
        let connect = move |member: &Member| {
            let known = net.lock().get(&*member.id).cloned();
            known.unwrap_or_else(|| Fake::new(&member.id, &net)) as Arc<dyn Peer>
        };
        let cluster = Cluster::new(config, self.rings.subscribe(), connect, clock, seed);
        Gateway {
            blobs: cluster.blobs(),
            entries: cluster.entries(),
            cluster,
        }
    }

    pub(crate) fn node(&self, id: &str) -> Arc<Fake> {
        Arc::clone(&self.net.lock()[id])
    }

    pub(crate) fn nodes(&self) -> Vec<Arc<Fake>> {
        self.net.lock().values().cloned().collect()
    }

    /// Owners, then stand-ins of a key in the current placement.
    pub(crate) fn places(&self, key: &RecordKey) -> (Vec<Arc<Fake>>, Vec<Arc<Fake>>) {
        let ring = Ring::new(&self.rings.borrow());
        let current = ring.current(point(key));
        let of = |nodes: &[zimcache_ring::NodeIx]| {
            let ids = nodes.iter().map(|ix| self.node(&ring.member(*ix).id));
            ids.collect()
        };
        (of(current.owners), of(current.stand_ins))
    }

    /// The names of the nodes that hold a key.
    pub(crate) fn holders(&self, key: &RecordKey) -> Vec<Box<str>> {
        let has = self.nodes().into_iter().filter(|node| node.has(key));
        has.map(|node| node.id.clone()).collect()
    }

    /// Whether all copies carry the hint; none is no.
    pub(crate) fn is_hinted_everywhere(&self, key: &RecordKey) -> bool {
        let holders: Vec<_> = self
            .nodes()
            .into_iter()
            .filter(|node| node.has(key))
            .collect();
        !holders.is_empty() && holders.iter().all(|node| node.is_hinted(key))
    }

    pub(crate) fn is_hinted_somewhere(&self, key: &RecordKey) -> bool {
        self.nodes().iter().any(|node| node.is_hinted(key))
    }

    /// Every node that works hands its hinted records to the owners in both placements, as nodes do by themselves, and
    /// settles the hint when all of those have it.
    pub(crate) fn deliver_hints(&self) {
        let ring = Ring::new(&self.rings.borrow());
        let works = |node: &Arc<Fake>| node.fault() == Fault::None;
        for holder in self.nodes().into_iter().filter(works) {
            let held = holder.state.lock().records.held.clone();
            for (key, record) in held.into_iter().filter(|(_, record)| record.pins.hint) {
                let owners = ring
                    .read_set(point(&key))
                    .iter()
                    .map(|ix| self.node(&ring.member(ix).id));
                let mut others = owners.filter(|node| node.id != holder.id);
                let delivered = others.all(|owner| {
                    let copy = Some(record.clone());
                    works(&owner) && owner.state.lock().records.pull(&key, copy, Pins::default())
                });
                if delivered {
                    let mut state = holder.state.lock();
                    let held = state.records.held.get_mut(&key);
                    if let Some(held) = held {
                        held.pins.hint = false;
                    }
                }
            }
        }
    }

    /// A node that lost its disk gets back what the others have of its keys, and trusts its "no" again.
    pub(crate) fn catch_up(&self, node: &Arc<Fake>) {
        let ring = Ring::new(&self.rings.borrow());
        let own = ring.find(&node.id).unwrap();
        for other in self.nodes().into_iter().filter(|other| other.id != node.id) {
            for (key, record) in other.state.lock().records.held.clone() {
                if ring.read_set(point(&key)).iter().any(|owner| owner == own) {
                    node.state
                        .lock()
                        .records
                        .pull(&key, Some(record), Pins::default());
                }
            }
        }
        node.state.lock().is_catching_up = false;
    }
}

fn point(key: &RecordKey) -> zimcache_ring::Point {
    match key.kind {
        RecordKind::Blob(_) => RingKey(key.id).point(),
        RecordKind::Entry(kind) => RingKey::of_entry_record(&key.namespace, kind, &key.id).point(),
    }
}

/// No RAM tier, so that every read reaches the nodes.
pub(crate) fn plain() -> Config {
    Config {
        ram_bytes: 0,
        ..Config::default()
    }
}

pub(crate) fn team() -> Namespace {
    Namespace::new("team").unwrap()
}

pub(crate) fn sha(body: &[u8]) -> Digest {
    Digest::of(Function::Sha256, body)
}

pub(crate) fn blob_key(body: &[u8]) -> RecordKey {
    RecordKey::blob(&team(), &sha(body))
}

pub(crate) fn entry(text: &str) -> EntryKey {
    EntryKey::new(team(), EntryKind::Nx, text).unwrap()
}

/// So many bytes that differ from place to place.
pub(crate) fn body(size: usize, seed: u64) -> Bytes {
    zimcache_store::testing::conformance::content(
        zimcache_store::testing::conformance::Content::Noise,
        seed,
        size,
    )
}

impl Gateway {
    pub(crate) async fn put(&self, body: &Bytes) -> Result<u64> {
        self.put_in(body, 64 << 10, CreateOptions::default()).await
    }

    pub(crate) async fn put_in(
        &self,
        body: &Bytes,
        chunk: usize,
        options: CreateOptions,
    ) -> Result<u64> {
        let mut writer = self.blobs.create(&team(), &sha(body), options).await?;
        let rest = body.slice(writer.offset() as usize..);
        for start in (0..rest.len()).step_by(chunk) {
            writer
                .write(rest.slice(start..rest.len().min(start + chunk)))
                .await?;
        }
        writer.commit().await
    }

    pub(crate) async fn get(&self, body: &[u8]) -> Result<Option<Bytes>> {
        match self
            .blobs
            .open(&team(), &sha(body), ByteRange::Full)
            .await?
        {
            Some(reader) => reader.read_all(u64::MAX).await.map(Some),
            None => Ok(None),
        }
    }

    pub(crate) async fn put_entry(&self, text: &str, value: &Bytes) -> Result<u64> {
        self.put_entry_if(text, value, Precondition::None).await
    }

    pub(crate) async fn put_entry_if(
        &self,
        text: &str,
        value: &Bytes,
        precondition: Precondition,
    ) -> Result<u64> {
        let key = entry(text);
        let put = self
            .entries
            .put(&key, EntryMeta::default(), precondition, None);
        let mut writer = put.await?;
        for start in (0..value.len()).step_by(100_000) {
            writer
                .write(value.slice(start..value.len().min(start + 100_000)))
                .await?;
        }
        writer.commit().await
    }

    pub(crate) async fn get_entry(&self, text: &str) -> Result<Option<Bytes>> {
        match self.entries.get(&entry(text), ByteRange::Full).await? {
            Some(entry) => entry.value.read_all(u64::MAX).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Waits until something is so, or fails.
pub(crate) async fn eventually(what: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it never came to be");
}

/// The nodes by name, for messages.
pub(crate) fn names(nodes: &[Arc<Fake>]) -> BTreeMap<Box<str>, Fault> {
    nodes
        .iter()
        .map(|node| (node.id.clone(), node.fault()))
        .collect()
}
