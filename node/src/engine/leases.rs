//! Leases that outlive the process: "present" is a promise, also across a crash.
//!
//! A blob that is written under a lease says so in its record. A lease that starts later is written down in a *touches*
//! record before the caller hears "present": the time is the record's version, the payload names blobs by shard and
//! fingerprint of their keyed hash, eight bytes each, so it holds wherever they move. In a leased slot the touch is the
//! time of the last lease that is on disk; a use does not change it. A lease is kept for [`LEASE_TICKS`] and renewed only
//! when less than four hours of it would be left, so a blob costs eight bytes on disk every eight hours at most, and
//! nothing while it is asked for again and again. Not here: what leases protect from (`verdict`), and when they end early.

use std::{io, sync::atomic::Ordering::Relaxed};

use bytes::{BufMut as _, BytesMut};
use zimcache_store::{Error, Result};
use zimcache_types::EntryKind;

use super::{
    lane::{Body, Outcome, Rule},
    record::{self, Encoding, Header, Kind, flag},
    retention::put_millis,
    segment::Segment,
    shared::{Key, LEASE_TICKS, LaneId, Shared, TICK_MILLIS, tick_of},
    slot::{KeyHash, Location, View},
};

/// A lease that is no older than this is good for a promise: 4 h are left then.
const GOOD_TICKS: u16 = LEASE_TICKS - 4 * 15;
/// How far ahead of somebody's look at the clock a touch may lie: an hour. Further ahead, it is very old.
const SKEW_TICKS: u16 = 15;
/// Most blobs in one record.
const MOST_NAMES: usize = 8 << 10;
const NAME_BYTES: usize = 8;
/// What the keys of these records begin with; the rest makes each its own.
const KEY_START: &[u8; 16] = b"zimcache touches";

/// Whether a record put at this time no longer keeps any lease.
pub(crate) fn is_over(now_millis: u64, version: u64) -> bool {
    now_millis.saturating_sub(put_millis(version)) >= u64::from(LEASE_TICKS) * TICK_MILLIS
}

/// What leases are worth at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseClock {
    /// The moment, in ticks.
    pub(crate) now: u16,
    /// Leases of this age in ticks or older have ended: [`LEASE_TICKS`], or less while the store is full of them.
    pub(crate) kept: u16,
}

impl LeaseClock {
    /// How many ticks ago a touch was.
    pub(crate) const fn age(self, touch: u16) -> u16 {
        let age = self.now.wrapping_sub(touch);
        if age > u16::MAX - SKEW_TICKS { 0 } else { age }
    }

    /// Whether a slot has a lease that is not over, be it one that ended early.
    pub(crate) const fn is_open(self, view: &View) -> bool {
        view.leased && self.age(view.touch) < LEASE_TICKS
    }

    /// Whether a slot's lease still holds.
    pub(crate) const fn holds(self, view: &View) -> bool {
        view.leased && self.age(view.touch) < self.kept
    }

    /// Whether a slot's lease is good for a promise. While leases end early because they hold too much, what is left of
    /// them is shared out, and one that has just started has to do.
    pub(crate) const fn promises(self, view: &View) -> bool {
        let good = if self.kept >= LEASE_TICKS {
            GOOD_TICKS
        } else {
            self.kept / 2
        };
        let age = self.age(view.touch);
        view.leased && (age == 0 || age < good)
    }
}

impl Shared {
    /// The time by which leases count, in milliseconds: the wall clock, unless the store has written something later. A
    /// machine that starts with its clock hours behind must not take leases for ones from the future.
    pub(crate) fn lease_millis(&self) -> u64 {
        let written = put_millis(self.last_version.load(Relaxed));
        self.clock.now().0.max(written)
    }

    /// What leases are worth now.
    pub(crate) fn lease_clock(&self) -> LeaseClock {
        LeaseClock {
            now: tick_of(self.lease_millis()),
            kept: self.lease_ticks.load(Relaxed),
        }
    }

    /// Whether a slot's lease still holds.
    pub(crate) fn is_leased(&self, view: &View) -> bool {
        self.lease_clock().holds(view)
    }

    /// Whether a blob that is there needs another lease before that is promised.
    pub(crate) fn needs_lease(&self, hash: KeyHash) -> bool {
        let (clock, found) = (self.lease_clock(), self.index.find(hash));
        !found.iter().any(|view| clock.promises(&view))
    }

    /// Leases blobs durably. Tells of each whether it is still there.
    pub(crate) async fn lease(&self, namespace: u32, hashes: &[KeyHash]) -> Result<Vec<bool>> {
        let clock = self.lease_clock();
        let tick = match self.write_touches(namespace, hashes).await {
            Ok(version) => tick_of(put_millis(version)),
            // A store that takes no writes lets nothing go either.
            Err(Error::ReadOnly(_)) => clock.now,
            Err(error) => return Err(error),
        };
        let mut there = vec![false; hashes.len()];
        self.index.find_each(hashes, |number, slot| {
            there[number] |= slot.lease(tick, clock);
        });
        Ok(there)
    }

    /// Says the version of the first record: recovery counts from there.
    async fn write_touches(&self, namespace: u32, hashes: &[KeyHash]) -> Result<u64> {
        let mut sent = Vec::new();
        for names in hashes.chunks(MOST_NAMES) {
            let mut payload = BytesMut::with_capacity(names.len() * NAME_BYTES);
            for hash in names {
                payload.put_u64_le(hash.name());
            }
            let header = self.touches_header(namespace, payload.len());
            let hash = self.hash(&Key::of(&header));
            let body = Body::Pieces(vec![payload.freeze()]);
            let lane = LaneId::Entries;
            sent.push(self.submit(lane, hash, header, body, Rule::Newest).await?);
        }
        let mut first = u64::MAX;
        for outcome in sent {
            if let Outcome::Written(version) = outcome.await.unwrap_or(Err(Error::Stopping))? {
                first = first.min(version);
            }
        }
        Ok(first)
    }

    fn touches_header(&self, namespace: u32, bytes: usize) -> Header {
        let mut key = [0; 32];
        key[..16].copy_from_slice(KEY_START);
        key[16..].copy_from_slice(&self.new_upload_id());
        Header {
            kind: Kind::Entry,
            function: EntryKind::Internal.number(),
            encoding: Encoding::Identity,
            flags: flag::TOUCHES,
            namespace,
            part: 0,
            stored: bytes as u32,
            raw_size: bytes as u64,
            version: 0,
            writer: 0,
            writing: 0,
            key,
        }
    }

    /// Leases what a touches record names, as of its time.
    pub(crate) fn recover_touches(
        &self,
        segment: &Segment,
        location: Location,
        header: &Header,
    ) -> io::Result<()> {
        if is_over(self.lease_millis(), header.version) {
            return Ok(());
        }
        let mut bytes = vec![0; header.record_len()];
        let read = segment.file.read_at(&mut bytes, location.offset)?;
        let record = &bytes[..read];
        let Some(found) = record::open(record, segment.salt, location.offset) else {
            return Ok(());
        };
        if !record::payload_is_sound(record, &found) {
            return Ok(());
        }
        let payload = &record[found.payload_offset()..][..found.stored as usize];
        let names = payload.chunks_exact(NAME_BYTES);
        let hashes: Vec<KeyHash> = names
            .filter_map(|name| name.try_into().ok())
            .map(|name| KeyHash::from_name(u64::from_le_bytes(name)))
            .collect();
        let (tick, clock) = (tick_of(put_millis(header.version)), self.lease_clock());
        self.index.find_each(&hashes, |_, slot| {
            slot.lease(tick, clock);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slot;

    const fn at(now: u16) -> LeaseClock {
        LeaseClock {
            now,
            kept: LEASE_TICKS,
        }
    }

    fn leased(touch: u16) -> View {
        let location = Location {
            segment: 0,
            offset: 8,
        };
        let mut view = View::new(location, 100, slot::Kind::Blob);
        (view.leased, view.touch) = (true, touch);
        view
    }

    #[test]
    fn a_lease_holds_for_twelve_hours_and_is_good_for_a_promise_for_eight() {
        for start in [0, 7, u16::MAX - 3] {
            let after = |minutes: u16| at(start.wrapping_add(minutes / 4));
            let view = leased(start);
            assert!(after(8 * 60 - 1).promises(&view));
            assert!(!after(8 * 60).promises(&view), "less than four hours left");
            assert!(after(12 * 60 - 1).holds(&view));
            assert!(!after(12 * 60).holds(&view));
        }
    }

    #[test]
    fn a_clock_set_back_by_minutes_ends_no_lease() {
        let view = leased(100);
        assert!(at(99).promises(&view) && at(90).holds(&view));
        assert!(!at(100 - SKEW_TICKS - 1).holds(&view));
    }

    #[test]
    fn a_store_full_of_leases_starts_each_at_most_once_a_tick() {
        let view = leased(100);
        let short = |now| LeaseClock { now, kept: 4 };
        assert!(short(101).promises(&view) && !short(102).promises(&view));
        let none = |now| LeaseClock { now, kept: 0 };
        assert!(none(100).promises(&view) && !none(100).holds(&view));
        assert!(!none(101).promises(&view));
    }
}
