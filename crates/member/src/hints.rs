//! Works off the records that another owner may lack.
//!
//! A hint names no target: whoever owns the record now gets it, and when all do the hint is settled. Invariant: what a
//! member was given is forgotten when it says that it has another store.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use zimcache_ring::Ring;
use zimcache_store::{Pins, RecordInfo, Result, Walk};

use crate::{copies::Copy, member::Inner};

/// The least between two rounds: what is hinted meanwhile goes in one.
const PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    /// Delivers whenever there is something, and again until it succeeded; never ends.
    pub(crate) async fn deliver_hints_forever(&self) {
        loop {
            // Wanted by the store, by a member that came back, or because the last round did not do it all.
            let wanted = async {
                tokio::select! {
                    () = self.parts.replica.pinned_more() => {}
                    () = self.hints_wanted.notified() => {}
                }
            };
            timeout(self.parts.settings.retry, wanted).await.ok();
            sleep(PAUSE).await;
            let Some(ring) = self.parts.rings.get() else {
                continue;
            };
            if self.parts.replica.pinned().hints == 0 {
                continue;
            }
            if let Err(error) = self.deliver_hints(&ring).await {
                tracing::warn!(%error, "hints cannot be delivered");
            }
        }
    }

    /// One round over everything that is hinted.
    pub(crate) async fn deliver_hints(&self, ring: &Ring) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.walk(Walk::Hinted, after).await?;
            self.deliver_page(ring, page.0).await?;
            match page.1 {
                Some(mark) => after = Some(mark),
                None => return Ok(()),
            }
        }
    }

    async fn deliver_page(&self, ring: &Ring, records: Vec<RecordInfo>) -> Result<()> {
        let before = self.stores(ring);
        let copies = records.into_iter().map(|record| {
            let mut targets = self.other_owners(ring, &record);
            targets.retain(|node| !self.is_delivered(&ring.member(*node).id, &record));
            Copy::new(record, targets)
        });
        let mut copies: Vec<Copy> = copies.collect();
        self.copy(ring, &mut copies).await;
        let mut settled = Vec::new();
        for copy in &copies {
            let name = (copy.record.key.clone(), copy.record.version);
            if copy.is_done() && self.is_held_by_an_owner(ring, &copy.record) {
                settled.push(name);
                continue;
            }
            for node in &copy.holders {
                let id = ring.member(*node).id.as_str();
                let mut others = self.others.lock();
                let other = others.entry(id.into()).or_default();
                if before
                    .iter()
                    .any(|(member, store)| &**member == id && *store == other.store)
                {
                    other.delivered.insert(name.clone());
                }
            }
        }
        if settled.is_empty() {
            return Ok(());
        }
        let hint = Pins {
            dirty: false,
            hint: true,
        };
        self.parts.replica.settle(&settled, hint).await?;
        self.counters.hints_delivered(settled.len());
        for other in self.others.lock().values_mut() {
            for name in &settled {
                other.delivered.remove(name);
            }
        }
        Ok(())
    }

    /// Which store each member has, as far as it is known.
    fn stores(&self, ring: &Ring) -> Vec<(Box<str>, Option<[u8; 16]>)> {
        let others = self.others.lock();
        let store = |id: &str| others.get(id).and_then(|other| other.store);
        let ids = ring.members().map(|(_, member)| member.id.as_str());
        ids.map(|id| (id.into(), store(id))).collect()
    }

    fn is_delivered(&self, member: &str, record: &RecordInfo) -> bool {
        let name = (record.key.clone(), record.version);
        let others = self.others.lock();
        others
            .get(member)
            .is_some_and(|other| other.delivered.contains(&name))
    }

    /// Whether any living owner is left: this node, or one that was told.
    fn is_held_by_an_owner(&self, ring: &Ring, record: &RecordInfo) -> bool {
        let point = crate::point(&record.key);
        let me = ring.find(&self.parts.id);
        me.is_some_and(|me| ring.owns(me, point)) || !self.other_owners(ring, record).is_empty()
    }

    /// Whether a record is hinted that a member owns and was not given yet.
    pub(crate) async fn holds_hints_for(&self, ring: &Ring, member: &str) -> Result<bool> {
        let mut after = None;
        loop {
            let page = self.walk(Walk::Hinted, after).await?;
            let is_owed = |record: &RecordInfo| {
                let owners = self.other_owners(ring, record);
                let owns = owners.iter().any(|node| ring.member(*node).id == member);
                owns && !self.is_delivered(member, record)
            };
            if page.0.iter().any(is_owed) {
                return Ok(true);
            }
            match page.1 {
                Some(mark) => after = Some(mark),
                None => return Ok(false),
            }
        }
    }
}
