//! How long records are kept: a time to live for each namespace, and a lifetime that eviction spares.
//!
//! A record's age is the time since its version was given, which moves keep. So reads decide by the record itself, and
//! the index needs nothing; questions answered from RAM use the ages of a segment's oldest and newest record and look
//! at the disk only in between. What has expired leaves the index in the background, segment by segment.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::RwLock;
use zimcache_store::{Result, Retention};

use super::{
    record::Header,
    segment::{Class, Segment, State},
    shared::Shared,
    slot::View,
    verdict::{Emptied, Mode, Spare, Verdict},
};

/// No time to live.
const FOREVER: u64 = u64::MAX;
/// Share of the capacity that records below their minimum lifetime may hold before the oldest of them lose it.
const YOUNG_PERCENT: u64 = 60;
/// When what is past its time but under a lease is looked at again, in milliseconds.
const LEASED_AGAIN_MILLIS: u64 = 10 * 60 * 1000;

/// When a record was put, in milliseconds since 1970.
pub(crate) const fn put_millis(version: u64) -> u64 {
    version >> 16
}

/// The first version of a moment.
pub(crate) const fn version_at(millis: u64) -> u64 {
    millis << 16
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Keeping {
    retention: RwLock<Retention>,
    /// Whether anything expires at all.
    expires: AtomicBool,
    default_ttl: AtomicU64,
    /// Times to live of namespaces that have their own, by number.
    own_ttls: RwLock<HashMap<u32, u64>>,
    /// The shortest of all.
    shortest_ttl: AtomicU64,
    /// Records put at this time or later are spared by eviction.
    young_since: AtomicU64,
    /// Changes with every change of the rules.
    pub(crate) edition: AtomicU64,
}

impl Default for Keeping {
    fn default() -> Self {
        Keeping {
            retention: RwLock::default(),
            expires: AtomicBool::new(false),
            default_ttl: AtomicU64::new(FOREVER),
            own_ttls: RwLock::default(),
            shortest_ttl: AtomicU64::new(FOREVER),
            young_since: AtomicU64::new(u64::MAX),
            edition: AtomicU64::new(0),
        }
    }
}

impl Keeping {
    /// Whether anything of a namespace can expire.
    pub(crate) fn expires(&self, namespace: u32) -> bool {
        self.ttl_millis(namespace).is_some()
    }

    /// How long records of a namespace are served, in milliseconds; `None`: as long as they fit.
    fn ttl_millis(&self, namespace: u32) -> Option<u64> {
        if !self.expires.load(Relaxed) {
            return None;
        }
        let own = self.own_ttls.read().get(&namespace).copied();
        let ttl = own.unwrap_or_else(|| self.default_ttl.load(Relaxed));
        (ttl != FOREVER).then_some(ttl)
    }
}

/// What a segment tells of the age of a record in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    Expired,
    /// Only the record itself tells.
    Unknown,
}

impl Shared {
    /// Sets the rules, from now on.
    pub(crate) fn set_retention(&self, retention: Retention) {
        *self.keeping.retention.write() = retention;
        self.apply_retention();
        self.wake_maintenance();
    }

    /// Brings the rules into the form reads use; called again when a namespace gets a number.
    pub(crate) fn apply_retention(&self) {
        let keeping = &self.keeping;
        let retention = keeping.retention.read();
        let default_ttl = retention.default_ttl.map_or(FOREVER, millis);
        let names = self.namespaces.read();
        let own: HashMap<u32, u64> = retention
            .namespaces
            .iter()
            .filter_map(|(name, ttl)| Some((*names.get(name)?, ttl.map_or(FOREVER, millis))))
            .collect();
        let shortest = own.values().copied().fold(default_ttl, u64::min);
        keeping.default_ttl.store(default_ttl, Relaxed);
        *keeping.own_ttls.write() = own;
        keeping.shortest_ttl.store(shortest, Relaxed);
        keeping.expires.store(shortest != FOREVER, Relaxed);
        keeping.edition.fetch_add(1, Relaxed);
    }

    /// Whether the time of a record with this version is over.
    pub(crate) fn has_expired(&self, namespace: u32, version: u64) -> bool {
        let ttl = self.keeping.ttl_millis(namespace);
        ttl.is_some_and(|ttl| self.age_millis(version) >= ttl)
    }

    /// Whether so much of a record's time is over that putting it again should count anew.
    pub(crate) fn has_half_expired(&self, namespace: u32, version: u64) -> bool {
        let ttl = self.keeping.ttl_millis(namespace);
        ttl.is_some_and(|ttl| self.age_millis(version) >= ttl / 2)
    }

    /// Whether a record that was found is no longer served. A lease outlives retention.
    pub(crate) fn is_over(&self, header: &Header, view: &View) -> bool {
        self.has_expired(header.namespace, header.version) && !self.is_leased(view)
    }

    fn age_millis(&self, version: u64) -> u64 {
        self.clock.now().0.saturating_sub(put_millis(version))
    }

    /// What is known of a slot's age without reading its record.
    pub(crate) fn age_of(&self, namespace: u32, view: &View) -> Age {
        let Some(ttl) = self.keeping.ttl_millis(namespace) else {
            return Age::Fresh;
        };
        let Some(segment) = self.segments.get(view.location.segment) else {
            return Age::Unknown;
        };
        let now = self.clock.now().0;
        let over = |millis: u64| now.saturating_sub(millis) >= ttl;
        match segment.ages() {
            (oldest, _) if !over(oldest) => Age::Fresh,
            (_, newest) if over(newest) => Age::Expired,
            _ => Age::Unknown,
        }
    }

    /// Whether eviction spares a record put at this time.
    pub(crate) fn is_young(&self, version: u64) -> bool {
        put_millis(version) >= self.keeping.young_since.load(Relaxed)
    }

    /// Decides from when on records are spared. They may fill [`YOUNG_PERCENT`] of the store; what is beyond that,
    /// oldest first, is evicted like anything else, so that writes always find room. `none_holds`: nothing is spared.
    pub(crate) fn survey_lifetimes(&self, none_holds: bool) {
        let lifetime = millis(self.keeping.retention.read().min_lifetime);
        if lifetime == 0 || none_holds {
            self.keeping.young_since.store(u64::MAX, Relaxed);
            return;
        }
        let now = self.clock.now().0;
        let mut since = now.saturating_sub(lifetime).saturating_add(1);
        let mut segments = self.segments.all();
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.ages().1));
        let (_, limit) = self.space.files_and_limit();
        let most = limit as u64 * self.geometry.segment_bytes * YOUNG_PERCENT / 100;
        let mut held = 0;
        for segment in segments {
            held += segment.live_bytes();
            let (_, newest) = segment.ages();
            if held > most && newest >= since {
                since = newest.saturating_add(1);
                tracing::debug!(since, "more is young than the store can spare");
                break;
            }
        }
        self.keeping.young_since.store(since, Relaxed);
    }

    /// Removes what has expired from the index, and gives back segments in which nothing is left.
    pub(crate) fn expire(&self) {
        if !self.keeping.expires.load(Relaxed) {
            return;
        }
        let shortest = self.keeping.shortest_ttl.load(Relaxed);
        for segment in self.segments.all() {
            let now = self.clock.now().0;
            let (oldest, _) = segment.ages();
            let due = now.saturating_sub(oldest) >= shortest
                && now >= segment.next_expiry(self.keeping.edition.load(Relaxed));
            if !due || segment.state() == State::Open || self.stopping.load(Relaxed) {
                continue;
            }
            let _one_at_a_time = self.reclaiming.lock();
            if let Err(error) = self.expire_segment(&segment) {
                tracing::warn!(%error, "expired records could not be removed; trying again soon");
            }
        }
    }

    fn expire_segment(&self, segment: &Arc<Segment>) -> Result<()> {
        let edition = self.keeping.edition.load(Relaxed);
        let now = self.clock.now().0;
        let (mut emptied, mut next) = (Emptied::default(), u64::MAX);
        for (hash, view, header) in self.live_rows(segment)? {
            if self.judge(segment, &view, &header, Mode::Compact) == Verdict::Expired {
                self.remove_expired(hash, view, &header, Spare::Leased, &mut emptied);
                continue;
            }
            let ttl = self.keeping.ttl_millis(header.namespace).unwrap_or(FOREVER);
            let over = put_millis(header.version).saturating_add(ttl);
            let later = now.saturating_add(LEASED_AGAIN_MILLIS);
            next = next.min(if over > now { over } else { later });
        }
        segment.set_next_expiry(next, edition);
        let in_turn = segment.class != Class::Entries || self.first_entries() == Some(segment.id);
        let reclaimable = self.reclaimable().any(|other| other.id == segment.id);
        if emptied.expired_records > 0 && segment.live_bytes() == 0 && in_turn && reclaimable {
            self.empty(segment, Mode::Compact)?;
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(FOREVER)
}
