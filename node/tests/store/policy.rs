//! Row 12: eviction hits about as often as an exact LRU of the same size, on a skewed trace with scans in it.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use zimcache_node::testing::SimRng;
use zimcache_store::{
    ByteRange, CreateOptions, Retention, Touch,
    testing::conformance::{Content, content, pattern},
};
use zimcache_types::{Digest, Function};

use crate::{
    harness::{PATIENCE, Rig},
    ops::team,
    volume::scaled,
};

const OBJECTS: usize = 6000;
const SIZE: usize = 24_000;

/// An exact LRU over numbers.
#[derive(Default)]
struct Lru {
    last_use: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    now: u64,
}

impl Lru {
    /// Uses an object; whether it was there. Holds at most so many.
    fn hit(&mut self, object: u64, room: usize) -> bool {
        self.now += 1;
        let before = self.last_use.insert(object, self.now);
        if let Some(before) = before {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.now, object);
        while self.by_use.len() > room {
            if let Some((_, oldest)) = self.by_use.pop_first() {
                self.last_use.remove(&oldest);
            }
        }
        before.is_some()
    }
}

/// A trace: a skewed choice among all objects, and now and then a scan over objects never seen again.
fn trace(rng: &mut SimRng, length: u64) -> Vec<u64> {
    let weights: Vec<f64> = (1..=OBJECTS)
        .map(|rank| 1.0 / (rank as f64).powf(0.9))
        .collect();
    let mut sums: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let total = sums.pop().unwrap_or_default();
    let mut fresh = 1_000_000;
    let mut trace = Vec::new();
    while (trace.len() as u64) < length {
        if rng.permille(1) {
            trace.extend(fresh..fresh + 300);
            fresh += 300;
        } else {
            let point = rng.unit() * total;
            trace.push(sums.partition_point(|sum| *sum < point) as u64);
        }
    }
    trace
}

#[test]
fn eviction_hits_about_as_often_as_an_exact_lru() {
    let rig = Rig::fresh(1);
    let (stores, team) = (rig.stores(), team());
    let requests = scaled(60_000);
    let trace = trace(&mut SimRng::new(12), requests);
    let (mut hits, mut most_live) = (0u64, 0);
    let warm = trace.len() / 3;
    for (number, object) in trace.iter().enumerate() {
        let body = pattern(*object, SIZE);
        // Names need not be digests of the whole body to be told apart, but the store verifies them.
        let digest = Digest::of(Function::Blake3, &body);
        let missing = rig
            .runtime
            .block_on(stores.blobs.missing(team, &[digest], Touch::Use))
            .unwrap();
        if missing[0] {
            let put = stores.put_blob(team, &digest, &body, SIZE, CreateOptions::default());
            rig.runtime.block_on(put).unwrap();
        } else {
            hits += u64::from(number >= warm);
        }
        most_live = most_live.max(rig.stats().live_bytes);
    }
    let counted = (trace.len() - warm) as f64;
    let ours = hits as f64 / counted;
    let exact = |room: usize| {
        let mut lru = Lru::default();
        let hits = trace
            .iter()
            .enumerate()
            .filter(|(number, object)| lru.hit(**object, room) && *number >= warm);
        hits.count() as f64 / counted
    };
    let same_room = exact(most_live as usize / (SIZE + 96));
    let whole_disk = exact((64 << 20) / (SIZE + 96));
    println!(
        "row 12: {} requests, hit ratio {ours:.4}; exact LRU {same_room:.4} with the same live bytes, {whole_disk:.4} \
         with the whole capacity",
        trace.len()
    );
    assert!(ours >= same_room - 0.02, "{ours} against {same_room}");
}

const HOUR: Duration = Duration::from_hours(1);
const MIB: usize = 1 << 20;

/// Blobs of 100 000 bytes, so many MiB of them.
fn put_mib(rig: &Rig, first: u64, mib: usize) -> Vec<Digest> {
    let numbers = first..first + (mib * MIB / 100_000) as u64;
    let put = |number| {
        let body = content(Content::Noise, number, 100_000);
        let digest = Digest::of(Function::Blake3, &body);
        let stores = rig.stores();
        let put = stores.put_blob(team(), &digest, &body, 100_000, CreateOptions::default());
        rig.wait(put).unwrap().unwrap();
        digest
    };
    numbers.map(put).collect()
}

/// How many of these are there.
fn there(rig: &Rig, digests: &[Digest]) -> usize {
    let blobs = rig.node().blobs();
    let missing = rig.wait(blobs.missing(team(), digests, Touch::No));
    let missing = missing.unwrap().unwrap();
    missing.iter().filter(|missing| !**missing).count()
}

/// What is left of data that was used but is old, and of data that is young and was never used, in hundredths, once
/// new data needs room.
fn old_and_young_left(min_lifetime: Duration) -> (usize, usize) {
    let rig = Rig::fresh(0);
    rig.node().admin().set_retention(Retention {
        min_lifetime,
        ..Retention::default()
    });
    let old = put_mib(&rig, 0, 33);
    rig.clock.advance(10 * HOUR);
    for digest in &old {
        let read = async { rig.stores().blob(team(), digest, ByteRange::Full).await };
        assert!(rig.wait(read).unwrap().unwrap().is_some());
    }
    let young = put_mib(&rig, 10_000, 6);
    put_mib(&rig, 20_000, 28);
    let left = |digests: &[Digest]| there(&rig, digests) * 100 / digests.len();
    (left(&old), left(&young))
}

#[test]
fn eviction_spares_the_young_while_anything_older_can_go() {
    let (old_before, young_before) = old_and_young_left(Duration::ZERO);
    let (old_after, young_after) = old_and_young_left(HOUR);
    assert!(young_before < 100, "something had to go: {young_before} %");
    assert_eq!(young_after, 100, "{young_before} % before");
    assert!(old_after < old_before, "{old_after} {old_before}");
}

#[test]
fn a_store_full_of_young_records_goes_on_taking_writes() {
    let rig = Rig::fresh(0);
    rig.node().admin().set_retention(Retention {
        min_lifetime: 1000 * HOUR,
        ..Retention::default()
    });
    let first = put_mib(&rig, 0, 20);
    let last = put_mib(&rig, 10_000, 120);
    assert_eq!(there(&rig, &first), 0, "the oldest of the young leave");
    let newest = &last[last.len() - 200..];
    assert_eq!(there(&rig, newest), 200, "20 MB of the newest are spared");
}

#[test]
fn what_expired_leaves_the_index_and_its_segments_are_free_again() {
    let rig = Rig::fresh(0);
    rig.node().admin().set_retention(Retention {
        default_ttl: Some(HOUR),
        ..Retention::default()
    });
    put_mib(&rig, 0, 30);
    rig.clock.advance(2 * HOUR);
    put_mib(&rig, 10_000, 2);
    let deadline = Instant::now() + PATIENCE;
    while rig.stats().live_bytes > 4 << 20 {
        assert!(Instant::now() < deadline, "{:?}", rig.stats());
        std::thread::yield_now();
    }
    let stats = rig.stats();
    assert!(stats.expired_records >= 290, "{stats:?}");
    assert_eq!(stats.evicted_records, 0, "{stats:?}");
    let files = stats.disk_bytes;
    put_mib(&rig, 20_000, 25);
    let stats = rig.stats();
    assert!(
        stats.disk_bytes <= files + (4 << 20),
        "files are used again: {stats:?}"
    );
}
