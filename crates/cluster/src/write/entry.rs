//! An entry being written to the cluster, under a version minted here.
//!
//! A value up to [`crate::Config::kept_bytes`] waits for its end and is sent whole, so that it can be sent again under a
//! higher version when an owner holds one. A larger one streams, after the owners were asked for the version they hold:
//! a higher one at its end is that of a put that went on at the same time, and wins. Deletions are versions that every
//! owner has to sync.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{
    ByteRange, EntryMeta, EntryWriter, Error, Precondition, RecordHead, RecordKey, RecordOptions,
    Result, Version,
};
use zimcache_types::EntryKey;

use super::{
    commit::{Commit, Committed, Copy},
    fan::{Fan, Order, no_node, owners_and_stand_ins},
    fetch::Value,
    quorum::Quorum,
};
use crate::{
    config::Durability,
    entries::identity,
    node::{store_error, unavailable},
    search::{Findings, Wanted, search},
    shared::{Shared, under_the_newest_ring, until_all_can},
    view::Plan,
};

/// How often a version that is too low is raised.
const ATTEMPTS: usize = 4;

/// An entry being written.
pub(crate) struct EntryPut {
    put: Put,
    /// A large value on its way.
    streaming: Option<(Version, Fan)>,
}

/// What is to be put, and the value while it waits for its end.
struct Put {
    shared: Arc<Shared>,
    key: RecordKey,
    text: Box<str>,
    meta: EntryMeta,
    precondition: Precondition,
    limit: u64,
    bytes: u64,
    waiting: Vec<Bytes>,
}

impl std::fmt::Debug for EntryPut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryPut")
            .field("key", &self.put.key)
            .finish_non_exhaustive()
    }
}

impl EntryPut {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: &EntryKey,
        meta: EntryMeta,
        precondition: Precondition,
        limit_bytes: Option<u64>,
    ) -> EntryPut {
        let put = Put {
            shared,
            key: RecordKey::entry(key),
            text: key.text.clone(),
            meta,
            precondition,
            limit: limit_bytes.unwrap_or(u64::MAX),
            bytes: 0,
            waiting: Vec::new(),
        };
        EntryPut {
            put,
            streaming: None,
        }
    }
}

impl Put {
    fn order(&self, version: Version, size_bytes: Option<u64>) -> Order {
        Order {
            key: self.key.clone(),
            head: RecordHead {
                text: self.text.clone(),
                meta: self.meta.clone(),
                version,
                deleted: false,
            },
            options: RecordOptions {
                size_bytes,
                limit_bytes: Some(self.limit),
                precondition: self.precondition,
                ..RecordOptions::default()
            },
        }
    }

    /// Starts to send a value to those who are to have it, or to the one who decides.
    async fn open(&self, order: Order) -> zimcache_link::Result<Fan> {
        let plan = self.shared.plan(&self.key);
        let (owners, stand_ins) = match self.precondition {
            Precondition::None => owners_and_stand_ins(&plan),
            Precondition::Absent => (vec![&plan.candidates[plan.decider]], Vec::new()),
        };
        let shared = Arc::clone(&self.shared);
        Fan::open(shared, order, plan.epoch, owners, stand_ins).await
    }

    /// Stops waiting for the end of a large value.
    async fn start_streaming(&mut self) -> Result<(Version, Fan)> {
        observe_held(&self.shared, &self.key).await?;
        let version = self.shared.minter.mint();
        let order = self.order(version, None);
        let opened = under_the_newest_ring(&self.shared, || self.open(order.clone())).await;
        let mut fan = opened.map_err(store_error)?;
        for chunk in self.waiting.drain(..) {
            fan.write(chunk).await.map_err(store_error)?;
        }
        Ok((version, fan))
    }

    /// Sends a small value whole; whether an owner holds a higher version, in which case nothing has changed. That a
    /// ring is too old is known at the end: a node far away says nothing before.
    async fn send_whole(&self, version: Version) -> Result<Committed> {
        let order = self.order(version, Some(self.bytes));
        let sent = under_the_newest_ring(&self.shared, || async {
            let mut fan = self.open(order.clone()).await?;
            for chunk in &self.waiting {
                fan.write(chunk.clone()).await?;
            }
            fan.commit(self.how()).await
        });
        sent.await.map_err(store_error)
    }

    fn how(&self) -> Commit {
        let is_local = self.shared.durability_of(&self.key.namespace) == Durability::Local;
        let goes_to_all = self.precondition == Precondition::None;
        Commit {
            is_hinted: is_local && self.shared.plan(&self.key).replicas > 1,
            is_first_enough: is_local && goes_to_all,
        }
    }

    /// Makes sure of the copies of what was committed; a higher version that a node turned out to hold.
    async fn finish(&self, version: Version, mut committed: Committed) -> Result<Option<Version>> {
        if self.precondition == Precondition::Absent {
            self.spread(&mut committed.copies).await;
        }
        let value = Value {
            shared: &self.shared,
            key: &self.key,
            size_bytes: committed.size_bytes,
            version: Some(version),
        };
        Quorum::new(value, committed).reach().await
    }

    /// Lets the other owners fetch what the deciding one has taken.
    async fn spread(&self, copies: &mut Vec<Copy>) {
        let Some(decider) = copies.first().cloned() else {
            return;
        };
        let plan = self.shared.plan(&self.key);
        let (owners, _) = owners_and_stand_ins(&plan);
        let others = owners
            .into_iter()
            .filter(|it| it.is_usable() && !Arc::ptr_eq(&it.node, &decider.node));
        let pulls = others.map(|owner| async {
            let pins = zimcache_store::Pins::default();
            let pulled = self
                .shared
                .pull(&owner.node, &decider.node, &self.key, self.bytes, pins);
            pulled.await.then(|| Copy {
                node: Arc::clone(&owner.node),
                is_hinted: false,
            })
        });
        copies.extend(
            futures_util::future::join_all(pulls)
                .await
                .into_iter()
                .flatten(),
        );
    }
}

#[async_trait]
impl EntryWriter for EntryPut {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let EntryPut { put, streaming } = self;
        put.bytes += chunk.len() as u64;
        if put.bytes > put.limit {
            return Err(Error::TooLarge { limit: put.limit });
        }
        if let Some((_, fan)) = streaming {
            return fan.write(chunk).await.map_err(store_error);
        }
        put.waiting.push(chunk);
        if put.bytes > put.shared.config.kept_bytes as u64 {
            *streaming = Some(put.start_streaming().await?);
        }
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<u64> {
        let EntryPut { put, streaming } = *self;
        if let Some((version, fan)) = streaming {
            let committed = fan.commit(put.how()).await.map_err(store_error)?;
            put.finish(version, committed).await?;
            return Ok(identity(version));
        }
        for _ in 0..ATTEMPTS {
            let version = put.shared.minter.mint();
            let committed = put.send_whole(version).await?;
            let higher = match superseded_by(&committed, version) {
                Some(higher) => higher,
                None => match put.finish(version, committed).await? {
                    None => return Ok(identity(version)),
                    // It is there now, which is no reason to refuse it.
                    Some(_) if put.precondition == Precondition::Absent => break,
                    Some(higher) => higher,
                },
            };
            put.shared.observe(higher)?;
        }
        Err(Error::Retry("others write the same entry"))
    }
}

/// The higher version that a node holds.
fn superseded_by(committed: &Committed, version: Version) -> Option<Version> {
    let held = committed.written.map(|written| written.version);
    held.filter(|held| *held > version)
}

/// What the nodes have under a key.
async fn look(shared: &Shared, key: &RecordKey) -> zimcache_link::Result<Findings> {
    let wanted = Wanted {
        key,
        range: ByteRange::Full,
        hedge: shared.latency.hedge_after(),
    };
    search(shared, wanted).await
}

/// Takes note of the version that the owners hold.
async fn observe_held(shared: &Shared, key: &RecordKey) -> Result<()> {
    let findings = look(shared, key).await.map_err(store_error)?;
    let mut versions = findings.hits.iter().map(|hit| hit.head.version);
    versions.try_for_each(|version| shared.observe(version))
}

/// Deletes an entry on every owner of every open placement; whether there was one.
///
/// # Errors
/// `Unavailable` when one of them stays away: the entry may come back until a deletion succeeded.
pub(crate) async fn delete(shared: &Arc<Shared>, key: &EntryKey) -> Result<bool> {
    let record = RecordKey::entry(key);
    let findings = until_all_can(|| async { look(shared, &record).await.map_err(store_error) });
    let findings = findings.await?;
    let is_needed = !findings.hits.is_empty() || !findings.is_proven(false);
    let newest = findings.hits.iter().max_by_key(|hit| hit.head.version);
    let was_there = newest.is_some_and(|hit| !hit.head.deleted);
    for hit in &findings.hits {
        shared.observe(hit.head.version)?;
    }
    drop(findings);
    if !is_needed {
        return Ok(false);
    }
    until_all_can(|| delete_on_all(shared, &record, &key.text)).await?;
    Ok(was_there)
}

async fn delete_on_all(shared: &Arc<Shared>, key: &RecordKey, text: &str) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let version = shared.minter.mint();
        let committed = write_deletion(shared, key, text, version).await?;
        let has_all = is_on_all_owners(&shared.plan(key), &committed.copies);
        match superseded_by(&committed, version) {
            Some(higher) => shared.observe(higher)?,
            None if has_all => return Ok(()),
            None => {}
        }
    }
    Err(unavailable(
        "not every owner of the entry can be reached to delete it",
    ))
}

async fn write_deletion(
    shared: &Arc<Shared>,
    key: &RecordKey,
    text: &str,
    version: Version,
) -> Result<Committed> {
    let order = Order {
        key: key.clone(),
        head: RecordHead {
            text: text.into(),
            version,
            deleted: true,
            ..RecordHead::default()
        },
        options: RecordOptions::default(),
    };
    let written = under_the_newest_ring(shared, || async {
        let plan = shared.plan(key);
        let (owners, _) = owners_and_stand_ins(&plan);
        let present = || owners.iter().filter(|owner| !owner.is_gone);
        if present().any(|owner| !owner.is_usable()) {
            return Err(no_node("an owner of the entry cannot be reached"));
        }
        let owners = present().copied().collect();
        let order = order.clone();
        let fan = Fan::open(Arc::clone(shared), order, plan.epoch, owners, Vec::new()).await?;
        if fan.is_incomplete {
            return Err(no_node("an owner of the entry does not take its deletion"));
        }
        // Hinted from the start: if one owner misses it after all, the others deliver it.
        let how = Commit {
            is_hinted: true,
            is_first_enough: false,
        };
        fan.commit(how).await
    });
    written.await.map_err(store_error)
}

fn is_on_all_owners(plan: &Plan, copies: &[Copy]) -> bool {
    let (owners, _) = owners_and_stand_ins(plan);
    let mut present = owners.into_iter().filter(|owner| !owner.is_gone);
    present.all(|owner| {
        copies
            .iter()
            .any(|copy| Arc::ptr_eq(&copy.node, &owner.node))
    })
}
