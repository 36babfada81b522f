//! One place of the index: 128 bits, and what they mean.
//!
//! ```text
//! word 0   fingerprint 44 | segment 20
//! word 1   offset/8 25 | size class 8 | kind 2 | dirty 1 | hint 1 | use count 2 | touch 16 | leased 1 | tombstone 1 | keep 1 | unchecked 1 | low bits of the size 5
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zimcache_store::Pins;

use super::leases::LeaseClock;

/// Keyed 128-bit hash of a key: shard and fingerprint in the index, identity in tables of contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub(crate) u128);

impl KeyHash {
    pub(crate) const SHARD_BITS: u32 = 10;
    pub(crate) const FINGERPRINT_BITS: u32 = 44;

    /// A hash of which only shard and fingerprint are known.
    pub(crate) const fn from_parts(shard: usize, fingerprint: u64) -> KeyHash {
        let shard = (shard as u128) << (128 - Self::SHARD_BITS);
        let below = (fingerprint as u128) << (128 - Self::FINGERPRINT_BITS - Self::SHARD_BITS);
        KeyHash(shard | below)
    }

    /// Whether both have the same shard and fingerprint.
    pub(crate) const fn resembles(self, other: KeyHash) -> bool {
        self.shard() == other.shard() && self.fingerprint() == other.fingerprint()
    }

    /// Shard and fingerprint in one number, which is the same as long as the store exists.
    pub(crate) const fn name(self) -> u64 {
        (self.0 >> (128 - Self::SHARD_BITS - Self::FINGERPRINT_BITS)) as u64
    }

    /// A hash of which only the name is known.
    pub(crate) const fn from_name(name: u64) -> KeyHash {
        KeyHash((name as u128) << (128 - Self::SHARD_BITS - Self::FINGERPRINT_BITS))
    }

    pub(crate) const fn shard(self) -> usize {
        (self.0 >> (128 - Self::SHARD_BITS)) as usize
    }

    pub(crate) const fn fingerprint(self) -> u64 {
        let below_shard = self.0 << Self::SHARD_BITS;
        (below_shard >> (128 - Self::FINGERPRINT_BITS)) as u64
    }
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    /// Number of the segment.
    pub(crate) segment: u32,
    /// Offset in it in bytes, a multiple of 8, never 0.
    pub(crate) offset: u64,
}

/// What a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Blob = 0,
    Part = 1,
    Manifest = 2,
    Entry = 3,
}

impl Kind {
    pub(crate) const COUNT: usize = 4;

    const fn from_bits(bits: u64) -> Kind {
        match bits & 3 {
            0 => Kind::Blob,
            1 => Kind::Part,
            2 => Kind::Manifest,
            _ => Kind::Entry,
        }
    }
}

/// A slot, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) location: Location,
    /// See [`SizeClass`].
    pub(crate) size: SizeClass,
    pub(crate) kind: Kind,
    pub(crate) dirty: bool,
    pub(crate) hint: bool,
    pub(crate) keep: bool,
    pub(crate) tombstone: bool,
    /// Whether a lease was started; it may be over.
    pub(crate) leased: bool,
    /// Uses since the record was last moved, at most 3.
    pub(crate) freq: u8,
    /// Time of the last use, in ticks; while a lease is open, the time it counts from.
    pub(crate) touch: u16,
    /// A manifest found at opening whose parts have not been looked for yet: some may have been evicted before.
    pub(crate) unchecked: bool,
    /// Low 5 bits of the value's size: with the size class, they tell a wrong size in a look-up.
    pub(crate) size_low: u8,
}

impl View {
    /// A slot for a record of `record_bytes`, never used.
    pub(crate) fn new(location: Location, record_bytes: usize, kind: Kind) -> View {
        View {
            location,
            size: SizeClass::of(record_bytes),
            kind,
            dirty: false,
            hint: false,
            keep: false,
            tombstone: false,
            leased: false,
            freq: 0,
            touch: 0,
            unchecked: false,
            size_low: 0,
        }
    }

    /// Whether it must survive every eviction.
    pub(crate) const fn is_pinned(&self) -> bool {
        self.dirty || self.hint || self.keep
    }

    /// Why it must stay until that is settled.
    pub(crate) const fn pins(&self) -> Pins {
        Pins {
            dirty: self.dirty,
            hint: self.hint,
        }
    }

    /// Sets why it must stay.
    pub(crate) const fn set_pins(&mut self, pins: Pins) {
        (self.dirty, self.hint) = (pins.dirty, pins.hint);
    }

    /// Whether it waits for something to be settled.
    pub(crate) const fn is_unsettled(&self) -> bool {
        self.dirty || self.hint
    }

    /// Whether it makes a blob visible: only that can have a lease.
    pub(crate) const fn is_blob(&self) -> bool {
        matches!(self.kind, Kind::Blob | Kind::Manifest) && !self.tombstone
    }

    /// Whether an index at its ceiling may forget it. No part: what is left of a value must never look present.
    pub(crate) const fn may_be_dropped(&self) -> bool {
        !self.is_pinned() && !self.tombstone && !matches!(self.kind, Kind::Part)
    }

    /// Takes over the lease of another record of the same key, if that ends later: it is a promise about the blob,
    /// whichever record it is in.
    pub(crate) const fn inherit_lease(&mut self, other: &View, clock: LeaseClock) {
        let ends_later = !self.leased || clock.age(other.touch) < clock.age(self.touch);
        if self.is_blob() && clock.is_open(other) && ends_later {
            self.leased = true;
            self.touch = other.touch;
        }
    }
}

/// Size of a record in 8 bits: a small floating-point number of 8-byte units, rounded up by at most an eighth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    /// The class of a record of this many bytes.
    pub(crate) fn of(bytes: usize) -> SizeClass {
        let units = bytes.div_ceil(8).max(1) as u32;
        if units < 16 {
            return SizeClass(units as u8);
        }
        let exponent = units.ilog2() - 3;
        let mantissa = units.div_ceil(1 << exponent); // 8..=16
        SizeClass(((exponent << 3) + mantissa) as u8)
    }

    /// Most bytes a record of this class has.
    pub(crate) const fn bytes(self) -> usize {
        let class = self.0 as usize;
        if class < 16 {
            return class * 8;
        }
        let exponent = (class >> 3) - 1;
        let mantissa = (class & 7) + 8;
        (mantissa << exponent) * 8
    }
}

const SEGMENT_BITS: u32 = 20;
const OFFSET_BITS: u32 = 25;
const SIZE_AT: u32 = OFFSET_BITS;
const KIND_AT: u32 = SIZE_AT + 8;
const DIRTY_AT: u32 = KIND_AT + 2;
const HINT_AT: u32 = DIRTY_AT + 1;
const FREQ_AT: u32 = HINT_AT + 1;
const TOUCH_AT: u32 = FREQ_AT + 2;
const LEASED_AT: u32 = TOUCH_AT + 16;
const TOMBSTONE_AT: u32 = LEASED_AT + 1;
const KEEP_AT: u32 = TOMBSTONE_AT + 1;
const UNCHECKED_AT: u32 = KEEP_AT + 1;
const SIZE_LOW_AT: u32 = UNCHECKED_AT + 1;
/// The bits of a size kept in [`View::size_low`].
pub(crate) const SIZE_LOW_MASK: u64 = 31;

/// Most segments a store can have.
pub(crate) const MAX_SEGMENTS: u64 = 1 << SEGMENT_BITS;

const fn location_of(word0: u64, word1: u64) -> Location {
    Location {
        segment: (word0 & (MAX_SEGMENTS - 1)) as u32,
        offset: (word1 & ((1 << OFFSET_BITS) - 1)) * 8,
    }
}

impl View {
    /// All but fingerprint and segment.
    fn word1(&self) -> u64 {
        let bit = |on: bool, at: u32| u64::from(on) << at;
        (self.location.offset / 8)
            | (u64::from(self.size.0) << SIZE_AT)
            | ((self.kind as u64) << KIND_AT)
            | bit(self.dirty, DIRTY_AT)
            | bit(self.hint, HINT_AT)
            | (u64::from(self.freq.min(3)) << FREQ_AT)
            | (u64::from(self.touch) << TOUCH_AT)
            | bit(self.leased, LEASED_AT)
            | bit(self.tombstone, TOMBSTONE_AT)
            | bit(self.keep, KEEP_AT)
            | bit(self.unchecked, UNCHECKED_AT)
            | ((u64::from(self.size_low) & SIZE_LOW_MASK) << SIZE_LOW_AT)
    }

    const fn unpack(word0: u64, word1: u64) -> View {
        View {
            location: location_of(word0, word1),
            size: SizeClass((word1 >> SIZE_AT) as u8),
            kind: Kind::from_bits(word1 >> KIND_AT),
            dirty: word1 >> DIRTY_AT & 1 == 1,
            hint: word1 >> HINT_AT & 1 == 1,
            keep: word1 >> KEEP_AT & 1 == 1,
            unchecked: word1 >> UNCHECKED_AT & 1 == 1,
            tombstone: word1 >> TOMBSTONE_AT & 1 == 1,
            leased: word1 >> LEASED_AT & 1 == 1,
            freq: (word1 >> FREQ_AT & 3) as u8,
            touch: (word1 >> TOUCH_AT) as u16,
            size_low: (word1 >> SIZE_LOW_AT & SIZE_LOW_MASK) as u8,
        }
    }
}

/// A slot, packed. All zero is an empty one.
#[derive(Debug, Default)]
pub(crate) struct Slot([AtomicU64; 2]);

impl Slot {
    pub(crate) fn new(fingerprint: u64, view: View) -> Slot {
        let word0 = (fingerprint << SEGMENT_BITS) | u64::from(view.location.segment);
        Slot([AtomicU64::new(word0), AtomicU64::new(view.word1())])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0[1].load(Relaxed) == 0
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.0[0].load(Relaxed) >> SEGMENT_BITS
    }

    pub(crate) fn location(&self) -> Location {
        location_of(self.0[0].load(Relaxed), self.0[1].load(Relaxed))
    }

    pub(crate) fn view(&self) -> View {
        View::unpack(self.0[0].load(Relaxed), self.0[1].load(Relaxed))
    }

    /// Copies another slot here. Needs the shard's write lock.
    pub(crate) fn set(&self, other: &Slot) {
        self.0[0].store(other.0[0].load(Relaxed), Relaxed);
        self.0[1].store(other.0[1].load(Relaxed), Relaxed);
    }

    /// Empties the slot. Needs the shard's write lock.
    pub(crate) fn clear(&self) {
        self.0[0].store(0, Relaxed);
        self.0[1].store(0, Relaxed);
    }

    /// Counts a use. It neither prolongs a lease nor brings one back that is over. The shard's read lock is enough; of
    /// two uses at once one may be lost.
    pub(crate) fn touch(&self, clock: LeaseClock) {
        let before = self.0[1].load(Relaxed);
        let mut view = View::unpack(0, before);
        view.freq = (view.freq + 1).min(3);
        if !clock.is_open(&view) {
            (view.leased, view.touch) = (false, clock.now);
        }
        let after = view.word1();
        if after != before {
            self.0[1]
                .compare_exchange(before, after, Relaxed, Relaxed)
                .ok();
        }
    }

    /// Leases the blob from this tick on, unless it has a lease that ends later, and counts that as a use; false when it
    /// is none that has leases. The shard's read lock is enough, and of two leases at once none is lost.
    pub(crate) fn lease(&self, tick: u16, clock: LeaseClock) -> bool {
        let with_lease = |before: u64| {
            let old = View::unpack(0, before);
            let mut new = old;
            new.freq = (new.freq + 1).min(3);
            (new.leased, new.touch) = (true, tick);
            new.inherit_lease(&old, clock);
            old.is_blob().then(|| new.word1())
        };
        self.0[1].fetch_update(Relaxed, Relaxed, with_lease).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shared::LEASE_TICKS;

    #[test]
    fn size_classes_round_up_by_at_most_an_eighth() {
        for bytes in (1..20_000).chain([65_535, 65_536, 1 << 20, (1 << 20) + 160, 4 << 20]) {
            let class = SizeClass::of(bytes).bytes();
            assert!(class >= bytes, "{bytes} {class}");
            assert!(class <= bytes + bytes / 8 + 8, "{bytes} {class}");
        }
    }

    #[test]
    fn a_slot_keeps_every_field() {
        let mut view = View::new(
            Location {
                segment: 1_048_575,
                offset: 268_435_448,
            },
            1 << 20,
            Kind::Manifest,
        );
        for (dirty, hint, keep, tombstone, leased) in [
            (true, false, true, false, true),
            (false, true, false, true, false),
        ] {
            (view.dirty, view.hint, view.keep) = (dirty, hint, keep);
            (view.tombstone, view.leased) = (tombstone, leased);
            (view.freq, view.touch, view.size_low) = (3, 65_535, 31);
            let slot = Slot::new((1 << 44) - 1, view);
            assert_eq!(slot.view(), view);
            assert_eq!(slot.fingerprint(), (1 << 44) - 1);
        }
    }

    fn blob() -> Slot {
        let location = Location {
            segment: 0,
            offset: 8,
        };
        Slot::new(5, View::new(location, 100, Kind::Blob))
    }

    const fn at(now: u16) -> LeaseClock {
        LeaseClock {
            now,
            kept: LEASE_TICKS,
        }
    }

    #[test]
    fn a_use_counts_and_does_not_prolong_or_shorten_a_lease() {
        let slot = blob();
        assert!(slot.lease(7, at(7)));
        for tick in [8, 9, 6 + LEASE_TICKS] {
            slot.touch(at(tick));
        }
        let view = slot.view();
        assert_eq!((view.freq, view.touch, view.leased), (3, 7, true));
        slot.touch(at(7 + LEASE_TICKS));
        let view = slot.view();
        assert!(!view.leased, "a use does not bring a lease back");
        assert_eq!(view.touch, 7 + LEASE_TICKS);
    }

    #[test]
    fn of_two_leases_the_one_that_ends_later_counts() {
        for ticks in [[50, 60], [60, 50]] {
            let slot = blob();
            for tick in ticks {
                assert!(slot.lease(tick, at(70)));
            }
            assert_eq!((slot.view().touch, slot.view().leased), (60, true));
        }
        let (slot, months_later) = (blob(), 40_000);
        slot.lease(60, at(60));
        slot.lease(months_later, at(months_later));
        assert_eq!(slot.view().touch, months_later, "what is over is no lease");
    }

    #[test]
    fn only_what_makes_a_blob_visible_has_a_lease() {
        let mut view = blob().view();
        for (kind, tombstone) in [
            (Kind::Part, false),
            (Kind::Entry, false),
            (Kind::Blob, true),
        ] {
            (view.kind, view.tombstone) = (kind, tombstone);
            let slot = Slot::new(5, view);
            assert!(!slot.lease(7, at(7)));
            assert_eq!(slot.view(), view);
        }
    }

    #[test]
    fn a_name_leads_back_to_shard_and_fingerprint() {
        let hash = KeyHash(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert!(KeyHash::from_name(hash.name()).resembles(hash));
    }
}
