//! Row 12: eviction hits about as often as an exact LRU of the same size, on a skewed trace with scans in it.

use std::collections::{BTreeMap, HashMap};

use zimcache_node::testing::SimRng;
use zimcache_store::{CreateOptions, Touch, testing::conformance::pattern};
use zimcache_types::{Digest, Function};

use crate::{harness::Rig, ops::team, volume::scaled};

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
