//! [`Cluster`]: the three store contracts over many nodes, and what follows the ring and the nodes' health meanwhile.
//!
//! The background tasks end by themselves when nobody uses the cluster any more.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;
use zimcache_link::{Peer, Status, StatusQuestion};
use zimcache_ring::{Document, Member, Ring};
use zimcache_store::{BlobStore, EntryStore, StoreAdmin};
use zimcache_types::Clock;

use crate::{
    admin::Admin,
    blobs::Blobs,
    config::Config,
    entries::Entries,
    minter::Minter,
    node::Node,
    repair,
    shared::{Figures, Shared},
};

/// Polls after which a node is asked for its figures too.
const FIGURES_EVERY: u64 = 10;
/// How often the follower of the ring looks whether anybody still uses the cluster.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// Many nodes as one store.
#[derive(Debug, Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

/// A member of the cluster and how it is.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// What the ring says of it.
    pub member: Member,
    /// Whether it answered.
    pub is_reachable: bool,
    /// Calls to it that have no end yet.
    pub in_flight: u64,
    /// What it says of itself, at the latest when it could last be reached.
    pub status: Option<Status>,
}

impl Cluster {
    /// A cluster that follows the ring in `rings`, and newer ones that nodes send. `connect` makes the way to a member
    /// and must not block. `seed` is random for each start of a gateway: its versions are told from others' by it.
    /// Needs a runtime.
    pub fn new(
        config: Config,
        rings: watch::Receiver<Arc<Document>>,
        connect: impl Fn(&Member) -> Arc<dyn Peer> + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Cluster {
        let (repairs, waiting) = repair::queue();
        let ring = Ring::new(&rings.borrow());
        let minter = Minter::new(clock, writer(seed));
        let shared = Shared::new(config, ring, Box::new(connect), minter, repairs);
        let shared = Arc::new(shared);
        let weak = || Arc::downgrade(&shared);
        zimcache_telemetry::task::spawn("repair copies", repair::work(weak(), waiting));
        zimcache_telemetry::task::spawn("follow the ring", follow(weak(), rings));
        zimcache_telemetry::task::spawn("poll the nodes", poll(weak()));
        Cluster { shared }
    }

    /// Its blobs.
    pub fn blobs(&self) -> Arc<dyn BlobStore> {
        Arc::new(Blobs(Arc::clone(&self.shared)))
    }

    /// Its entries.
    pub fn entries(&self) -> Arc<dyn EntryStore> {
        Arc::new(Entries(Arc::clone(&self.shared)))
    }

    /// Its keeper's work.
    pub fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(Admin(Arc::clone(&self.shared)))
    }

    /// Follows a ring if it is newer than the one in force; whether it is.
    pub async fn set_ring(&self, document: Document) -> bool {
        self.shared.adopt(document).await
    }

    /// The ring in force.
    pub fn ring(&self) -> Ring {
        self.shared.view().ring().clone()
    }

    /// Asks every member how it is, now. With figures it takes longer.
    pub async fn status(&self, with_figures: bool) -> Vec<NodeStatus> {
        let view = self.shared.view();
        ask_all(&self.shared, with_figures).await;
        let both = view.seats().iter().zip(view.ring().members());
        both.map(|(seat, (_, member))| NodeStatus {
            member: member.clone(),
            is_reachable: !seat.node.is_suspect(),
            in_flight: seat.node.in_flight(),
            status: seat.node.status(),
        })
        .collect()
    }

    /// Counters since the start.
    pub fn figures(&self) -> Figures {
        self.shared.counts.read()
    }
}

/// The number of a gateway's start, from its seed.
const fn writer(seed: u64) -> u32 {
    // SplitMix64: seeds that differ in one bit give numbers that differ in half of theirs.
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}

async fn follow(shared: Weak<Shared>, mut rings: watch::Receiver<Arc<Document>>) {
    loop {
        let changed = tokio::time::timeout(LOOK_AROUND, rings.changed()).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match changed {
            Ok(Ok(())) => {
                let document = Document::clone(&rings.borrow_and_update());
                shared.adopt(document).await;
            }
            Ok(Err(_)) => return,
            Err(_) => {}
        }
    }
}

async fn poll(shared: Weak<Shared>) {
    let mut turn = 0;
    loop {
        let pause = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            ask_all(&shared, turn % FIGURES_EVERY == 0).await;
            shared.config.timing.poll
        };
        turn += 1;
        tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
    }
}

/// Asks every member that is not gone how it is, those that are passed over too.
async fn ask_all(shared: &Shared, with_figures: bool) {
    let view = shared.view();
    let ring = view.ring().document().to_json().ok().map(Bytes::from);
    let asked = view
        .present()
        .map(|node| ask(shared, node, ring.clone(), with_figures));
    futures_util::future::join_all(asked).await;
}

async fn ask(shared: &Shared, node: &Arc<Node>, ring: Option<Bytes>, with_figures: bool) {
    let question = StatusQuestion {
        ring,
        for_member: None,
        with_figures,
    };
    let limit = shared.config.timing.stall;
    let answer = node.probe(limit, node.peer.status(question)).await;
    let Ok(mut status) = answer else { return };
    if status.tier_reachable.is_some() {
        shared.note_tier();
    }
    if let Some(ring) = status.ring.take() {
        shared.learn(&ring).await;
    }
    if !with_figures {
        let before = node.status().unwrap_or_default();
        status.stats = before.stats;
        status.usage = before.usage;
    }
    node.set_status(status);
}
