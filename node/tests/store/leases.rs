//! "Present" is a promise for at least four hours, also across a crash, whatever is written meanwhile.

use std::time::Duration;

use bytes::Bytes;
use zimcache_store::{ByteRange, CreateOptions, GcOptions, Touch, testing::conformance::pattern};
use zimcache_types::{Digest, Function};

use crate::{harness::Rig, ops::team};

const HOUR: Duration = Duration::from_hours(1);
const LEASE: CreateOptions = CreateOptions {
    resume_as: None,
    limit_bytes: None,
    lease: true,
};

/// Small blobs, one of one part, and one of several.
fn bodies(first: u64) -> Vec<Bytes> {
    let sizes = [100, 5_000, 60_000, 200_000, 1 << 20, 3_500_000];
    let numbered = (first..).zip(sizes);
    numbered
        .map(|(number, size)| pattern(number, size))
        .collect()
}

fn digests(bodies: &[Bytes]) -> Vec<Digest> {
    let digest = |body: &Bytes| Digest::of(Function::Sha256, body);
    bodies.iter().map(digest).collect()
}

fn put(rig: &Rig, bodies: &[Bytes], options: &CreateOptions) {
    let (stores, team) = (rig.stores(), team());
    for body in bodies {
        let digest = Digest::of(Function::Sha256, body);
        let put = stores.put_blob(team, &digest, body, 64 << 10, options.clone());
        rig.wait(put).unwrap().unwrap();
    }
}

fn missing(rig: &Rig, digests: &[Digest], touch: Touch) -> Vec<bool> {
    let blobs = rig.node().blobs();
    let found = blobs.missing(team(), digests, touch);
    rig.wait(found).unwrap().unwrap()
}

/// Three times what the store holds, which nobody asks for again.
fn flood(rig: &Rig, first: u64) {
    for number in 0..2_000 {
        let body = pattern(first + number, 100_000);
        put(rig, &[body], &CreateOptions::default());
    }
}

/// Whether all is there, and reads as it was put.
fn all_read(rig: &Rig, bodies: &[Bytes]) -> bool {
    let blobs = rig.node().blobs();
    bodies.iter().zip(digests(bodies)).all(|(body, digest)| {
        let read = async {
            let opened = blobs.open(team(), &digest, ByteRange::Full).await.unwrap();
            Some(opened?.read_all(u64::MAX).await.unwrap())
        };
        rig.wait(read).unwrap().is_some_and(|read| read == *body)
    })
}

#[test]
fn a_lease_survives_a_restart_and_whatever_is_written_after_it() {
    for seed in 0..4 {
        let mut rig = Rig::fresh(seed);
        let (written, looked_up) = (bodies(1), bodies(100));
        put(&rig, &written, &LEASE);
        put(&rig, &looked_up, &CreateOptions::default());
        let found = missing(&rig, &digests(&looked_up), Touch::Lease);
        assert!(!found.contains(&true));
        if seed % 2 == 0 {
            rig.crash(seed).unwrap();
        } else {
            rig.kill(seed).unwrap();
        }
        rig.clock.advance(3 * HOUR + HOUR / 2);
        flood(&rig, 10_000);
        assert!(rig.stats().evicted_records > 500, "{:?}", rig.stats());
        assert!(
            all_read(&rig, &written),
            "seed {seed}: written under a lease"
        );
        assert!(
            all_read(&rig, &looked_up),
            "seed {seed}: said to be present"
        );
        assert_eq!(rig.stats().leases_broken, 0);
    }
}

#[test]
fn a_lease_that_moved_with_its_blob_survives_a_restart() {
    let mut rig = Rig::fresh(3);
    let (written, looked_up) = (bodies(1), bodies(100));
    put(&rig, &written, &LEASE);
    put(&rig, &looked_up, &CreateOptions::default());
    missing(&rig, &digests(&looked_up), Touch::Lease);
    flood(&rig, 10_000);
    rig.crash(3).unwrap();
    flood(&rig, 20_000);
    assert!(all_read(&rig, &written) && all_read(&rig, &looked_up));
}

#[test]
fn nobody_is_told_present_before_the_lease_is_on_disk() {
    let mut promised = 0;
    for seed in 0..24 {
        let mut rig = Rig::fresh(seed);
        let looked_up = bodies(100);
        put(&rig, &looked_up, &CreateOptions::default());
        let digests = digests(&looked_up);
        rig.disk.cut_power_after(seed % 6);
        let (blobs, team) = (rig.node().blobs(), team());
        let told = rig
            .wait(blobs.missing(team, &digests, Touch::Lease))
            .unwrap();
        let kept = told.is_ok_and(|missing| !missing.contains(&true));
        rig.crash(seed).unwrap();
        if kept {
            promised += 1;
            flood(&rig, 10_000);
            assert!(all_read(&rig, &looked_up), "seed {seed}");
        }
    }
    assert!(
        (1..24).contains(&promised),
        "{promised} of 24 were promised"
    );
}

#[test]
fn a_lease_is_written_down_once_in_eight_hours() {
    let mut rig = Rig::fresh(5);
    let looked_up = bodies(100);
    put(&rig, &looked_up, &CreateOptions::default());
    let digests = digests(&looked_up);
    let written_by = |rig: &Rig| {
        let before = rig.disk.counts().written_bytes;
        assert!(!missing(rig, &digests, Touch::Lease).contains(&true));
        rig.disk.counts().written_bytes - before
    };
    assert!(written_by(&rig) > 0, "the first time");
    assert_eq!(written_by(&rig), 0, "the second time");
    rig.clock.advance(7 * HOUR);
    assert_eq!(written_by(&rig), 0, "after seven hours");
    rig.clock.advance(2 * HOUR);
    assert!(written_by(&rig) > 0, "after nine hours");
    rig.crash(5).unwrap();
    rig.clock.advance(5 * HOUR);
    flood(&rig, 10_000);
    assert!(
        all_read(&rig, &looked_up),
        "five hours after the last promise"
    );
}

#[test]
fn a_lease_ends_after_twelve_hours_also_one_that_was_read_meanwhile() {
    let rig = Rig::fresh(6);
    let written = bodies(1);
    put(&rig, &written, &LEASE);
    rig.clock.advance(11 * HOUR);
    assert!(all_read(&rig, &written));
    rig.clock.advance(HOUR + HOUR / 2);
    (1..4).for_each(|round| flood(&rig, round * 10_000));
    assert!(!all_read(&rig, &written), "nothing keeps it any more");
}

#[test]
fn a_lease_ends_after_a_restart_too() {
    let mut rig = Rig::fresh(6);
    let written = bodies(1);
    put(&rig, &written, &LEASE);
    rig.crash(6).unwrap();
    rig.clock.advance(13 * HOUR);
    flood(&rig, 10_000);
    assert!(!all_read(&rig, &written), "nothing keeps it any more");
}

#[test]
fn garbage_collection_honours_leases_after_a_restart() {
    let mut rig = Rig::fresh(7);
    let (written, looked_up, others) = (bodies(1), bodies(100), bodies(200));
    put(&rig, &written, &LEASE);
    put(&rig, &looked_up, &CreateOptions::default());
    put(&rig, &others, &CreateOptions::default());
    missing(&rig, &digests(&looked_up), Touch::Lease);
    rig.crash(7).unwrap();
    rig.clock.advance(3 * HOUR);
    let admin = rig.node().admin();
    let options = GcOptions {
        older_than: Some(HOUR),
        ..GcOptions::default()
    };
    rig.wait(admin.gc(options)).unwrap().unwrap();
    assert!(all_read(&rig, &written) && all_read(&rig, &looked_up));
    assert!(missing(&rig, &digests(&others), Touch::No).contains(&true));
}

#[test]
fn a_blob_that_is_sent_again_under_a_lease_has_one() {
    let mut rig = Rig::fresh(8);
    let again = bodies(1);
    put(&rig, &again, &CreateOptions::default());
    put(&rig, &again, &LEASE);
    rig.crash(8).unwrap();
    flood(&rig, 10_000);
    assert!(all_read(&rig, &again));
}
