//! A node of a cluster over an open store: its conduct and its durable tier, started and stopped together.
//!
//! Order of the stop: what is not in the durable tier is brought there as long as the time lasts and the tier answers;
//! then the workers end. What is left is dirty or hinted on the disk, and waits for the next start.

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use zimcache_config::ServeConfig;
use zimcache_gateway::retention_of;
use zimcache_member::{DurableTier, Member, Notes, Parts, Peers, Rings, Settings, Workers};
use zimcache_node::Node;
use zimcache_ring::Document;
use zimcache_telemetry::{metrics::Registry, task};
use zimcache_tier::{SweepOptions, Tier};
use zimcache_types::SystemClock;

use super::{
    durable::{self, OfMember},
    figures,
};
use crate::{
    error::{Error, Result},
    output,
};

/// Beside the store: which stores the other members had when they were last met.
const KNOWN_STORES: &str = "members.json";

/// Between two sweeps of the bucket.
const SWEEP_EVERY: Duration = Duration::from_hours(24);

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
        let retention = retention_of(
            &config.namespaces,
            config.store.retention,
            config.store.min_lifetime,
        );
        node.admin().set_retention(retention.clone());
        let of_member = |tier: &Arc<Tier>| -> Arc<dyn DurableTier> {
            Arc::new(OfMember {
                tier: Arc::clone(tier),
                retention: retention.clone(),
                clock: clock.clone(),
            })
        };
        let member = Member::new(Parts {
            id: id.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            replica: node.replica(),
            blobs: node.blobs(),
            entries: node.entries(),
            admin: node.admin(),
            rings,
            peers,
            clock: clock.clone(),
            tier: tier.as_ref().map(of_member),
            notes: Notes::open(folder.join(KNOWN_STORES)).await?,
            settings: Settings::default(),
        });
        if let Some(tier) = &tier {
            let sweeps = sweep_daily(member.clone(), Arc::downgrade(tier));
            task::spawn("sweeps of the bucket", sweeps);
        }
        Ok(Seat {
            workers: member.start(),
            member,
            tier,
        })
    }

    /// Shows how it stands, and what its durable tier did.
    pub(super) fn show(&self, registry: &Registry) {
        figures::show_node(registry, self.member.clone());
        if let Some(tier) = &self.tier {
            figures::show_tier(registry, Arc::clone(tier));
        }
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

/// Removes from the bucket what nobody used for its whole life, on the node whose task that is.
async fn sweep_daily(member: Member, tier: Weak<Tier>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(tier) = tier.upgrade() else { return };
        if !member.sweeps() {
            continue;
        }
        match tier.sweep(SweepOptions::default()).await {
            Ok(swept) => tracing::info!(
                objects = swept.removed,
                bytes = swept.removed_bytes,
                "the bucket is swept"
            ),
            Err(error) => tracing::warn!(%error, "the bucket could not be swept"),
        }
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
