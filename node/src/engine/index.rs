//! The index: where every live record lies, in 16 bytes of RAM each.
//!
//! 1024 shards, each a sorted open-addressing table (robin hood by fingerprint, linear probing) under its own lock.
//! The position of a slot follows from its fingerprint alone, so a shard grows by a twelfth without reading a key, and
//! stays 86–94 % full. Use counts, touch times and leases are atomics changed under the read lock.
//!
//! A fingerprint is 44 bits (54 with the shard number): equal fingerprints of different keys happen. Look-ups
//! therefore yield candidates, and whoever reads the record compares the full key.
//! Not here: versions and keys (in the records), and any lock held while the disk is used.

use std::{
    cmp::Reverse,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::RwLock;

use super::{
    leases::LeaseClock,
    slot::{KeyHash, Kind, Location, Slot, View},
};

const SHARDS: usize = 1 << KeyHash::SHARD_BITS;
/// Slots a table holds beyond the highest position, so that probing never wraps.
const OVERHANG: usize = 16;
/// Fullest a table gets before it grows, in 1/1000.
const MAX_LOAD: usize = 940;
/// Hashes whose slots are fetched at once: about as many loads as a processor has under way.
const TOGETHER: usize = 32;
/// How far a search goes, mostly: with the first slot, that one is in the cache line or the next.
const NEAR: usize = 5;
/// How many neighbours are compared when the index is at its ceiling and must drop a slot.
const DROP_WINDOW: usize = 16;

/// Where every live record lies.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Box<[RwLock<Table>]>,
    /// By kind; tombstones apart, behind the others.
    counts: [AtomicU64; 2 * Kind::COUNT],
    dirty: AtomicU64,
    hints: AtomicU64,
    slots: AtomicU64,
    max_shard_slots: usize,
}

#[derive(Debug, Default)]
struct Table {
    slots: Box<[Slot]>,
    used: usize,
    /// How many wait for something to be settled.
    unsettled: usize,
}

/// Up to four slots with the wanted fingerprint; more than two are a curiosity.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Candidates {
    views: [Option<View>; 4],
}

impl Candidates {
    /// The slots found.
    pub(crate) fn iter(&self) -> impl Iterator<Item = View> + '_ {
        self.views.iter().flatten().copied()
    }

    /// Whether one of them is of the record at this place.
    pub(crate) fn has(&self, location: Location) -> bool {
        self.iter().any(|view| view.location == location)
    }

    fn push(&mut self, view: View) {
        if let Some(place) = self.views.iter_mut().find(|place| place.is_none()) {
            *place = Some(view);
        }
    }
}

impl Index {
    /// An empty index that takes at most `max_bytes` of RAM.
    pub(crate) fn new(max_bytes: u64) -> Index {
        let max_slots = (max_bytes as usize / size_of::<Slot>()).max(SHARDS * OVERHANG * 2);
        Index {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            counts: Default::default(),
            dirty: AtomicU64::new(0),
            hints: AtomicU64::new(0),
            slots: AtomicU64::new(0),
            max_shard_slots: max_slots / SHARDS,
        }
    }

    /// The slots that may be of this key.
    pub(crate) fn find(&self, hash: KeyHash) -> Candidates {
        self.find_and(hash, |_| {})
    }

    /// The slots that may be of this key, used now.
    pub(crate) fn find_and_touch(&self, hash: KeyHash, clock: LeaseClock) -> Candidates {
        self.find_and(hash, |slot| slot.touch(clock))
    }

    fn find_and(&self, hash: KeyHash, and: impl Fn(&Slot)) -> Candidates {
        let table = self.shards[hash.shard()].read();
        let mut found = Candidates::default();
        for at in table.run(hash.fingerprint()) {
            let slot = &table.slots[at];
            and(slot);
            found.push(slot.view());
        }
        found
    }

    /// Calls `see` with the number of each hash and every slot that may be of it. The slots of some hashes are fetched
    /// together: most of them are not in the processor's cache.
    pub(crate) fn find_each(&self, hashes: &[KeyHash], mut see: impl FnMut(usize, &Slot)) {
        let mut tables = Vec::with_capacity(TOGETHER);
        let mut number = 0;
        for group in hashes.chunks(TOGETHER) {
            // Several locks are held at once here, and nothing is waited for with one of them: a writer that waits must
            // not come between two readings of a shard, nor make two such groups wait for each other.
            let lock = |hash: &KeyHash| self.shards[hash.shard()].read_recursive();
            tables.extend(group.iter().map(lock));
            let firsts = tables.iter().zip(group);
            let fetched = firsts.fold(0, |sum, (table, hash)| {
                sum ^ table.word_near(hash.fingerprint())
            });
            std::hint::black_box(fetched);
            for (table, hash) in tables.iter().zip(group) {
                for at in table.run(hash.fingerprint()) {
                    see(number, &table.slots[at]);
                }
                number += 1;
            }
            tables.clear();
        }
    }

    /// Adds a slot. At the ceiling the coldest unpinned neighbour is dropped and returned, one under a lease only if all
    /// of them are; if there is none, the new slot itself is, or, if that is pinned or a tombstone, the table grows all the same.
    pub(crate) fn insert(&self, hash: KeyHash, view: View, clock: LeaseClock) -> Option<View> {
        let mut table = self.shards[hash.shard()].write();
        let mut dropped = None;
        let had = table.slots.len();
        if !table.has_room() && !table.grow(self.max_shard_slots) {
            match table.coldest_near(hash.fingerprint(), clock) {
                Some(at) => {
                    let old = table.remove_at(at);
                    self.count_down(&mut table, old);
                    dropped = Some(old);
                }
                None if view.is_pinned() || view.tombstone => {}
                None => return Some(view),
            }
        }
        while !table.insert(&Slot::new(hash.fingerprint(), view)) {
            table.grow(usize::MAX);
        }
        self.slots
            .fetch_add((table.slots.len() - had) as u64, Relaxed);
        self.count_up(&mut table, view);
        dropped
    }

    /// Puts `new` where the slot at `old` is, and returns that; `None` when it is gone. A lease is a promise about the
    /// blob, whichever record it is in: it stays, also one that started while `new` was on its way.
    pub(crate) fn replace(
        &self,
        hash: KeyHash,
        old: Location,
        new: View,
        clock: LeaseClock,
    ) -> Option<View> {
        let changed = self.change(hash, old, |view| {
            let before = *view;
            *view = new;
            view.inherit_lease(&before, clock);
        });
        changed.map(|(before, _)| before)
    }

    /// As [`Index::replace`], where `new` is the same record in another place: why it must stay stays, too.
    pub(crate) fn relocate(
        &self,
        hash: KeyHash,
        old: Location,
        new: View,
        clock: LeaseClock,
    ) -> bool {
        let changed = self.change(hash, old, |view| {
            let before = *view;
            *view = new;
            view.inherit_lease(&before, clock);
            view.set_pins(before.pins());
        });
        changed.is_some()
    }

    /// Changes the slot at `location` in place; `false` when it is gone.
    pub(crate) fn update(
        &self,
        hash: KeyHash,
        location: Location,
        change: impl FnOnce(&mut View),
    ) -> bool {
        self.change(hash, location, change).is_some()
    }

    /// Changes the slot at `location` in place; tells how it was and how it is, `None` when it is gone.
    pub(crate) fn change(
        &self,
        hash: KeyHash,
        location: Location,
        change: impl FnOnce(&mut View),
    ) -> Option<(View, View)> {
        let mut table = self.shards[hash.shard()].write();
        let at = table.position(hash.fingerprint(), location)?;
        let before = table.slots[at].view();
        let mut after = before;
        change(&mut after);
        table.slots[at].set(&Slot::new(hash.fingerprint(), after));
        self.count_down(&mut table, before);
        self.count_up(&mut table, after);
        Some((before, after))
    }

    /// Removes the slot at `location`.
    pub(crate) fn remove(&self, hash: KeyHash, location: Location) -> Option<View> {
        self.remove_if(hash, location, |_| true)
    }

    /// Removes the slot at `location` if it `may` go, as it is when nobody can change it any more.
    pub(crate) fn remove_if(
        &self,
        hash: KeyHash,
        location: Location,
        may: impl FnOnce(&View) -> bool,
    ) -> Option<View> {
        let mut table = self.shards[hash.shard()].write();
        let at = table.position(hash.fingerprint(), location)?;
        if !may(&table.slots[at].view()) {
            return None;
        }
        let removed = table.remove_at(at);
        self.count_down(&mut table, removed);
        Some(removed)
    }

    /// Calls `with` for every slot, a shard at a time. The hash holds shard and fingerprint only: enough for every
    /// call here, not an identity.
    pub(crate) fn for_each(&self, mut with: impl FnMut(KeyHash, View)) {
        for (number, shard) in self.shards.iter().enumerate() {
            let table = shard.read();
            for slot in table.slots.iter().filter(|slot| !slot.is_empty()) {
                with(KeyHash::from_parts(number, slot.fingerprint()), slot.view());
            }
        }
    }

    /// The next names that have a slot which is wanted, from one on, at most so many, and where to go on. Shards in
    /// which nothing waits to be settled are passed over if only such slots are wanted. Every slot that was there before
    /// and stays is met, however the tables grow between two calls: names lie in order.
    pub(crate) fn names_from(
        &self,
        from: u64,
        most: usize,
        only_unsettled: bool,
        wanted: impl Fn(&View) -> bool,
    ) -> (Vec<KeyHash>, Option<u64>) {
        let mut names: Vec<KeyHash> = Vec::new();
        let start = KeyHash::from_name(from);
        for (number, shard) in self.shards.iter().enumerate().skip(start.shard()) {
            let table = shard.read();
            if only_unsettled && table.unsettled == 0 {
                continue;
            }
            let first = if number == start.shard() {
                start.fingerprint()
            } else {
                0
            };
            let home = table.home(first).min(table.slots.len());
            for slot in table.slots[home..].iter().filter(|slot| !slot.is_empty()) {
                if slot.fingerprint() < first || !wanted(&slot.view()) {
                    continue;
                }
                let name = KeyHash::from_parts(number, slot.fingerprint());
                if names.last() == Some(&name) {
                    continue;
                }
                if names.len() == most {
                    return (names, Some(name.name()));
                }
                names.push(name);
            }
        }
        (names, None)
    }

    fn count_up(&self, table: &mut Table, view: View) {
        self.counts[counter(view)].fetch_add(1, Relaxed);
        if view.is_unsettled() {
            table.unsettled += 1;
            self.dirty.fetch_add(u64::from(view.dirty), Relaxed);
            self.hints.fetch_add(u64::from(view.hint), Relaxed);
        }
    }

    fn count_down(&self, table: &mut Table, view: View) {
        self.counts[counter(view)].fetch_sub(1, Relaxed);
        if view.is_unsettled() {
            table.unsettled -= 1;
            self.dirty.fetch_sub(u64::from(view.dirty), Relaxed);
            self.hints.fetch_sub(u64::from(view.hint), Relaxed);
        }
    }

    /// How many slots are dirty.
    pub(crate) fn dirty(&self) -> u64 {
        self.dirty.load(Relaxed)
    }

    /// How many slots have a hint.
    pub(crate) fn hints(&self) -> u64 {
        self.hints.load(Relaxed)
    }

    /// How many slots of a kind there are, tombstones not counted.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize].load(Relaxed)
    }

    /// RAM taken, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.slots.load(Relaxed) * size_of::<Slot>() as u64
            + (SHARDS * size_of::<RwLock<Table>>()) as u64
    }
}

const fn counter(view: View) -> usize {
    view.kind as usize + if view.tombstone { Kind::COUNT } else { 0 }
}

impl Table {
    fn home(&self, fingerprint: u64) -> usize {
        let homes = self.slots.len().saturating_sub(OVERHANG) as u128;
        ((u128::from(fingerprint) * homes) >> KeyHash::FINGERPRINT_BITS) as usize
    }

    /// Some bits of the slots that a search for this fingerprint goes through, so that they are fetched.
    fn word_near(&self, fingerprint: u64) -> u64 {
        let home = self.home(fingerprint);
        let word = |at: usize| self.slots.get(at).map_or(0, Slot::fingerprint);
        word(home) ^ word(home + NEAR)
    }

    /// Positions of all slots with this fingerprint; they are neighbours.
    fn run(&self, fingerprint: u64) -> std::ops::Range<usize> {
        let start = self.first_at_least(fingerprint);
        let same = self.slots[start..]
            .iter()
            .take_while(|slot| !slot.is_empty() && slot.fingerprint() == fingerprint);
        start..start + same.count()
    }

    /// First position from the fingerprint's home on that is free or holds no smaller fingerprint.
    fn first_at_least(&self, fingerprint: u64) -> usize {
        let home = self.home(fingerprint);
        let smaller = self.slots[home.min(self.slots.len())..]
            .iter()
            .take_while(|slot| !slot.is_empty() && slot.fingerprint() < fingerprint);
        home + smaller.count()
    }

    fn position(&self, fingerprint: u64, location: Location) -> Option<usize> {
        self.run(fingerprint)
            .find(|at| self.slots[*at].location() == location)
    }

    fn has_room(&self) -> bool {
        let homes = self.slots.len().saturating_sub(OVERHANG);
        (self.used + 1) * 1000 <= homes * MAX_LOAD
    }

    /// Inserts; `false` when the overhang is full and the table must grow.
    fn insert(&mut self, slot: &Slot) -> bool {
        let at = self.first_at_least(slot.fingerprint());
        let Some(free) = self.slots[at.min(self.slots.len())..]
            .iter()
            .position(Slot::is_empty)
        else {
            return false;
        };
        for to in (at + 1..=at + free).rev() {
            let (before, after) = self.slots.split_at(to);
            after[0].set(&before[to - 1]);
        }
        self.slots[at].set(slot);
        self.used += 1;
        true
    }

    fn remove_at(&mut self, at: usize) -> View {
        let removed = self.slots[at].view();
        let mut hole = at;
        while hole + 1 < self.slots.len() {
            let next = &self.slots[hole + 1];
            if next.is_empty() || self.home(next.fingerprint()) == hole + 1 {
                break;
            }
            self.slots[hole].set(next);
            hole += 1;
        }
        self.slots[hole].clear();
        self.used -= 1;
        removed
    }

    /// Grows by a twelfth; `false` when that would pass `limit` slots.
    fn grow(&mut self, limit: usize) -> bool {
        let homes = self.slots.len().saturating_sub(OVERHANG);
        let wanted = (homes + homes / 12 + 2).max(16) + OVERHANG;
        if wanted > limit {
            return false;
        }
        let old = std::mem::take(&mut self.slots);
        let mut size = wanted;
        loop {
            self.slots = (0..size).map(|_| Slot::default()).collect();
            self.used = 0;
            if old
                .iter()
                .filter(|slot| !slot.is_empty())
                .all(|slot| self.insert(slot))
            {
                return true;
            }
            // A run longer than the overhang: rare, and a little more room ends it.
            size += size / 8 + OVERHANG;
        }
    }

    /// The position of the coldest slot near a fingerprint that may be dropped.
    fn coldest_near(&self, fingerprint: u64, clock: LeaseClock) -> Option<usize> {
        let start = self.home(fingerprint).saturating_sub(DROP_WINDOW / 2);
        let window = start..(start + DROP_WINDOW).min(self.slots.len());
        window
            .filter(|at| !self.slots[*at].is_empty() && self.slots[*at].view().may_be_dropped())
            .min_by_key(|at| {
                let view = self.slots[*at].view();
                let age = clock.age(view.touch);
                (clock.holds(&view), view.freq, Reverse(age))
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::engine::shared::LEASE_TICKS;

    const NOON: LeaseClock = LeaseClock {
        now: 1000,
        kept: LEASE_TICKS,
    };

    fn hash(n: u64) -> KeyHash {
        KeyHash(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n))
    }

    fn view(n: u32) -> View {
        View::new(
            Location {
                segment: n >> 20,
                offset: u64::from(n % (1 << 20) + 1) * 8,
            },
            100,
            Kind::Blob,
        )
    }

    #[test]
    fn the_index_agrees_with_a_map_through_growth_and_removal() {
        let index = Index::new(u64::MAX);
        let mut model = HashMap::new();
        for n in 0..200_000u32 {
            let key = u64::from(n.wrapping_mul(2_654_435_761) % 60_000);
            let old: Option<View> = model.get(&key).copied();
            match (old, n % 3) {
                (None, _) => {
                    assert!(index.insert(hash(key), view(n), NOON).is_none());
                    model.insert(key, view(n));
                }
                (Some(old), 0) => {
                    assert_eq!(index.remove(hash(key), old.location), Some(old));
                    model.remove(&key);
                }
                (Some(old), _) => {
                    assert!(
                        index
                            .replace(hash(key), old.location, view(n), NOON)
                            .is_some()
                    );
                    model.insert(key, view(n));
                }
            }
        }
        for key in 0..60_000u64 {
            let found = index.find(hash(key)).iter().next();
            assert_eq!(found, model.get(&key).copied(), "key {key}");
        }
        assert_eq!(index.count(Kind::Blob), model.len() as u64);
    }

    #[test]
    fn an_entry_takes_less_than_twenty_bytes() {
        let index = Index::new(u64::MAX);
        for n in 0..2_000_000u32 {
            index.insert(hash(u64::from(n)), view(n), NOON);
        }
        let per_entry = index.bytes() as f64 / 2_000_000.0;
        println!("row 13: 2000000 entries, {per_entry:.2} bytes per entry");
        assert!(per_entry <= 20.0, "{per_entry}");
    }

    #[test]
    fn at_the_ceiling_the_coldest_slot_goes_and_a_leased_one_stays() {
        let index = Index::new(0);
        let (mut dropped, mut broken) = (0, 0);
        for n in 0..200_000u32 {
            let mut new = view(n);
            new.touch = NOON.now;
            new.leased = n % 10 == 0 && n < 20_000;
            if let Some(gone) = index.insert(hash(u64::from(n)), new, NOON) {
                dropped += u32::from(!gone.leased);
                broken += u32::from(gone.leased);
            }
        }
        assert!(dropped > 100_000, "{dropped}");
        assert_eq!(broken, 0, "there was always another");
        assert!(index.bytes() < 4 << 20);
    }

    #[test]
    fn at_the_ceiling_leases_that_are_over_protect_nothing_and_new_ones_find_room() {
        let index = Index::new(0);
        let later = LeaseClock {
            now: NOON.now + LEASE_TICKS,
            ..NOON
        };
        for (first, clock) in [(0, NOON), (1_000_000, later)] {
            for n in 0..100_000u32 {
                let mut new = view(n);
                (new.leased, new.touch) = (true, clock.now);
                let gone = index.insert(hash(first + u64::from(n)), new, clock);
                assert_ne!(gone, Some(new), "what is promised finds room");
            }
        }
        let (mut over, mut held) = (0, 0);
        index.for_each(|_, view| {
            over += u32::from(view.touch == NOON.now);
            held += u32::from(view.touch == later.now);
        });
        assert!(over * 20 < held, "{over} leases that are over, {held} new");
    }

    #[test]
    fn a_lease_that_starts_meanwhile_saves_a_slot_from_being_removed() {
        let index = Index::new(u64::MAX);
        let place = view(1).location;
        index.insert(hash(1), view(1), NOON);
        index.find_each(&[hash(1)], |_, slot| assert!(slot.lease(NOON.now, NOON)));
        let removed = index.remove_if(hash(1), place, |view| !NOON.holds(view));
        assert_eq!(removed, None);
        assert!(index.remove(hash(1), place).is_some_and(|view| view.leased));
    }
}
