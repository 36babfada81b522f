//! What every operation of one gateway shares: settings, the ring in force, clocks, what is being read and repaired.
//!
//! Lock order: `changing` alone, held only while a view is swapped, never across an await.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_link::{Error, Peer, Result};
use zimcache_ring::{Document, Member, Ring};
use zimcache_store::{RecordKey, Version};
use zimcache_types::{Code, Namespace};

use crate::{
    config::{Config, Durability},
    flight::Flights,
    latency::Latency,
    minter::Minter,
    node::{Node, unavailable},
    ram::Ram,
    repair::Repairs,
    view::{Plan, View},
};

/// Makes the way to a member.
pub(crate) type Connect = dyn Fn(&Member) -> Arc<dyn Peer> + Send + Sync;

/// Rings of more members than this are computed on a thread of their own.
const SMALL_RING: usize = 64;

/// After which pauses that is tried again which needs every node.
const AGAIN_AFTER: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(3),
];

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Misses of entries and of look-ups that were not proven.
    pub unproven_misses: u64,
    /// Second nodes that were asked because the first one was slow.
    pub hedges: u64,
    /// Values that went on from another node after one broke off.
    pub switches: u64,
    /// Copies that were put on a stand-in or pulled there.
    pub stand_ins: u64,
    /// Copies asked for after a node was found to lack them.
    pub repairs: u64,
    /// Repairs let go because too many were waiting.
    pub repairs_dropped: u64,
    /// Reads answered from RAM.
    pub ram_hits: u64,
    /// Reads that joined one that was under way.
    pub joined: u64,
}

/// The counters as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) unproven_misses: AtomicU64,
    pub(crate) hedges: AtomicU64,
    pub(crate) switches: AtomicU64,
    pub(crate) stand_ins: AtomicU64,
    pub(crate) repairs: AtomicU64,
    pub(crate) repairs_dropped: AtomicU64,
    pub(crate) ram_hits: AtomicU64,
    pub(crate) joined: AtomicU64,
}

impl Counts {
    pub(crate) fn read(&self) -> Figures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Figures {
            unproven_misses: read(&self.unproven_misses),
            hedges: read(&self.hedges),
            switches: read(&self.switches),
            stand_ins: read(&self.stand_ins),
            repairs: read(&self.repairs),
            repairs_dropped: read(&self.repairs_dropped),
            ram_hits: read(&self.ram_hits),
            joined: read(&self.joined),
        }
    }
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What every operation shares.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) minter: Minter,
    pub(crate) latency: Latency,
    pub(crate) ram: Ram,
    pub(crate) flights: Flights,
    pub(crate) repairs: Repairs,
    pub(crate) counts: Counts,
    /// Whether the nodes have a durable tier: the settings say so, or a node did.
    has_tier: AtomicBool,
    view: ArcSwap<View>,
    connect: Box<Connect>,
    changing: Mutex<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("epoch", &self.view().epoch())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        ring: Ring,
        connect: Box<Connect>,
        minter: Minter,
        repairs: Repairs,
    ) -> Shared {
        let node = |member: &Member| node(&config, &*connect, member);
        let view = View::new(ring, None, node);
        Shared {
            minter,
            latency: Latency::new(config.timing.hedge_small),
            ram: Ram::new(&config),
            flights: Flights::default(),
            repairs,
            counts: Counts::default(),
            has_tier: AtomicBool::new(config.durable_tier),
            view: ArcSwap::from_pointee(view),
            connect,
            changing: Mutex::new(()),
            config,
        }
    }

    /// The ring in force, with the ways to its members.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Whether the nodes have a durable tier behind them.
    pub(crate) fn has_tier(&self) -> bool {
        self.has_tier.load(Ordering::Acquire)
    }

    /// A node has said that there is a durable tier.
    pub(crate) fn note_tier(&self) {
        self.has_tier.store(true, Ordering::Release);
    }

    /// What an acknowledgement means in a namespace.
    pub(crate) fn durability_of(&self, namespace: &Namespace) -> Durability {
        self.config.durability_of(namespace, self.has_tier())
    }

    /// Whom a key concerns now.
    pub(crate) fn plan(&self, key: &RecordKey) -> Plan {
        self.view.load().plan(key)
    }

    /// Follows a ring if it is newer than the one in force; whether it is.
    pub(crate) async fn adopt(&self, document: Document) -> bool {
        if document.epoch() <= self.view().epoch() {
            return false;
        }
        let ring = if document.members().count() <= SMALL_RING {
            Ring::new(&document)
        } else {
            let work = move || Ring::new(&document);
            let computed = zimcache_telemetry::task::spawn_blocking("compute a ring", work).await;
            let Ok(ring) = computed else { return false };
            ring
        };
        self.install(ring)
    }

    fn install(&self, ring: Ring) -> bool {
        let _changing = self.changing.lock();
        let before = self.view();
        if ring.epoch() <= before.epoch() {
            return false;
        }
        tracing::info!(epoch = ring.epoch(), "following a newer ring");
        let connect = |member: &Member| node(&self.config, &*self.connect, member);
        self.view
            .store(Arc::new(View::new(ring, Some(&before), connect)));
        true
    }

    /// Follows a ring that a node sent, if it is one and newer.
    pub(crate) async fn learn(&self, json: &Bytes) -> bool {
        let text = std::str::from_utf8(json).unwrap_or_default();
        match Document::parse(text) {
            Ok(document) => self.adopt(document).await,
            Err(error) => {
                tracing::warn!(%error, "a node sent a ring that cannot be used");
                false
            }
        }
    }

    /// Follows a newer ring that a failure tells of: the same is worth trying again then.
    pub(crate) async fn learn_from(&self, error: &Error) {
        if let Error::StaleRing { ring } = error {
            self.learn(ring).await;
        }
    }

    /// Takes note of an entry's version.
    ///
    /// # Errors
    /// `Unavailable` when it is from too far in the future.
    pub(crate) fn observe(&self, version: Version) -> zimcache_store::Result<()> {
        let seen = self.minter.observe(version);
        seen.map_err(|error| unavailable(&error.to_string()))
    }
}

fn node(config: &Config, connect: &Connect, member: &Member) -> Arc<Node> {
    Arc::new(Node::new(member, connect(member), config.strikes))
}

/// Does something that every node has to take part in, and again for a while when it cannot be done: a node that is
/// restarted comes back, and one that leaves or joins is known to by then.
pub(crate) async fn until_all_can<T, F>(mut attempt: impl FnMut() -> F) -> zimcache_store::Result<T>
where
    F: Future<Output = zimcache_store::Result<T>>,
{
    for pause in AGAIN_AFTER {
        match attempt().await {
            Err(error) if error.code() == Code::Unavailable => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
    }
    attempt().await
}

/// Does something again under a newer ring, as long as a node says that ours is too old.
pub(crate) async fn under_the_newest_ring<T, F>(
    shared: &Shared,
    mut attempt: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    const MOST: usize = 3;
    for _ in 1..MOST {
        let epoch = shared.view().epoch();
        match attempt().await {
            Err(error @ Error::StaleRing { .. }) => {
                shared.learn_from(&error).await;
                // Also when another call has learned of the ring meanwhile.
                if shared.view().epoch() == epoch {
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
    }
    attempt().await
}
