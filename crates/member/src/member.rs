//! What a member is made of, and its workers.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};
use zimcache_link::Peer;
use zimcache_ring::{NodeIx, Ring};
use zimcache_store::{BlobStore, EntryStore, RecordKey, Replica, StoreAdmin, Version};
use zimcache_telemetry::task;
use zimcache_types::Clock;

use crate::{
    DurableTier, Figures, Notes, Rings, deletions::Deletions, figures::Counters, throttle::Throttle,
};

/// Gives the peer at an address.
pub type Peers = Arc<dyn Fn(&str) -> Arc<dyn Peer> + Send + Sync>;

/// How eager a member is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes per second that are handed over at ring changes and to new disks.
    pub hand_over_bytes_per_second: u64,
    /// Records that are fetched from other nodes at once.
    pub pulls: usize,
    /// How long to wait before what did not succeed is tried again.
    pub retry: Duration,
    /// With a durable tier: records used longer ago than this are not handed over.
    pub hand_over_used_within: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hand_over_bytes_per_second: 200 << 20,
            pulls: 32,
            retry: Duration::from_millis(500),
            hand_over_used_within: Duration::from_hours(24),
        }
    }
}

/// What a member is made of.
pub struct Parts {
    /// Its name in the ring.
    pub id: Box<str>,
    /// Version of the program.
    pub version: Box<str>,
    /// The local store, as one of several.
    pub replica: Arc<dyn Replica>,
    /// Its blobs.
    pub blobs: Arc<dyn BlobStore>,
    /// Its entries.
    pub entries: Arc<dyn EntryStore>,
    /// Its keeper's side.
    pub admin: Arc<dyn StoreAdmin>,
    /// The ring, which somebody keeps up to date.
    pub rings: Arc<Rings>,
    /// The way to other nodes.
    pub peers: Peers,
    /// Wall-clock time, to judge when a record was last used.
    pub clock: Arc<dyn Clock>,
    /// The bucket behind the nodes.
    pub tier: Option<Arc<dyn DurableTier>>,
    /// What is remembered of the others.
    pub notes: Notes,
    /// How eager it is.
    pub settings: Settings,
}

/// A node in a cluster. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Member(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) throttle: Throttle,
    pub(crate) deletions: Deletions,
    pub(crate) counters: Counters,
    pub(crate) pulls: Semaphore,
    pub(crate) catching_up: AtomicBool,
    pub(crate) draining: AtomicBool,
    pub(crate) synced_epoch: AtomicU64,
    /// Wakes the worker that delivers hints.
    pub(crate) hints_wanted: Notify,
    /// Wakes the worker that hands over.
    pub(crate) hand_over_wanted: Notify,
    pub(crate) others: Mutex<HashMap<Box<str>, Other>>,
    /// Cloned by every call under way.
    pub(crate) busy: Arc<()>,
    known: Mutex<HashMap<Box<str>, Arc<dyn Peer>>>,
}

/// What is known of another member since the start.
#[derive(Debug, Default)]
pub(crate) struct Other {
    /// Its store, as it said itself.
    pub(crate) store: Option<[u8; 16]>,
    /// Hinted records that it holds, though another owner lacks them.
    pub(crate) delivered: HashSet<(RecordKey, Version)>,
    /// The task that gives it what it should have.
    pub(crate) refill: Option<JoinHandle<()>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Member");
        shown
            .field("id", &self.parts.id)
            .field("epoch", &self.parts.rings.epoch());
        shown.finish_non_exhaustive()
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A member's tasks. Dropping it ends them.
#[derive(Debug)]
pub struct Workers {
    member: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        let others = std::mem::take(&mut *self.member.others.lock());
        let refills = others.into_values().filter_map(|other| other.refill);
        for task in self.tasks.drain(..).chain(refills) {
            task.abort();
        }
    }
}

impl Member {
    /// A member that answers, and is catching up until its workers run.
    pub fn new(parts: Parts) -> Member {
        Member(Arc::new(Inner {
            throttle: Throttle::new(parts.settings.hand_over_bytes_per_second),
            deletions: Deletions::default(),
            counters: Counters::default(),
            pulls: Semaphore::new(parts.settings.pulls.max(1)),
            catching_up: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            synced_epoch: AtomicU64::new(0),
            hints_wanted: Notify::new(),
            hand_over_wanted: Notify::new(),
            others: Mutex::default(),
            busy: Arc::new(()),
            known: Mutex::default(),
            parts,
        }))
    }

    /// What it did so far.
    pub fn figures(&self) -> Figures {
        self.0.counters.read()
    }

    /// Members that are being given what they own, because their disk is a new one.
    pub fn refilling(&self) -> u64 {
        let others = self.0.others.lock();
        let refills = others.values().filter_map(|other| other.refill.as_ref());
        refills.filter(|task| !task.is_finished()).count() as u64
    }

    /// The ring that it follows; `None` before there is one.
    pub fn ring(&self) -> Option<Ring> {
        self.0.parts.rings.get()
    }

    /// Starts what it does of its own accord.
    pub fn start(&self) -> Workers {
        let [hints, catching_up, hand_over] = [(); 3].map(|()| Arc::clone(&self.0));
        let tasks = vec![
            task::spawn("hints", async move { hints.deliver_hints_forever().await }),
            task::spawn("catching up", async move { catching_up.catch_up().await }),
            task::spawn(
                "hand-over",
                async move { hand_over.hand_over_forever().await },
            ),
        ];
        Workers {
            member: Arc::clone(&self.0),
            tasks,
        }
    }
}

impl Inner {
    /// The peer at an address.
    pub(crate) fn peer(&self, address: &str) -> Arc<dyn Peer> {
        let known = &mut *self.known.lock();
        if let Some(peer) = known.get(address) {
            return Arc::clone(peer);
        }
        // Addresses of the ring and of who was in it lately: never many.
        if known.len() > usize::from(u16::MAX) {
            known.clear();
        }
        let peer = (self.parts.peers)(address);
        known.insert(address.into(), Arc::clone(&peer));
        peer
    }

    /// The peer that a member of the ring is; `None` when it has no address.
    pub(crate) fn peer_of(&self, ring: &Ring, node: NodeIx) -> Option<Arc<dyn Peer>> {
        let address = ring.member(node).address.as_ref()?;
        Some(self.peer(address))
    }

    /// The own number and address in a ring.
    pub(crate) fn me<'a>(&self, ring: &'a Ring) -> Option<(NodeIx, &'a str)> {
        let me = ring.find(&self.parts.id)?;
        Some((me, ring.member(me).address.as_deref()?))
    }
}
