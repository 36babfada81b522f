//! Row 11: a store that takes in ten times its capacity stays at its size, keeps its promises as far as it can, and
//! does not write much more than it was given.

use bytes::Bytes;
use zimcache_node::testing::SimRng;
use zimcache_store::{
    ByteRange, CreateOptions, EntryMeta, GcOptions, Precondition, Touch,
    testing::conformance::pattern,
};
use zimcache_types::{Digest, Function};

use crate::{
    harness::{PATIENCE, Rig},
    ops::{key, team},
    volume::scaled,
};

const CAPACITY: u64 = 64 << 20;
const SEGMENT: u64 = 1 << 20;

/// Sizes as build caches have them: most are small, most bytes are in large ones.
fn draw_size(rng: &mut SimRng) -> usize {
    let upto = |rng: &mut SimRng, low: u64, high: u64| (low + rng.below(high - low)) as usize;
    match rng.below(100) {
        0..45 => upto(rng, 1, 1 << 10),
        45..75 => upto(rng, 1 << 10, 4 << 10),
        75..92 => upto(rng, 4 << 10, 64 << 10),
        92..98 => upto(rng, 64 << 10, 512 << 10),
        _ => upto(rng, 512 << 10, 3 << 20),
    }
}

/// Puts eight at a time, as clients do.
fn put_all(rig: &Rig, bodies: &[Bytes]) {
    let stores = rig.stores();
    let team = team();
    rig.runtime.block_on(async {
        for group in bodies.chunks(8) {
            let digests: Vec<Digest> = group
                .iter()
                .map(|body| Digest::of(Function::Sha256, body))
                .collect();
            let puts = group.iter().zip(&digests).map(|(body, digest)| {
                stores.put_blob(team, digest, body, 1 << 20, CreateOptions::default())
            });
            for put in futures_util::future::join_all(puts).await {
                put.expect("a cache that has taken in its capacity goes on");
            }
        }
    });
}

#[test]
fn ten_times_the_capacity_goes_through_a_store_that_keeps_its_size() {
    let rig = Rig::fresh(1);
    let made = rig.disk.counts().written_bytes;
    let mut rng = SimRng::new(2);
    let wanted = scaled(10) * CAPACITY;
    let (mut written, mut largest, mut full) = (0, 0, None);
    while written < wanted {
        let bodies: Vec<Bytes> = (0..64)
            .map(|_| pattern(rng.next_u64(), draw_size(&mut rng)))
            .collect();
        written += bodies.iter().map(Bytes::len).sum::<usize>() as u64;
        put_all(&rig, &bodies);
        let stats = rig.stats();
        largest = largest.max(stats.disk_bytes);
        if written > 2 * CAPACITY && full.is_none() {
            full = Some(stats.disk_bytes);
        }
    }
    let stats = rig.stats();
    let amplification = stats.written_disk_bytes as f64 / stats.written_payload_bytes as f64;
    println!(
        "row 11: {written} bytes through {CAPACITY}, {amplification:.3} written per byte, {stats:?}"
    );
    assert!(largest <= CAPACITY, "{largest} bytes on disk");
    // Space is claimed on demand: reclaim starts a few segments before the limit, and those are claimed when it is late.
    let grown = stats.disk_bytes - full.unwrap_or(0);
    assert!(
        grown <= 4 * SEGMENT,
        "{grown} bytes more on disk once the store is full"
    );
    assert!(stats.written_payload_bytes >= written);
    assert!(amplification <= 1.35, "{amplification}");
    assert!(
        stats.live_bytes * 100 >= CAPACITY * 60,
        "most of the capacity holds live data: {stats:?}"
    );
    // A segment may be being sealed right now: written, and counted a moment later.
    let deadline = std::time::Instant::now() + PATIENCE;
    while rig.stats().written_disk_bytes != rig.disk.counts().written_bytes - made {
        let late = std::time::Instant::now() > deadline;
        assert!(!late, "figures tell what the disk got, but for store.meta");
        std::thread::yield_now();
    }
}

#[test]
fn leased_data_outlives_other_data_and_yields_when_all_is_leased() {
    let rig = Rig::fresh(1);
    let (blobs, team) = (rig.node().blobs(), team());
    let leased: Vec<Bytes> = (0..100).map(|number| pattern(number, 60_000)).collect();
    put_all(&rig, &leased);
    let digests: Vec<Digest> = leased
        .iter()
        .map(|body| Digest::of(Function::Sha256, body))
        .collect();
    let absent = |touch| {
        rig.wait(blobs.missing(team, &digests, touch))
            .unwrap()
            .unwrap()
    };
    assert!(!absent(Touch::Lease).contains(&true));
    for round in 0..20u64 {
        let others: Vec<Bytes> = (0..100)
            .map(|n| pattern(1000 + round * 100 + n, 100_000))
            .collect();
        put_all(&rig, &others);
    }
    assert!(rig.stats().evicted_records > 500);
    assert!(
        !absent(Touch::No).contains(&true),
        "a lease keeps a blob for hours"
    );
    assert_eq!(rig.stats().leases_broken, 0);
    // Now everything is leased: writes go on all the same.
    for round in 0..20u64 {
        let others: Vec<Bytes> = (0..100)
            .map(|n| pattern(9000 + round * 100 + n, 100_000))
            .collect();
        put_all(&rig, &others);
        let digests: Vec<Digest> = others
            .iter()
            .map(|body| Digest::of(Function::Sha256, body))
            .collect();
        rig.wait(blobs.missing(team, &digests, Touch::Lease))
            .unwrap()
            .unwrap();
    }
    let stats = rig.stats();
    assert!(stats.leases_broken > 0, "{stats:?}");
    println!(
        "row 11: leases kept under pressure, {} broken when all was leased",
        stats.leases_broken
    );
}

#[test]
fn a_flood_of_blobs_does_not_evict_entries() {
    let rig = Rig::fresh(1);
    let stores = rig.stores();
    for place in 16..32 {
        let body = pattern(place, 2000);
        let put = stores.put_entry(
            key(place as usize),
            &body,
            999,
            EntryMeta::default(),
            Precondition::None,
            None,
        );
        rig.wait(put).unwrap().unwrap();
    }
    let mut rng = SimRng::new(5);
    for _ in 0..30 {
        let bodies: Vec<Bytes> = (0..64).map(|_| pattern(rng.next_u64(), 100_000)).collect();
        put_all(&rig, &bodies);
    }
    for place in 16..32 {
        let value = rig
            .wait(stores.value(key(place as usize), ByteRange::Full))
            .unwrap()
            .unwrap();
        assert!(value == Some(pattern(place, 2000)), "entry {place} is gone");
    }
}

#[test]
fn collecting_down_to_a_target_frees_what_it_says() {
    let rig = Rig::fresh(1);
    let bodies: Vec<Bytes> = (0..200).map(|number| pattern(number, 100_000)).collect();
    put_all(&rig, &bodies);
    let before = rig.stats().live_bytes;
    let admin = rig.node().admin();
    let to_five_mib = GcOptions {
        target_bytes: Some(5 << 20),
        ..GcOptions::default()
    };
    let report = rig.wait(admin.gc(to_five_mib)).unwrap().unwrap();
    let after = rig.stats();
    assert_eq!(
        (report.before_bytes, report.after_bytes),
        (before, after.live_bytes)
    );
    assert!(after.live_bytes <= 5 << 20, "{report:?}");
    assert!(
        after.live_bytes >= 2 << 20,
        "not much more than asked goes: {report:?}"
    );
    assert!(report.evicted_records > 100, "{report:?}");
}
