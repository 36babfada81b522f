//! The durable tier, as a member of a cluster sees it: S3 on one side, the ring on the other.
//!
//! Not here: what the tier does (`zimcache_tier`), and what a member asks of it (`zimcache_member`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_config::S3Config;
use zimcache_link::{Body, Error as LinkError, Found, Peer, Presence, Result as LinkResult};
use zimcache_member::{DurableTier, Peers, Rings, point};
use zimcache_store::{ByteRange, Pins, RecordKey, RecordKind, Replica, Retention, Version};
use zimcache_telemetry::task;
use zimcache_tier::{
    Bucket, BucketSettings, Fill, Filled, Owners, SweepOptions, Tier, TierParts, TierSettings,
};
use zimcache_types::{Clock, Namespace, Timestamp};

use crate::error::{Error, Result};

/// What the tier is started with.
pub(super) struct Parts {
    pub(super) id: Box<str>,
    pub(super) replica: Arc<dyn Replica>,
    pub(super) rings: Arc<Rings>,
    pub(super) peers: Peers,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) seed: u64,
}

/// Starts the tier that the settings name; `None` when they name none. Call it on the runtime.
pub(super) async fn start(config: &S3Config, parts: Parts) -> Result<Option<Arc<Tier>>> {
    let Some(settings) = bucket_settings(config) else {
        return Ok(None);
    };
    let bucket = Bucket::connect(settings, Arc::clone(&parts.clock), parts.seed)
        .await
        .map_err(Error::Tier)?;
    let owners = ByRing {
        id: parts.id,
        rings: Arc::clone(&parts.rings),
        peers: parts.peers,
    };
    let tier = Tier::start(
        TierSettings::default(),
        TierParts {
            bucket,
            replica: parts.replica,
            owners: Arc::new(owners),
            clock: parts.clock,
            seed: parts.seed,
        },
    );
    let tier = Arc::new(tier);
    let (following, mut changes) = (Arc::downgrade(&tier), parts.rings.watch());
    task::spawn("ring of the durable tier", async move {
        while changes.changed().await.is_ok() {
            let Some(tier) = following.upgrade() else {
                return;
            };
            tier.ring_changed();
        }
    });
    Ok(Some(tier))
}

fn bucket_settings(config: &S3Config) -> Option<BucketSettings> {
    Some(BucketSettings {
        bucket: config.bucket.as_deref()?.into(),
        endpoint: config.endpoint.as_deref().map(Into::into),
        region: config.region.as_deref().map(Into::into),
        prefix: config.prefix.as_str().into(),
        path_style: config.is_path_style(),
        create_bucket: config.create_bucket,
        ca_file: config.ca_file.clone(),
        ttl: (!config.ttl.is_zero()).then_some(config.ttl),
        ..BucketSettings::default()
    })
}

/// Who is responsible for a record, by the ring.
struct ByRing {
    id: Box<str>,
    rings: Arc<Rings>,
    peers: Peers,
}

impl std::fmt::Debug for ByRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByRing")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Owners for ByRing {
    fn owns(&self, key: &RecordKey) -> bool {
        let Some(ring) = self.rings.get() else {
            return false;
        };
        let me = ring.find(&self.id);
        me.is_some_and(|me| ring.owns(me, point(key)))
    }

    fn is_first_owner(&self, key: &RecordKey) -> bool {
        let Some(ring) = self.rings.get() else {
            return false;
        };
        let owners = ring.owners(point(key)).iter();
        let first = owners
            .copied()
            .find(|node| !ring.member(*node).state.is_gone());
        first.is_some() && first == ring.find(&self.id)
    }

    async fn settled(&self, records: &[(RecordKey, Version)]) {
        let Some(ring) = self.rings.get() else { return };
        let me = ring.find(&self.id);
        let mut by_owner = std::collections::BTreeMap::<_, Vec<_>>::new();
        for record in records {
            let owners = ring.read_set(point(&record.0)).iter();
            for owner in owners.filter(|owner| Some(*owner) != me) {
                by_owner.entry(owner).or_default().push(record.clone());
            }
        }
        let told = by_owner.into_iter().filter_map(|(owner, records)| {
            let address = ring.member(owner).address.as_deref()?;
            let peer: Arc<dyn Peer> = (self.peers)(address);
            Some(async move {
                if let Err(error) = peer.settle(records, DIRTY).await {
                    tracing::debug!(%error, "another owner does not know what the bucket has");
                }
            })
        });
        futures_util::future::join_all(told).await;
    }
}

const DIRTY: Pins = Pins {
    dirty: true,
    hint: false,
};

/// The tier of a member.
#[derive(Debug)]
pub(super) struct OfMember {
    pub(super) tier: Arc<Tier>,
    /// What is past its time on the nodes is not brought back from the bucket.
    pub(super) retention: Retention,
    pub(super) clock: Arc<dyn Clock>,
}

impl OfMember {
    fn is_past_its_time(&self, key: &RecordKey, created: Timestamp) -> bool {
        let ttl = self.retention.ttl(&key.namespace);
        let is_entry = matches!(key.kind, RecordKind::Entry(_));
        is_entry && ttl.is_some_and(|ttl| self.clock.now().since(created) >= ttl)
    }
}

fn failed(error: zimcache_tier::Error) -> LinkError {
    LinkError::Refused {
        code: error.code(),
        message: error.to_string().into(),
    }
}

#[async_trait]
impl DurableTier for OfMember {
    async fn fill(&self, key: &RecordKey, range: ByteRange) -> LinkResult<Found> {
        Ok(match self.tier.fill(key, range).await.map_err(failed)? {
            Fill::Found(filled) if self.is_past_its_time(key, filled.created) => {
                Found::No(Presence::Absent)
            }
            Fill::Found(filled) => Found::Yes {
                head: filled.head.clone(),
                created: filled.created,
                pins: Pins::default(),
                total_bytes: filled.total_bytes,
                is_unsure: false,
                body: Box::new(FromBucket(filled)),
            },
            Fill::Absent => Found::No(Presence::Absent),
            Fill::Unknown => Found::No(Presence::Unknown),
        })
    }

    fn may_hold(&self, keys: &[&RecordKey]) -> Vec<bool> {
        self.tier.may_hold(keys)
    }

    async fn holds(&self, key: &RecordKey) -> LinkResult<bool> {
        self.tier.holds(key).await.map_err(failed)
    }

    async fn delete(&self, key: &RecordKey) -> LinkResult<()> {
        self.tier.delete(key).await.map_err(failed)
    }

    async fn purge(&self, namespace: &Namespace) -> LinkResult<()> {
        self.tier.purge(namespace).await.map(drop).map_err(failed)
    }

    async fn sweep(&self, dry_run: bool) -> LinkResult<(u64, u64)> {
        let swept = self
            .tier
            .sweep(SweepOptions { dry_run })
            .await
            .map_err(failed)?;
        Ok((swept.removed, swept.removed_bytes))
    }

    fn touched(&self, key: &RecordKey) {
        self.tier.touched(key);
    }

    fn learn(&self, keys: &[RecordKey]) {
        self.tier.learn(keys);
    }

    fn is_reachable(&self) -> bool {
        self.tier.bucket().is_reachable()
    }
}

/// A value on its way out of the bucket.
#[derive(Debug)]
struct FromBucket(Filled);

#[async_trait]
impl Body for FromBucket {
    async fn next(&mut self) -> Option<LinkResult<Bytes>> {
        let chunk = self.0.next_chunk().await?;
        Some(chunk.map_err(failed))
    }
}
