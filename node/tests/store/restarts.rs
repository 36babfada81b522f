//! Row 6b: a hundred restarts, clean and killed, do not shrink a small store, and evict nothing that fits.

use zimcache_node::{
    Node, RealDisk,
    testing::{SimDisk, SimRng},
};
use zimcache_store::{ByteRange, CreateOptions, testing::conformance::pattern};
use zimcache_types::{Digest, Function};

use std::sync::Arc;

use crate::{
    harness::{Rig, clock, config, runtime, stores},
    ops::team,
    volume::scaled,
};

/// Puts a small blob and returns its name.
fn put(rig: &Rig, seed: u64, size: usize) -> Digest {
    let body = pattern(seed, size);
    let digest = Digest::of(Function::Sha256, &body);
    let stores = rig.stores();
    let put = stores.put_blob(team(), &digest, &body, size, CreateOptions::default());
    rig.wait(put).unwrap().unwrap();
    digest
}

/// How many blobs of 100 kB fit until the first is evicted.
fn capacity(rig: &Rig) -> u64 {
    let before = rig.stats().evicted_records;
    let mut count = 0;
    while rig.stats().evicted_records == before && count < 2000 {
        put(rig, 1_000_000 + count, 100_000);
        count += 1;
    }
    count
}

#[test]
fn a_hundred_restarts_do_not_shrink_the_store() {
    let fresh = capacity(&Rig::fresh(1));
    let mut rig = Rig::fresh(2);
    let mut rng = SimRng::new(3);
    let mut kept = Vec::new();
    let restarts = scaled(100);
    for round in 0..restarts {
        for _ in 0..=rng.below(3) {
            kept.push((round, put(&rig, round, 200 + round as usize)));
        }
        let seed = rng.next_u64();
        match rng.below(3) {
            0 => rig.restart(),
            1 => rig.kill(seed),
            _ => rig.crash(seed),
        }
        .unwrap();
        assert_eq!(rig.stats().evicted_records, 0, "after {round} restarts");
    }
    for (seed, digest) in kept {
        let stores = rig.stores();
        let found = rig
            .wait(stores.blob(team(), &digest, ByteRange::Full))
            .unwrap();
        assert!(found.unwrap() == Some(pattern(seed, 200 + seed as usize)));
    }
    let disk_bytes = rig.stats().disk_bytes;
    assert!(disk_bytes <= 64 << 20, "{disk_bytes} bytes on disk");
    let after = capacity(&rig);
    println!(
        "row 6b: {restarts} restarts; {fresh} blobs of 100 kB fit into a new store, {after} afterwards"
    );
    assert!(after * 100 >= fresh * 93, "{after} fit, {fresh} did before");
}

#[test]
fn restarts_on_a_real_disk_keep_everything() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    for round in 0..20u64 {
        let disk = RealDisk::open(folder.path(), round % 2 == 0).unwrap();
        let node = Node::open(&config(64), Arc::new(disk), clock()).unwrap();
        let found = stores(&node, &clock());
        assert_eq!(found.admin.stats().blobs, round);
        runtime.block_on(async {
            let body = pattern(round, 5000);
            let digest = Digest::of(Function::Sha256, &body);
            let put = found.put_blob(team(), &digest, &body, 999, CreateOptions::default());
            put.await.unwrap();
            for earlier in 0..=round {
                let body = pattern(earlier, 5000);
                let digest = Digest::of(Function::Sha256, &body);
                let blob = found.blob(team(), &digest, ByteRange::Full).await.unwrap();
                assert_eq!(blob, Some(body));
            }
        });
        drop(found);
        if round % 3 == 0 {
            node.close();
        }
    }
}

#[test]
fn a_value_whose_parts_were_evicted_is_absent_after_a_restart_whatever_range_is_asked_for() {
    let mut rig = Rig::open(SimDisk::new(1), config(64)).unwrap();
    let digests: Vec<Digest> = (0..40)
        .map(|number| {
            let body = pattern(number, 3 << 20);
            let digest = Digest::of(Function::Sha256, &body);
            let (stores, options) = (rig.stores(), CreateOptions::default());
            let put = stores.put_blob(team(), &digest, &body, 1 << 20, options);
            rig.wait(put).unwrap().unwrap();
            digest
        })
        .collect();
    rig.kill(1).unwrap();
    let mut absent = 0;
    for digest in &digests {
        let look = |range| {
            let stores = rig.stores();
            rig.wait(async move { stores.blob(team(), digest, range).await })
                .unwrap()
        };
        let beyond = look(ByteRange::From {
            first: 4 << 20,
            last: None,
        });
        let whole = look(ByteRange::Full).unwrap();
        match beyond {
            Ok(found) => assert_eq!((found, whole), (None, None)),
            Err(error) => assert!(whole.is_some(), "{error:?} of a value that is gone"),
        }
        absent += u32::from(look(ByteRange::Full).unwrap().is_none());
    }
    assert!(absent > 10, "{absent} of 40 values were evicted");
}
