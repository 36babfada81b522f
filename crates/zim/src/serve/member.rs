//! A node of a cluster over an open store: its conduct and its durable tier, started and stopped together.
//!
//! Order of the stop: what is not in the durable tier is brought there as long as the time lasts and the tier answers;
//! then the workers end. What is left is dirty or hinted on the disk, and waits for the next start.

use std::{path::Path, sync::Arc, time::Duration};

use zimcache_config::ServeConfig;
use zimcache_member::{DurableTier, Member, Notes, Parts, Peers, Rings, Settings, Workers};
use zimcache_node::Node;
use zimcache_ring::Document;
use zimcache_telemetry::task;
use zimcache_tier::Tier;
use zimcache_types::SystemClock;

use super::durable::{self, OfMember};
use crate::{
    error::{Error, Result},
    output,
};

/// Beside the store: which stores the other members had when they were last met.
const KNOWN_STORES: &str = "members.json";

/// A member at work.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) member: Member,
    workers: Workers,
    tier: Option<Arc<Tier>>,
}

impl Seat {
    /// Lets a store take part as the member `id`. Call it on the runtime.
    pub(super) async fn take(
        config: &ServeConfig,
        folder: &Path,
        node: &Node,
        (id, rings): (&str, tokio::sync::watch::Receiver<Arc<Document>>),
        peers: Peers,
    ) -> Result<Seat> {
        let rings = follow(rings).await;
        let clock = Arc::new(SystemClock);
        let seed = getrandom::u64().map_err(Error::NoRandomness)?;
        let parts = durable::Parts {
            id: id.into(),
            replica: node.replica(),
            rings: Arc::clone(&rings),
            peers: Arc::clone(&peers),
            clock: clock.clone(),
            seed,
        };
        let tier = durable::start(&config.s3, parts).await?;
        let of_member =
            |tier: &Arc<Tier>| -> Arc<dyn DurableTier> { Arc::new(OfMember(Arc::clone(tier))) };
        let member = Member::new(Parts {
            id: id.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            replica: node.replica(),
            blobs: node.blobs(),
            entries: node.entries(),
            admin: node.admin(),
            rings,
            peers,
            clock,
            tier: tier.as_ref().map(of_member),
            notes: Notes::open(folder.join(KNOWN_STORES)).await?,
            settings: Settings::default(),
        });
        Ok(Seat {
            workers: member.start(),
            member,
            tier,
        })
    }

    /// Ends the member's work; the durable tier gets what it lacks for at most so long.
    pub(super) async fn leave(self, limit: Duration) {
        if let Some(tier) = &self.tier {
            if tier.bucket().is_reachable() {
                let left = tier.drain(limit).await.left;
                if left.dirty > 0 {
                    let records = output::counted(left.dirty, "record", "records");
                    tracing::warn!("{records} not in the durable tier yet; the next start goes on");
                }
            }
            tier.stop().await;
        }
        drop(self.workers);
    }
}

/// The rings that come, as a member wants them.
async fn follow(mut seen: tokio::sync::watch::Receiver<Arc<Document>>) -> Arc<Rings> {
    let rings = Arc::new(Rings::default());
    let first = Document::clone(&seen.borrow_and_update());
    rings.adopt(first).await;
    let following = Arc::downgrade(&rings);
    task::spawn("ring of the node", async move {
        while seen.changed().await.is_ok() {
            let Some(rings) = following.upgrade() else {
                return;
            };
            let document = Document::clone(&seen.borrow_and_update());
            rings.adopt(document).await;
        }
    });
    rings
}
