//! What a member that comes back is owed: hints, and everything it owns when its disk is a new one.
//!
//! The store that each member had when it last got all is remembered durably, so that a restart of ours does not hide
//! a new disk of its. Invariant: a store is remembered only after every record its member owns was taken by it.

use std::sync::Arc;

use zimcache_ring::Ring;
use zimcache_store::{RecordInfo, Walk};
use zimcache_telemetry::task;

use crate::{copies::Copy, member::Inner};

impl Inner {
    /// Whether a member that has this store lacks nothing that is here. What it lacks is on its way then.
    pub(crate) async fn owes_nothing(self: &Arc<Self>, member: &str, store: [u8; 16]) -> bool {
        self.learn_store(member, store);
        let Some(ring) = self.parts.rings.get() else {
            return false;
        };
        if self.parts.notes.store_of(member) != Some(store) {
            self.begin_refill(member, store);
            return false;
        }
        self.hints_wanted.notify_one();
        match self.holds_hints_for(&ring, member).await {
            Ok(holds) => !holds,
            Err(error) => {
                tracing::warn!(%error, member, "cannot tell what a member lacks");
                false
            }
        }
    }

    fn learn_store(&self, member: &str, store: [u8; 16]) {
        let mut others = self.others.lock();
        let other = others.entry(member.into()).or_default();
        if other.store != Some(store) {
            other.store = Some(store);
            other.delivered.clear();
        }
    }

    /// Starts to give a member what it owns, unless that is under way.
    fn begin_refill(self: &Arc<Self>, member: &str, store: [u8; 16]) {
        let mut others = self.others.lock();
        let other = others.entry(member.into()).or_default();
        if other
            .refill
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        let (this, member) = (Arc::clone(self), Box::<str>::from(member));
        let work = async move { this.refill(&member, store).await };
        other.refill = Some(task::spawn("refill", work));
    }

    async fn refill(&self, member: &str, store: [u8; 16]) {
        let Some(ring) = self.parts.rings.get() else {
            return;
        };
        match self.give_all(&ring, member).await {
            // It asks again, and then it is tried again.
            Ok(false) => tracing::debug!(member, "a member did not take all it owns"),
            Ok(true) => {
                let is_same = |other: &crate::member::Other| other.store == Some(store);
                if !self.others.lock().get(member).is_some_and(is_same) {
                    return;
                }
                if let Err(error) = self.parts.notes.remember(member, store).await {
                    tracing::warn!(%error, "a member's store cannot be remembered");
                }
            }
            Err(error) => tracing::warn!(%error, member, "a member cannot be given what it owns"),
        }
    }

    /// Has a member pull everything it owns; whether it holds all of it now.
    async fn give_all(&self, ring: &Ring, member: &str) -> zimcache_store::Result<bool> {
        let mut after = None;
        loop {
            let (records, next) = self.walk(Walk::All, after).await?;
            let owned = records
                .into_iter()
                .filter_map(|record| self.to(ring, member, record));
            let mut copies: Vec<Copy> = owned.collect();
            let bytes = copies.iter().map(|copy| copy.record.size_bytes).sum();
            self.throttle.take(bytes).await;
            self.copy(ring, &mut copies).await;
            let taken = copies.iter().map(|copy| copy.holders.len());
            self.counters.refilled(taken.sum());
            if !copies.iter().all(Copy::is_done) {
                return Ok(false);
            }
            match next {
                Some(mark) => after = Some(mark),
                None => return Ok(true),
            }
        }
    }

    /// The copy of a record to a member, if the member owns it.
    fn to(&self, ring: &Ring, member: &str, record: RecordInfo) -> Option<Copy> {
        let mut owners = self.other_owners(ring, &record);
        owners.retain(|node| ring.member(*node).id == member);
        (!owners.is_empty()).then(|| Copy::new(record, owners))
    }
}
