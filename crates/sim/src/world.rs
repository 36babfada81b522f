//! What hosts share beside the network: disks that outlive their nodes, published rings, the journal.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use zimcache_link::{Remote, remote};
use zimcache_member::Member;
use zimcache_ring::{self as ring, Document};

use crate::{
    bug::Bug,
    clock::HostClock,
    disk::Disk,
    journal::Journal,
    nemesis::SKEW_MILLIS,
    net::{PORT, SimConnect},
    plan::Plan,
    random::generator,
};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Clients work, faults come and go.
    Work,
    /// Nothing is broken any more, and nobody asks for anything.
    Calm,
    /// Everything is read once more.
    Sweep,
}

/// What hosts share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) bug: Option<Bug>,
    pub(crate) journal: Journal,
    stage: Mutex<Stage>,
    /// By when all has to be well, in microseconds.
    deadline: AtomicU64,
    /// Gateways that have swept.
    pub(crate) swept: AtomicU64,
    /// Cloned by every call of a client that is under way.
    pub(crate) busy: Arc<()>,
    disks: Mutex<BTreeMap<String, Disk>>,
    /// Those that run.
    members: Mutex<BTreeMap<String, Member>>,
    clocks: Mutex<BTreeMap<String, Arc<HostClock>>>,
    /// How many epochs each gateway's source of rings is behind.
    lags: Mutex<BTreeMap<String, usize>>,
    rings: Mutex<Vec<Document>>,
    /// Starts of hosts and disks so far.
    starts: AtomicU64,
}

/// The name of the n-th node, in the ring and on the network.
pub(crate) fn node_name(number: u64) -> String {
    format!("node-{number}")
}

/// The name of the n-th gateway on the network.
pub(crate) fn gateway_name(number: u32) -> String {
    format!("gateway-{number}")
}

/// A node as a member of the ring.
pub(crate) fn ring_member(name: &str) -> ring::Member {
    ring::Member {
        address: Some(format!("http://{name}:{PORT}")),
        ..ring::Member::new(name)
    }
}

impl World {
    pub(crate) fn new(plan: Plan, bug: Option<Bug>) -> World {
        let members = (0..plan.nodes).map(|number| ring_member(&node_name(number)));
        let first = Document::first(2, members.collect()).expect("a plan gives a ring");
        let clocks_apart = if plan.has_skew {
            2 * SKEW_MILLIS.unsigned_abs() * 1000
        } else {
            0
        };
        World {
            journal: Journal::new(plan.gateways, clocks_apart),
            stage: Mutex::new(Stage::Work),
            deadline: AtomicU64::new(u64::MAX),
            swept: AtomicU64::new(0),
            busy: Arc::default(),
            disks: Mutex::default(),
            members: Mutex::default(),
            clocks: Mutex::default(),
            lags: Mutex::default(),
            rings: Mutex::new(vec![first]),
            starts: AtomicU64::new(0),
            plan,
            bug,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.lock()
    }

    pub(crate) fn enter(&self, stage: Stage) {
        *self.stage.lock() = stage;
    }

    /// By when all has to be well, in microseconds.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    pub(crate) fn set_deadline(&self, micros: u64) {
        self.deadline.store(micros, Ordering::Relaxed);
    }

    /// A generator for something that starts now.
    pub(crate) fn random(&self, what: &str) -> StdRng {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        generator(self.plan.seed, (what, start))
    }

    /// The clock of a host.
    pub(crate) fn clock(&self, host: &str) -> Arc<HostClock> {
        let clocks = &mut *self.clocks.lock();
        Arc::clone(clocks.entry(host.to_owned()).or_default())
    }

    /// The disk of a node; an empty one at first.
    pub(crate) fn disk(&self, node: &str) -> Disk {
        let clock = self.clock(node);
        let disks = &mut *self.disks.lock();
        let new = || Disk::new(self.random("disk"), clock, self.bug);
        disks.entry(node.to_owned()).or_insert_with(new).clone()
    }

    /// Takes a disk away. Its node gets an empty one.
    pub(crate) fn lose_disk(&self, node: &str) {
        self.disks.lock().remove(node);
    }

    pub(crate) fn started(&self, node: &str, member: Member) {
        self.members.lock().insert(node.to_owned(), member);
    }

    /// A host has crashed.
    pub(crate) fn crashed(&self, host: &str) {
        self.members.lock().remove(host);
        if let Some(disk) = self.disks.lock().get(host) {
            disk.crash();
        }
    }

    /// The nodes that run.
    pub(crate) fn members(&self) -> BTreeMap<String, Member> {
        self.members.lock().clone()
    }

    /// The newest ring.
    pub(crate) fn ring(&self) -> Document {
        self.rings.lock().last().cloned().expect("there is one")
    }

    pub(crate) fn publish(&self, document: Document) {
        self.rings.lock().push(document);
    }

    /// The ring as a host's source has it.
    pub(crate) fn ring_seen_by(&self, host: &str) -> Document {
        let lag = self.lags.lock().get(host).copied().unwrap_or(0);
        let rings = self.rings.lock();
        if self.bug == Some(Bug::FollowsStaleRing) && host == gateway_name(0) {
            return rings[0].clone();
        }
        let newest = rings.len() - 1;
        rings[newest.saturating_sub(lag)].clone()
    }

    /// Keeps a host's source of rings so many epochs behind.
    pub(crate) fn lag_behind(&self, host: &str, epochs: usize) {
        self.lags.lock().insert(host.to_owned(), epochs);
    }

    /// Ways to nodes, for a host that starts.
    pub(crate) fn ways(&self) -> impl Fn(&str) -> Remote + Send + Sync + use<> {
        let settings = remote::Settings {
            connect: Arc::new(SimConnect(Mutex::new(self.random("connect")))),
            ..remote::Settings::default()
        };
        move |address| Remote::new(address, &settings)
    }
}
