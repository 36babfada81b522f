//! One place of the index: 128 bits, and what they mean.
//!
//! ```text
//! word 0   fingerprint 44 | segment 20
//! word 1   offset/8 25 | size class 8 | kind 2 | dirty 1 | hint 1 | use count 2 | touch 16 | leased 1 | tombstone 1 | keep 1 | unchecked 1 | low bits of the size 5
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// Whether the last touch, or one before it, started a lease.
    pub(crate) leased: bool,
    /// Uses since the record was last moved, at most 3.
    pub(crate) freq: u8,
    /// Time of the last use, in ticks.
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

    /// Whether an index at its ceiling may forget it.
    pub(crate) const fn may_be_dropped(&self) -> bool {
        !self.is_pinned() && !self.leased && !self.tombstone
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

/// A slot, packed. All zero is an empty one.
#[derive(Debug, Default)]
pub(crate) struct Slot([AtomicU64; 2]);

impl Slot {
    pub(crate) fn new(fingerprint: u64, view: View) -> Slot {
        let bit = |on: bool, at: u32| u64::from(on) << at;
        let word0 = (fingerprint << SEGMENT_BITS) | u64::from(view.location.segment);
        let word1 = (view.location.offset / 8)
            | (u64::from(view.size.0) << SIZE_AT)
            | ((view.kind as u64) << KIND_AT)
            | bit(view.dirty, DIRTY_AT)
            | bit(view.hint, HINT_AT)
            | (u64::from(view.freq.min(3)) << FREQ_AT)
            | (u64::from(view.touch) << TOUCH_AT)
            | bit(view.leased, LEASED_AT)
            | bit(view.tombstone, TOMBSTONE_AT)
            | bit(view.keep, KEEP_AT)
            | bit(view.unchecked, UNCHECKED_AT)
            | ((u64::from(view.size_low) & SIZE_LOW_MASK) << SIZE_LOW_AT);
        Slot([AtomicU64::new(word0), AtomicU64::new(word1)])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0[1].load(Relaxed) == 0
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.0[0].load(Relaxed) >> SEGMENT_BITS
    }

    pub(crate) fn location(&self) -> Location {
        let (word0, word1) = (self.0[0].load(Relaxed), self.0[1].load(Relaxed));
        Location {
            segment: (word0 & (MAX_SEGMENTS - 1)) as u32,
            offset: (word1 & ((1 << OFFSET_BITS) - 1)) * 8,
        }
    }

    pub(crate) fn view(&self) -> View {
        let word1 = self.0[1].load(Relaxed);
        let bit = |at: u32| word1 >> at & 1 == 1;
        View {
            location: self.location(),
            size: SizeClass((word1 >> SIZE_AT) as u8),
            kind: Kind::from_bits(word1 >> KIND_AT),
            dirty: bit(DIRTY_AT),
            hint: bit(HINT_AT),
            keep: bit(KEEP_AT),
            unchecked: bit(UNCHECKED_AT),
            tombstone: bit(TOMBSTONE_AT),
            leased: bit(LEASED_AT),
            freq: (word1 >> FREQ_AT & 3) as u8,
            touch: (word1 >> TOUCH_AT) as u16,
            size_low: (word1 >> SIZE_LOW_AT & SIZE_LOW_MASK) as u8,
        }
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

    /// Counts a use. It neither prolongs a lease nor brings one back that ended more than `lease_ticks` ago. The shard's
    /// read lock is enough; of two uses at once one may be lost.
    pub(crate) fn touch(&self, tick: u16, lease_ticks: u16) {
        let before = self.0[1].load(Relaxed);
        let touched = (before >> TOUCH_AT) as u16;
        let held = before >> LEASED_AT & 1 == 1 && tick.wrapping_sub(touched) < lease_ticks;
        let freq = (before >> FREQ_AT & 3).min(2) + 1;
        let mask = (3 << FREQ_AT) | (0xffff << TOUCH_AT) | (1 << LEASED_AT);
        let after = (before & !mask)
            | (freq << FREQ_AT)
            | (u64::from(if held { touched } else { tick }) << TOUCH_AT)
            | (u64::from(held) << LEASED_AT);
        if after != before {
            self.0[1]
                .compare_exchange(before, after, Relaxed, Relaxed)
                .ok();
        }
    }

    /// Leases the value from this tick on; false when it is none that has leases. The shard's read lock is enough, and
    /// of two leases at once none is lost.
    pub(crate) fn lease(&self, tick: u16) -> bool {
        let mut before = self.0[1].load(Relaxed);
        loop {
            let kind = Kind::from_bits(before >> KIND_AT);
            let may_be_leased = matches!(kind, Kind::Blob | Kind::Manifest);
            if !may_be_leased || before >> TOMBSTONE_AT & 1 == 1 {
                return false;
            }
            let freq = (before >> FREQ_AT & 3).min(2) + 1;
            let mask = (3 << FREQ_AT) | (0xffff << TOUCH_AT);
            let after = (before & !mask)
                | (freq << FREQ_AT)
                | (u64::from(tick) << TOUCH_AT)
                | (1 << LEASED_AT);
            match self.0[1].compare_exchange_weak(before, after, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => before = now,
            }
        }
    }

    /// Leases the value as of an earlier tick, unless it was leased since. Needs the only reference there is.
    pub(crate) fn lease_since(&self, tick: u16, now: u16) {
        let view = self.view();
        if !view.leased || now.wrapping_sub(view.touch) > now.wrapping_sub(tick) {
            self.lease(tick);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_use_counts_and_does_not_prolong_or_shorten_a_lease() {
        let location = Location {
            segment: 0,
            offset: 8,
        };
        let slot = Slot::new(5, View::new(location, 100, Kind::Blob));
        assert!(slot.lease(7));
        for tick in [8, 9, 9] {
            slot.touch(tick, 10);
        }
        let view = slot.view();
        assert_eq!((view.freq, view.touch, view.leased), (3, 7, true));
        slot.touch(17, 10);
        let view = slot.view();
        assert!(!view.leased, "a use does not bring a lease back");
        assert_eq!(view.touch, 17);
    }

    #[test]
    fn an_entry_has_no_lease() {
        let location = Location {
            segment: 0,
            offset: 8,
        };
        let slot = Slot::new(5, View::new(location, 100, Kind::Entry));
        assert!(!slot.lease(7) && !slot.view().leased);
    }

    #[test]
    fn a_name_leads_back_to_shard_and_fingerprint() {
        let hash = KeyHash(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert!(KeyHash::from_name(hash.name()).resembles(hash));
    }
}
