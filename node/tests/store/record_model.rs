//! Random operations on records, against a model that knows versions, deletions and pins: what was answered holds over
//! eviction, restarts and power cuts at any moment; versions never go back; counts and walks tell the truth.

use std::collections::BTreeMap;

use bytes::Bytes;
use zimcache_node::testing::SimRng;
use zimcache_store::{
    ByteRange, Error, GcOptions, PinnedCounts, Pins, RecordHead, RecordKey, Version, Walk,
    testing::conformance::pattern,
};

use crate::{
    harness::Rig,
    pins::walk,
    records::{NONE, blob, deletion, entry, head, open, put_blob, version, write},
    volume::Row,
};

/// Places below this are blobs, the others entries.
const BLOBS: usize = 8;
const PLACES: usize = 20;
const SIZES: [usize; 8] = [
    10, 3_000, 70_000, 131_072, 131_073, 300_000, 1_000_000, 2_200_000,
];

/// What lies at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Number of an entry's version; 0 of a blob.
    number: u64,
    deleted: bool,
    pins: Pins,
}

/// What is known of a place.
#[derive(Debug, Clone, Default)]
struct Place {
    /// What it must hold; a value without pins may be gone.
    now: Option<State>,
    /// What it may hold instead: an operation on it was not answered.
    perhaps: Vec<Option<State>>,
    /// Whether it was once found empty.
    seen_empty: bool,
    /// Highest number ever written.
    highest: u64,
}

struct Model {
    places: Vec<Place>,
    rng: SimRng,
    flooded: u64,
    /// Whether the power is about to go.
    cut: bool,
}

fn body(place: usize, number: u64) -> Bytes {
    let size = SIZES[(place + number as usize * 3) % SIZES.len()];
    pattern((place as u64) << 32 | number, size)
}

const fn size_number(place: usize, state: &State) -> u64 {
    if place < BLOBS { 0 } else { state.number }
}

fn key_of(place: usize) -> RecordKey {
    if place < BLOBS {
        blob(&body(place, 0))
    } else {
        entry(place)
    }
}

const fn plus(some: Pins, more: Pins) -> Pins {
    Pins {
        dirty: some.dirty || more.dirty,
        hint: some.hint || more.hint,
    }
}

const fn minus(some: Pins, less: Pins) -> Pins {
    Pins {
        dirty: some.dirty && !less.dirty,
        hint: some.hint && !less.hint,
    }
}

type Outcome = Result<(), String>;

impl Model {
    fn new(seed: u64) -> Model {
        Model {
            places: vec![Place::default(); PLACES],
            rng: SimRng::new(seed),
            flooded: 1 << 40,
            cut: false,
        }
    }

    fn pins(&mut self) -> Pins {
        let bits = self.rng.below(4);
        Pins {
            dirty: bits & 1 != 0,
            hint: bits & 2 != 0,
        }
    }

    /// Does something to some place.
    fn step(&mut self, rig: &mut Rig) -> Outcome {
        let place = self.rng.index(PLACES);
        match self.rng.below(20) {
            0..9 => self.write(rig, place),
            9..13 => self.settle(rig),
            13..15 => self.look(rig, place),
            15 => self.walks(rig),
            16 => {
                for _ in 0..self.rng.below(250) {
                    self.flooded += 1;
                    let body = pattern(self.flooded, 100_000);
                    if !rig.disk.is_off() {
                        drop(write(rig, &blob(&body), RecordHead::default(), &body, NONE));
                    }
                }
                Ok(())
            }
            17 => {
                let options = GcOptions {
                    target_bytes: Some(10 << 20),
                    ..GcOptions::default()
                };
                let collected = rig.wait(rig.node().admin().gc(options))?;
                fine(rig, collected.map(drop))
            }
            _ => {
                rig.disk.cut_power_after(self.rng.below(60));
                self.cut = true;
                Ok(())
            }
        }
    }

    /// Ends the store and opens it again.
    fn reopen(&mut self, rig: &mut Rig) -> Outcome {
        let seed = self.rng.next_u64();
        let opened = match self.rng.below(3) {
            _ if std::mem::take(&mut self.cut) => rig.crash(seed),
            0 => rig.restart(),
            1 => rig.kill(seed),
            _ => rig.crash(seed),
        };
        opened.map_err(|error| format!("the store does not open: {error:?}"))?;
        for place in 0..PLACES {
            self.look(rig, place)?;
        }
        self.walks(rig)
    }

    fn write(&mut self, rig: &Rig, place: usize) -> Outcome {
        let pins = self.pins();
        let number = match place {
            _ if place < BLOBS => 0,
            // Mostly a new version, sometimes an old one or the same.
            _ => (self.places[place].highest + 2)
                .saturating_sub(self.rng.below(4))
                .max(1),
        };
        // A version is one thing for ever.
        let deleted = match place {
            _ if place < BLOBS => self.rng.permille(200),
            _ => (place as u64 + number * 3).is_multiple_of(5),
        };
        let asked = State {
            number,
            deleted,
            pins,
        };
        let head = match (place < BLOBS, deleted) {
            (true, true) => deletion(Version::default()),
            (true, false) => RecordHead::default(),
            (false, true) => deletion(version(number)),
            (false, false) => head(place, version(number)),
        };
        let bytes = if deleted {
            Bytes::new()
        } else {
            body(place, number)
        };
        let mut written = write(rig, &key_of(place), head.clone(), &bytes, pins);
        for _ in 0..3 {
            if matches!(written, Err(Error::Retry(_))) {
                written = write(rig, &key_of(place), head.clone(), &bytes, pins);
            }
        }
        let known = &mut self.places[place];
        known.highest = known.highest.max(number);
        let after = Some(after_write(place, known.now, asked));
        match written {
            Ok(_) if place < BLOBS => {
                known.now = after;
                known.perhaps.clear();
                Ok(())
            }
            Ok(written) => self.wrote_entry(place, asked, written.version),
            Err(error) => {
                known.perhaps.push(after);
                // It may have been there with all pins but not been answered, or only some of it.
                known.perhaps.push(Some(after_write(place, None, asked)));
                fine(rig, Err(error))
            }
        }
    }

    /// Notes the answer to a write of an entry: which version is held now.
    fn wrote_entry(&mut self, place: usize, asked: State, held: Version) -> Outcome {
        let known = &mut self.places[place];
        let number = held.clock - version(0).clock;
        let may_be = known
            .now
            .into_iter()
            .chain(known.perhaps.iter().flatten().copied());
        let highest = may_be.map(|state| state.number).max().unwrap_or(0);
        if number < asked.number {
            return Err(format!("{asked:?} gave way to {number}"));
        }
        if number == asked.number {
            if let Some(now) = known
                .now
                .filter(|now| now.number > number && is_pinned(now))
            {
                return Err(format!("{asked:?} took the place of {now:?}"));
            }
            let same = known.now.filter(|now| now.number == number);
            known.now = Some(same.map_or(asked, |now| State {
                pins: plus(now.pins, asked.pins),
                ..now
            }));
            known
                .perhaps
                .retain(|state| state.is_some_and(|s| s.number >= number));
        } else if number > highest && !known.seen_empty {
            return Err(format!(
                "{asked:?} gave way to {number}, which nobody wrote"
            ));
        }
        Ok(())
    }

    fn settle(&mut self, rig: &Rig) -> Outcome {
        let (pins, mut records, mut places) = (self.pins(), Vec::new(), Vec::new());
        for place in 0..PLACES {
            if !self.rng.permille(400) {
                continue;
            }
            let number = self.places[place].now.map_or(1, |now| now.number);
            // Sometimes a version that is not the one held: it settles nothing.
            let stale = place >= BLOBS && self.rng.permille(200);
            let version = match place {
                _ if place < BLOBS => Version::default(),
                _ => version(number + u64::from(stale)),
            };
            records.push((key_of(place), version));
            if !stale {
                places.push(place);
            }
        }
        let settled = rig.wait(rig.node().replica().settle(&records, pins))?;
        let done = settled.is_ok();
        for place in places {
            let known = &mut self.places[place];
            let Some(now) = known.now else { continue };
            let after = State {
                pins: minus(now.pins, pins),
                ..now
            };
            if done && known.perhaps.is_empty() {
                known.now = Some(after);
            } else {
                let others: Vec<Option<State>> = known.perhaps.clone();
                let less = |state: State| State {
                    pins: minus(state.pins, pins),
                    ..state
                };
                known
                    .perhaps
                    .extend(others.into_iter().map(|state| state.map(less)));
                known.perhaps.push(Some(after));
            }
        }
        fine(rig, settled)
    }

    /// Looks at a place; afterwards it has one state.
    fn look(&mut self, rig: &Rig, place: usize) -> Outcome {
        let found = rig.wait(
            rig.node()
                .replica()
                .open_record(&key_of(place), ByteRange::Full),
        )?;
        let found = match found {
            Ok(found) => found,
            Err(error) => return fine(rig, Err(error)),
        };
        let known = &mut self.places[place];
        let Some(record) = found else {
            // A higher version that was evicted may have come back without its parts, and hidden a lower one.
            let highest = known.highest;
            let may_be_gone = |state: &Option<State>| {
                state.is_none_or(|state| !is_pinned(&state) || state.number < highest)
            };
            if !may_be_gone(&known.now) && !known.perhaps.iter().any(may_be_gone) {
                return Err(format!("place {place} is empty, but {known:?}"));
            }
            known.now = None;
            known.perhaps.clear();
            known.seen_empty = true;
            return Ok(());
        };
        let number = match place {
            _ if place < BLOBS => 0,
            _ => record.head.version.clock - version(0).clock,
        };
        let state = State {
            number,
            deleted: record.head.deleted,
            pins: record.pins,
        };
        if !state.deleted {
            let value = rig.wait(record.value.read_all(u64::MAX))?;
            match value {
                Ok(value) if value == body(place, size_number(place, &state)) => {}
                Ok(_) => return Err(format!("WRONG BYTES at place {place}")),
                Err(error) => return fine(rig, Err(error)),
            }
        }
        let allowed = known.now == Some(state) || known.perhaps.contains(&Some(state));
        // What was evicted may be found again, without pins, if nothing newer is held: be it over an older version that
        // was written meanwhile, whatever pins that had.
        let comes_back = known.seen_empty
            && !is_pinned(&state)
            && known.now.is_none_or(|now| {
                now.number < state.number || now.number == state.number && !is_pinned(&now)
            });
        if !allowed && !comes_back {
            return Err(format!("place {place} holds {state:?}, but {known:?}"));
        }
        known.now = Some(state);
        known.perhaps.clear();
        Ok(())
    }

    /// Everything pinned is met, with its state; and the counts are the sums.
    fn walks(&mut self, rig: &Rig) -> Outcome {
        if self.cut || self.places.iter().any(|place| !place.perhaps.is_empty()) {
            return Ok(());
        }
        let limit = 1 + self.rng.index(9);
        let mut sums = PinnedCounts::default();
        let (mut dirty, mut hinted, mut all) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (place, known) in self.places.iter().enumerate() {
            let Some(now) = known.now.filter(is_pinned) else {
                continue;
            };
            let size = if now.deleted {
                0
            } else {
                body(place, size_number(place, &now)).len() as u64
            };
            sums.dirty += u64::from(now.pins.dirty);
            sums.hints += u64::from(now.pins.hint);
            let met = (now.number, now.deleted, now.pins.dirty, now.pins.hint, size);
            all.insert(key_of(place), met);
            if now.pins.dirty {
                sums.dirty_bytes += size;
                dirty.insert(key_of(place), met);
            }
            if now.pins.hint {
                sums.hint_bytes += size;
                hinted.insert(key_of(place), met);
            }
        }
        let counts = rig.node().replica().pinned();
        if counts != sums {
            return Err(format!("{counts:?} are told, {sums:?} are there"));
        }
        for (which, expected) in [
            (Walk::Dirty, &dirty),
            (Walk::Hinted, &hinted),
            (Walk::All, &all),
        ] {
            let mut met = BTreeMap::new();
            for info in walk(rig, which, if which == Walk::All { 500 } else { limit }) {
                let number = info.version.clock.saturating_sub(version(0).clock);
                let seen = (
                    number,
                    info.deleted,
                    info.pins.dirty,
                    info.pins.hint,
                    info.size_bytes,
                );
                if which != Walk::All || info.pins != NONE {
                    met.insert(info.key, seen);
                }
            }
            if met != *expected {
                return Err(format!("a walk {which:?} meets {met:?}, not {expected:?}"));
            }
        }
        Ok(())
    }
}

const fn is_pinned(state: &State) -> bool {
    state.pins.dirty || state.pins.hint
}

/// What a place holds after a write that was answered.
fn after_write(place: usize, now: Option<State>, asked: State) -> State {
    let Some(now) = now else { return asked };
    if place < BLOBS {
        let keeps = !asked.deleted && !now.deleted;
        let pins = if keeps {
            plus(now.pins, asked.pins)
        } else {
            asked.pins
        };
        return State { pins, ..asked };
    }
    match asked.number.cmp(&now.number) {
        std::cmp::Ordering::Less => now,
        std::cmp::Ordering::Greater => asked,
        std::cmp::Ordering::Equal => State {
            pins: plus(now.pins, asked.pins),
            ..now
        },
    }
}

/// A refusal is fine when the disk is off, or the store full.
fn fine(rig: &Rig, outcome: Result<(), Error>) -> Outcome {
    match outcome {
        Ok(()) => Ok(()),
        Err(_) if rig.disk.is_off() => Ok(()),
        Err(error) if error.code() == zimcache_types::Code::OutOfSpace => Ok(()),
        Err(error) => Err(format!(
            "{error:?}; the disk's last calls:\n{}",
            rig.disk_log()
        )),
    }
}

fn case(seed: u64) -> Outcome {
    let mut rig = Rig::fresh(seed);
    let mut model = Model::new(seed);
    for number in 0..70 {
        let step = model.step(&mut rig);
        step.map_err(|why| format!("step {number}: {why}"))?;
        if rig.disk.is_off() || model.rng.permille(60) {
            let opened = model.reopen(&mut rig);
            opened.map_err(|why| format!("after step {number}: {why}"))?;
        }
    }
    model.reopen(&mut rig)
}

#[test]
fn records_are_as_the_model_says_whatever_happens() {
    Row::new("records", 400, 45).run(case);
}

#[test]
fn what_the_model_says_of_a_pinned_blob_is_checked() {
    let rig = Rig::fresh(1);
    let mut model = Model::new(1);
    model.places[0].now = Some(State {
        number: 0,
        deleted: false,
        pins: Pins {
            dirty: false,
            hint: true,
        },
    });
    assert!(model.look(&rig, 0).is_err(), "it was never put");
    put_blob(&rig, &body(0, 0), NONE);
    assert!(open(&rig, &key_of(0)).is_some());
    assert!(model.look(&rig, 0).is_err(), "its pin is gone");
    assert!(model.walks(&rig).is_err());
}
