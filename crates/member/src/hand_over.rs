//! At a ring change: gives what this node no longer owns to those who do, and what a lost owner held to its successor.
//!
//! Pinned records and deletions go first. With a durable tier, what is in it and has not been used lately stays where it
//! is: its owners fill themselves. Invariant: `synced_epoch` moves only after every such record was taken by all its
//! owners, those included that this node lost with its disk and is still being given back.

use std::sync::atomic::Ordering;

use tokio::time::{sleep, timeout};
use zimcache_ring::{NodeIx, Ring};
use zimcache_store::{Pins, RecordInfo, Result, Walk};

use crate::{copies::Copy, member::Inner, rings::is_lost};

impl Inner {
    /// Hands over for every new placement, and again until it succeeded; never ends.
    pub(crate) async fn hand_over_forever(&self) {
        let mut changes = self.parts.rings.watch();
        loop {
            let ring = self.parts.rings.get();
            let may = |ring: &Ring| self.is_behind(ring) && !self.is_unsure();
            if let Some(ring) = ring.filter(may) {
                match self.hand_over(&ring).await {
                    Ok(true) => {
                        let epoch = ring.document().published_epoch();
                        self.synced_epoch.fetch_max(epoch, Ordering::AcqRel);
                        tracing::info!(epoch, "all that others own was handed over");
                    }
                    Ok(false) => sleep(self.parts.settings.retry).await,
                    Err(error) => {
                        tracing::warn!(%error, "records cannot be handed over");
                        sleep(self.parts.settings.retry).await;
                    }
                }
                continue;
            }
            let changed = async {
                tokio::select! {
                    // The sender is as old as this member.
                    changed = changes.changed() => drop(changed),
                    () = self.hand_over_wanted.notified() => {}
                }
            };
            // A member declared lost changes no placement.
            timeout(self.parts.settings.retry, changed).await.ok();
        }
    }

    /// Whether a placement waits for this node.
    fn is_behind(&self, ring: &Ring) -> bool {
        let synced = self.synced_epoch.load(Ordering::Acquire);
        self.me(ring).is_some() && ring.document().published_epoch() > synced
    }

    /// One round over everything; whether all was taken, and the ring is still the same.
    async fn hand_over(&self, ring: &Ring) -> Result<bool> {
        let mut taken = true;
        for which in [Walk::Hinted, Walk::Dirty, Walk::All] {
            let mut after = None;
            loop {
                let (records, next) = self.walk(which, after).await?;
                taken &= self.hand_over_page(ring, which, records).await;
                if self.parts.rings.epoch() != ring.epoch() {
                    return Ok(false);
                }
                match next {
                    Some(mark) => after = Some(mark),
                    None => break,
                }
            }
        }
        Ok(taken)
    }

    async fn hand_over_page(&self, ring: &Ring, which: Walk, records: Vec<RecordInfo>) -> bool {
        let pinned = |pins| pins != Pins::default();
        // Walked before.
        let fresh = |record: &RecordInfo| which != Walk::All || !pinned(record.pins);
        let wanted = records
            .into_iter()
            .filter(|record| fresh(record) && self.is_wanted(record));
        let copies = wanted.map(|record| {
            let targets = self.new_owners(ring, &record);
            Copy::new(record, targets)
        });
        let mut copies: Vec<Copy> = copies.filter(|copy| !copy.targets.is_empty()).collect();
        let bytes = copies
            .iter()
            .map(|copy| copy.record.size_bytes * copy.targets.len() as u64);
        self.throttle.take(bytes.sum()).await;
        self.copy(ring, &mut copies).await;
        let taken = copies.iter().map(|copy| copy.holders.len());
        self.counters.handed_over(taken.sum());
        copies.iter().all(Copy::is_done)
    }

    /// Whether a record has to be on its new owners before the old placement is closed.
    fn is_wanted(&self, record: &RecordInfo) -> bool {
        let idle = self.parts.clock.now().since(record.used);
        self.parts.tier.is_none()
            || record.deleted
            || record.pins != Pins::default()
            || idle <= self.parts.settings.hand_over_used_within
    }

    /// Who has to be given a record by this node: all owners when it is none of them, else those that a lost owner
    /// would have served.
    fn new_owners(&self, ring: &Ring, record: &RecordInfo) -> Vec<NodeIx> {
        let point = crate::point(&record.key);
        let me = ring.find(&self.parts.id);
        let mut owners = ring.owners(point).to_vec();
        owners.retain(|node| Some(*node) != me && !ring.member(*node).state.is_gone());
        if !me.is_some_and(|me| ring.owns(me, point)) {
            return owners;
        }
        let before = ring
            .previous(point)
            .map_or(&[][..], |previous| previous.owners);
        if !before.iter().any(|node| is_lost(ring, *node)) {
            return Vec::new();
        }
        owners.retain(|node| !before.contains(node));
        owners
    }
}
