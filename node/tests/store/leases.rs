//! "Present" is a promise for at least four hours, also across a crash, whatever is written meanwhile.

use std::time::Duration;

use bytes::Bytes;
use zimcache_node::testing::SimRng;
use zimcache_store::{
    ByteRange, CreateOptions, GcOptions, Retention, Touch, UsageKind, testing::conformance::pattern,
};
use zimcache_types::{Clock as _, Digest, Function, Timestamp};

use crate::{
    harness::{Rig, clock},
    ops::team,
    volume::Row,
};

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

#[test]
fn where_blobs_expire_a_lease_that_holds_is_not_written_down_again() {
    let rig = Rig::fresh(9);
    let looked_up = bodies(100);
    put(&rig, &looked_up, &CreateOptions::default());
    rig.node().admin().set_retention(Retention {
        default_ttl: Some(2 * HOUR),
        ..Retention::default()
    });
    let digests = digests(&looked_up);
    assert!(!missing(&rig, &digests, Touch::Lease).contains(&true));
    for after in [HOUR, 2 * HOUR] {
        rig.clock.advance(after);
        let before = rig.disk.counts().written_bytes;
        assert!(!missing(&rig, &digests, Touch::Lease).contains(&true));
        assert_eq!(rig.disk.counts().written_bytes, before);
    }
}

#[test]
fn what_the_store_writes_down_of_leases_is_nobodys_entry() {
    let mut rig = Rig::fresh(10);
    let looked_up = bodies(100);
    put(&rig, &looked_up, &CreateOptions::default());
    assert!(!missing(&rig, &digests(&looked_up), Touch::Lease).contains(&true));
    for _ in 0..2 {
        let stats = rig.stats();
        assert_eq!((stats.blobs, stats.entries), (looked_up.len() as u64, 0));
        let usage = rig.wait(rig.node().admin().usage()).unwrap().unwrap();
        assert!(usage.iter().all(|row| row.kind == UsageKind::Blob));
        rig.crash(10).unwrap();
    }
}

#[test]
fn a_machine_that_starts_with_its_clock_hours_behind_keeps_its_leases_and_starts_new_ones() {
    for seed in 0..4 {
        let mut rig = Rig::fresh(seed);
        rig.clock.advance(10 * HOUR);
        let (written, looked_up) = (bodies(1), bodies(100));
        put(&rig, &written, &LEASE);
        put(&rig, &looked_up, &CreateOptions::default());
        missing(&rig, &digests(&looked_up), Touch::Lease);
        rig.clock = clock();
        rig.crash(seed).unwrap();
        let (written_now, looked_up_now) = (bodies(200), bodies(300));
        put(&rig, &written_now, &LEASE);
        put(&rig, &looked_up_now, &CreateOptions::default());
        missing(&rig, &digests(&looked_up_now), Touch::Lease);
        rig.crash(seed).unwrap();
        rig.clock.advance(3 * HOUR + HOUR / 2);
        flood(&rig, 10_000);
        let before = [written, looked_up].concat();
        let after = [written_now, looked_up_now].concat();
        assert!(all_read(&rig, &before), "seed {seed}: leased before");
        assert!(all_read(&rig, &after), "seed {seed}: leased behind time");
        assert_eq!(rig.leases_broken(), 0);
    }
}

#[test]
fn a_lease_that_ended_early_and_is_evicted_after_a_restart_is_counted() {
    let mut rig = Rig::fresh(0);
    let leased: Vec<Bytes> = (0..550).map(|number| pattern(number, 100_000)).collect();
    for (number, some) in leased.chunks(50).enumerate() {
        put(&rig, some, &LEASE);
        // Half of them were used: they move, although their leases have ended.
        missing(&rig, &digests(&some[..25]), Touch::Use);
        rig.clock.advance(HOUR / 12);
        if number % 4 == 3 {
            rig.crash(number as u64).unwrap();
        }
    }
    rig.crash(1).unwrap();
    flood(&rig, 10_000);
    let gone = missing(&rig, &digests(&leased), Touch::No);
    let gone = gone.iter().filter(|gone| **gone).count() as u64;
    assert!(gone > 100, "{gone} are gone");
    assert!(
        gone <= rig.leases_broken(),
        "{gone} are gone, {} leases were broken",
        rig.leases_broken()
    );
}

/// A blob of the interleavings below.
struct Watched {
    body: Bytes,
    digest: Digest,
    promised_until: Option<Timestamp>,
}

impl Watched {
    fn new(seed: u64, number: u64) -> Watched {
        let sizes = [100, 5_000, 60_000, 200_000, 1_500_000];
        let size = sizes[number as usize % sizes.len()];
        let body = pattern(seed << 20 | number, size);
        Watched {
            digest: Digest::of(Function::Sha256, &body),
            body,
            promised_until: None,
        }
    }

    /// What was promised is there, with the bytes that were put.
    fn is_as_promised(&self, rig: &Rig) -> bool {
        let now = rig.clock.now();
        self.promised_until.is_none_or(|end| now >= end)
            || all_read(rig, std::slice::from_ref(&self.body))
    }
}

/// Leases, uses, floods, collections, restarts and hours in any order, with less than half of the store under leases.
fn interleave(seed: u64) -> Result<(), String> {
    let mut rig = Rig::fresh(seed);
    let mut rng = SimRng::new(seed);
    let mut watched: Vec<Watched> = (0..15).map(|number| Watched::new(seed, number)).collect();
    let mut flooded = 1 << 40;
    for step in 0..40 {
        let at = rng.index(watched.len());
        let (one, until) = (&mut watched[at], rig.clock.now().plus(4 * HOUR));
        let bodies = std::slice::from_ref(&one.body);
        match rng.below(10) {
            0..2 => {
                put(&rig, bodies, &LEASE);
                one.promised_until = Some(until);
            }
            2 => put(&rig, bodies, &CreateOptions::default()),
            3..5 => {
                if missing(&rig, &[one.digest], Touch::Lease) == [false] {
                    one.promised_until = Some(until);
                }
            }
            5 => drop(missing(&rig, &[one.digest], Touch::Use)),
            6 => {
                for _ in 0..rng.below(300) {
                    flooded += 1;
                    put(
                        &rig,
                        &[pattern(flooded, 100_000)],
                        &CreateOptions::default(),
                    );
                }
            }
            7 => {
                let options = GcOptions {
                    older_than: Some(HOUR),
                    ..GcOptions::default()
                };
                rig.wait(rig.node().admin().gc(options))?.unwrap();
            }
            8 => rig.clock.advance(rng.below(5 * 60) as u32 * HOUR / 60),
            _ if rng.permille(500) => rig.crash(seed + step).map_err(|error| error.to_string())?,
            _ => rig.kill(seed + step).map_err(|error| error.to_string())?,
        }
        if let Some(gone) = watched.iter().position(|one| !one.is_as_promised(&rig)) {
            return Err(format!("blob {gone} is gone at step {step}"));
        }
    }
    match rig.leases_broken() {
        0 => Ok(()),
        broken => Err(format!("{broken} leases broken")),
    }
}

#[test]
fn whatever_happens_in_four_hours_a_promised_blob_is_there() {
    Row::new("leases", 60, 30).run(interleave);
}
