//! What is pinned stays until it is settled, through eviction, moves and crashes; what was settled does not come back.

use std::collections::BTreeSet;

use bytes::Bytes;
use zimcache_store::{
    ByteRange, CreateOptions, EntryMeta, GcOptions, PinnedCounts, Pins, Precondition, RecordHead,
    RecordInfo, RecordKey, RecordOptions, Retention, Version, Walk, WalkMark,
    testing::conformance::pattern,
};
use zimcache_types::{Clock as _, Code, Digest, EntryKey, EntryKind, Function, Namespace};

use crate::{
    harness::Rig,
    ops::{key, team},
    records::{
        BOTH, DIRTY, HINT, NONE, blob, delete_entry, deletion, entry, flood, head, open, put_blob,
        put_entry, read, version, write,
    },
};

/// Small blobs, one of one part, and one of several.
fn bodies(first: u64) -> Vec<Bytes> {
    let sizes = [100, 5_000, 60_000, 200_000, 1 << 20, 3_500_000];
    let numbered = (first..).zip(sizes);
    numbered
        .map(|(number, size)| pattern(number, size))
        .collect()
}

fn put_blobs(rig: &Rig, bodies: &[Bytes], pins: Pins) {
    for body in bodies {
        put_blob(rig, body, pins);
    }
}

/// Settles records.
fn settle(rig: &Rig, records: &[(RecordKey, Version)], pins: Pins) {
    let replica = rig.node().replica();
    rig.wait(replica.settle(records, pins)).unwrap().unwrap();
}

/// Settles blobs.
fn settle_blobs(rig: &Rig, bodies: &[Bytes], pins: Pins) {
    let named = bodies.iter().map(|body| (blob(body), Version::default()));
    settle(rig, &named.collect::<Vec<_>>(), pins);
}

/// Evicts all that may be.
fn collect_all(rig: &Rig) {
    let admin = rig.node().admin();
    let options = GcOptions {
        target_bytes: Some(0),
        older_than: Some(std::time::Duration::ZERO),
        ..GcOptions::default()
    };
    rig.wait(admin.gc(options)).unwrap().unwrap();
}

fn pinned(rig: &Rig) -> PinnedCounts {
    rig.node().replica().pinned()
}

/// All that a walk meets, in steps of so many.
pub(crate) fn walk(rig: &Rig, which: Walk, limit: usize) -> Vec<RecordInfo> {
    let replica = rig.node().replica();
    let (mut met, mut mark): (Vec<RecordInfo>, Option<WalkMark>) = (Vec::new(), None);
    loop {
        let step = rig.wait(replica.walk(which, mark, limit)).unwrap().unwrap();
        assert!(step.0.len() <= limit);
        met.extend(step.0);
        match step.1 {
            Some(next) => mark = Some(next),
            None => return met,
        }
    }
}

/// The pins of blobs that must all be there, with their bytes.
fn pins_of(rig: &Rig, bodies: &[Bytes]) -> Vec<Pins> {
    let pins = bodies.iter().map(|body| {
        let (_, pins, value) = read(rig, &blob(body)).expect("a pinned blob is there");
        assert!(value == *body);
        pins
    });
    pins.collect()
}

#[test]
fn what_is_pinned_survives_eviction_and_every_crash() {
    for seed in 0..4u64 {
        let mut rig = Rig::fresh(seed);
        let (kept, others) = (bodies(1), bodies(100));
        put_blobs(&rig, &kept, BOTH);
        put_blobs(&rig, &others, NONE);
        for (place, body) in kept.iter().enumerate() {
            put_entry(&rig, place, 1, body, DIRTY);
        }
        delete_entry(&rig, 9, 1, HINT);
        for round in 0..3 {
            let again = seed * 10 + round;
            match again % 3 {
                0 => rig.crash(again).unwrap(),
                1 => rig.kill(again).unwrap(),
                _ => rig.restart().unwrap(),
            }
            flood(&rig, (again + 1) << 20);
            assert_eq!(pins_of(&rig, &kept), vec![BOTH; kept.len()]);
            for (place, body) in kept.iter().enumerate() {
                let (head, pins, value) = read(&rig, &entry(place)).unwrap();
                assert_eq!((head.version, pins), (version(1), DIRTY));
                assert!(value == *body, "seed {seed}, round {round}, entry {place}");
            }
            let (head, pins, _) = read(&rig, &entry(9)).unwrap();
            assert_eq!((head.deleted, pins), (true, HINT));
        }
        assert!(others.iter().any(|body| open(&rig, &blob(body)).is_none()));
    }
}

#[test]
fn a_pin_is_as_durable_as_the_answer() {
    let mut answered = 0;
    for cut in 0..30 {
        let mut rig = Rig::fresh(cut);
        let body = &bodies(1)[cut as usize % 6];
        let existing = cut % 2 == 0;
        if existing {
            put_blob(&rig, body, NONE);
        }
        rig.disk.cut_power_after(cut / 2 % 12);
        let put = write(&rig, &blob(body), RecordHead::default(), body, HINT);
        rig.crash(cut).unwrap();
        if put.is_ok() {
            answered += 1;
            flood(&rig, 1 << 20);
            assert_eq!(
                pins_of(&rig, std::slice::from_ref(body)),
                [HINT],
                "cut {cut}"
            );
        }
    }
    assert!((1..30).contains(&answered), "{answered} of 30");
}

#[test]
fn a_blob_that_is_there_gets_the_pins_it_lacks() {
    let mut rig = Rig::fresh(3);
    let all = bodies(1);
    for pins in [NONE, HINT, DIRTY] {
        put_blobs(&rig, &all, pins);
    }
    let bytes: u64 = all.iter().map(|body| body.len() as u64).sum();
    let count = all.len() as u64;
    let expected = PinnedCounts {
        dirty: count,
        dirty_bytes: bytes,
        hints: count,
        hint_bytes: bytes,
    };
    for round in 0..3 {
        assert_eq!(pinned(&rig), expected, "round {round}");
        assert_eq!(pins_of(&rig, &all), vec![BOTH; all.len()]);
        flood(&rig, (round + 1) << 20);
        rig.crash(round).unwrap();
    }
}

#[test]
fn a_version_that_is_there_gets_the_pins_it_lacks_and_a_lower_one_none() {
    let mut rig = Rig::fresh(4);
    let body = pattern(1, 2_500_000);
    put_entry(&rig, 1, 5, &body, NONE);
    put_entry(&rig, 1, 4, &body, DIRTY);
    assert_eq!(read(&rig, &entry(1)).unwrap().1, NONE);
    put_entry(&rig, 1, 5, &body, HINT);
    delete_entry(&rig, 2, 5, NONE);
    delete_entry(&rig, 2, 5, HINT);
    for round in 0..2 {
        assert_eq!(read(&rig, &entry(1)).unwrap().1, HINT);
        assert_eq!(read(&rig, &entry(2)).unwrap().1, HINT);
        rig.crash(round).unwrap();
    }
}

#[test]
fn what_was_settled_does_not_come_back() {
    for seed in 0..6u64 {
        let mut rig = Rig::fresh(seed);
        let all = bodies(1);
        put_blobs(&rig, &all, BOTH);
        for (place, body) in all.iter().enumerate() {
            put_entry(&rig, place, 1, body, BOTH);
        }
        // Moved before, after, or never.
        if seed % 3 == 0 {
            flood(&rig, 1 << 20);
        }
        settle_blobs(&rig, &all, HINT);
        let entries = (0..all.len()).map(|place| (entry(place), version(1)));
        settle(&rig, &entries.collect::<Vec<_>>(), HINT);
        if seed % 3 == 1 {
            (2..5).for_each(|round| flood(&rig, round << 20));
        }
        for round in 0..3 {
            assert_eq!(pins_of(&rig, &all), vec![DIRTY; all.len()], "seed {seed}");
            for place in 0..all.len() {
                assert_eq!(read(&rig, &entry(place)).unwrap().1, DIRTY, "seed {seed}");
            }
            let counts = pinned(&rig);
            assert_eq!((counts.hints, counts.hint_bytes), (0, 0));
            assert_eq!(counts.dirty, 2 * all.len() as u64);
            if seed % 2 == 0 {
                rig.crash(seed + round).unwrap();
            } else {
                rig.restart().unwrap();
            }
        }
        settle_blobs(&rig, &all, BOTH);
        collect_all(&rig);
        assert!(all.iter().all(|body| open(&rig, &blob(body)).is_none()));
    }
}

#[test]
fn a_pin_that_comes_and_goes_many_times_is_what_it_was_last() {
    let mut rig = Rig::fresh(6);
    let all = bodies(1);
    put_blobs(&rig, &all, NONE);
    for round in 0..8u64 {
        let pins = if round % 2 == 0 { HINT } else { NONE };
        if pins == HINT {
            put_blobs(&rig, &all, HINT);
        } else {
            settle_blobs(&rig, &all, HINT);
        }
        if round % 3 == 2 && pins == HINT {
            flood(&rig, (round + 1) << 20);
        }
        rig.crash(round).unwrap();
        if pins == HINT {
            assert_eq!(pins_of(&rig, &all), vec![HINT; all.len()], "round {round}");
        }
        assert_eq!(pinned(&rig).hints, if pins == HINT { 6 } else { 0 });
    }
}

#[test]
fn a_newer_version_is_not_settled_by_an_older_one() {
    let mut rig = Rig::fresh(7);
    let body = pattern(1, 200_000);
    put_entry(&rig, 1, 1, &body, HINT);
    settle(&rig, &[(entry(1), version(1))], HINT);
    assert_eq!(pinned(&rig).hints, 0);
    put_entry(&rig, 1, 2, &body, HINT);
    settle(&rig, &[(entry(1), version(1))], BOTH);
    delete_entry(&rig, 2, 2, HINT);
    settle(
        &rig,
        &[(entry(2), version(1)), (entry(3), version(1))],
        HINT,
    );
    for round in 0..3 {
        assert_eq!(read(&rig, &entry(1)).unwrap().1, HINT, "round {round}");
        assert_eq!(read(&rig, &entry(2)).unwrap().1, HINT, "round {round}");
        assert_eq!(pinned(&rig).hints, 2);
        rig.crash(round).unwrap();
    }
    settle(
        &rig,
        &[(entry(1), version(2)), (entry(2), version(2))],
        HINT,
    );
    rig.crash(9).unwrap();
    assert_eq!(pinned(&rig), PinnedCounts::default());
}

#[test]
fn a_blob_that_was_settled_deleted_and_put_again_is_pinned_anew() {
    let mut rig = Rig::fresh(8);
    let all = bodies(1);
    put_blobs(&rig, &all, HINT);
    settle_blobs(&rig, &all, HINT);
    for body in &all {
        let gone = deletion(Version::default());
        write(&rig, &blob(body), gone, &Bytes::new(), NONE).unwrap();
        put_blob(&rig, body, HINT);
    }
    rig.crash(1).unwrap();
    assert_eq!(pins_of(&rig, &all), vec![HINT; all.len()]);
}

#[test]
fn what_is_pinned_at_once_by_many_is_pinned_by_all_of_them() {
    let mut rig = Rig::fresh(9);
    for round in 0..20u64 {
        let body = &bodies(round * 10)[round as usize % 6];
        let key = blob(body);
        let replica = rig.node().replica();
        let put = |pins: Pins| {
            let (replica, key) = (&replica, &key);
            async move {
                let head = RecordHead::default();
                let options = RecordOptions::default();
                let mut writer = replica.write_record(key, head, options).await?;
                writer.write(body.clone()).await?;
                writer.commit(pins).await
            }
        };
        let put = rig.wait(async { tokio::join!(put(HINT), put(NONE), put(DIRTY), put(NONE)) });
        let (a, b, c, d) = put.unwrap();
        for put in [a, b, c, d] {
            put.unwrap();
        }
        drop(replica);
        assert_eq!(
            pins_of(&rig, std::slice::from_ref(body)),
            [BOTH],
            "round {round}"
        );
        rig.crash(round).unwrap();
        assert_eq!(
            pins_of(&rig, std::slice::from_ref(body)),
            [BOTH],
            "round {round}"
        );
        settle_blobs(&rig, std::slice::from_ref(body), BOTH);
    }
}

#[test]
fn a_walk_meets_everything_that_stays_once_whatever_happens_meanwhile() {
    let mut rig = Rig::fresh(10);
    let all = bodies(1);
    let mut expected = BTreeSet::new();
    for (place, body) in all.iter().enumerate() {
        put_blob(&rig, body, DIRTY);
        put_entry(&rig, place, 1, body, HINT);
        delete_entry(&rig, place + 8, 1, HINT);
        expected.extend([blob(body), entry(place), entry(place + 8)]);
    }
    flood(&rig, 1 << 20);
    rig.crash(1).unwrap();
    let replica = rig.node().replica();
    for limit in [1, 7, 1000] {
        let (mut met, mut mark) = (Vec::new(), None);
        for step in 0.. {
            let walked = rig.wait(replica.walk(Walk::All, mark, limit));
            let (rows, next) = walked.unwrap().unwrap();
            met.extend(rows);
            if step % 40 == 7 {
                for n in 0..40 {
                    put_blob(&rig, &pattern(5_000_000 + step * 40 + n, 100_000), NONE);
                }
            }
            mark = next;
            if mark.is_none() {
                break;
            }
        }
        let keys: Vec<&RecordKey> = met.iter().map(|info| &info.key).collect();
        let once: BTreeSet<&RecordKey> = keys.iter().copied().collect();
        assert_eq!(once.len(), keys.len(), "each once");
        assert!(
            expected.iter().all(|key| once.contains(key)),
            "limit {limit}"
        );
    }
    let dirty = walk(&rig, Walk::Dirty, 4);
    let found: BTreeSet<RecordKey> = dirty.iter().map(|info| info.key.clone()).collect();
    assert_eq!(found, all.iter().map(|body| blob(body)).collect());
    let bytes: u64 = dirty.iter().map(|info| info.size_bytes).sum();
    assert_eq!(bytes, pinned(&rig).dirty_bytes);
    let hinted = walk(&rig, Walk::Hinted, 5);
    assert_eq!(hinted.len(), 2 * all.len());
    for info in hinted {
        assert_eq!((info.version, info.pins), (version(1), HINT));
        assert_eq!(info.deleted, info.size_bytes == 0);
        assert!(info.used.0 <= rig.clock.now().0);
    }
}

#[test]
fn a_walk_knows_nothing_of_what_the_store_keeps_for_itself() {
    let rig = Rig::fresh(11);
    let body = pattern(1, 3_500_000);
    let replica = rig.node().replica();
    let started = rig.wait(async {
        let options = RecordOptions {
            resume_as: Some("unfinished".into()),
            ..Default::default()
        };
        let head = RecordHead::default();
        let mut writer = replica.write_record(&blob(&body), head, options).await?;
        writer.write(body.slice(..2_500_000)).await
    });
    started.unwrap().unwrap();
    put_blob(&rig, &pattern(2, 100), HINT);
    settle_blobs(&rig, &[pattern(2, 100)], HINT);
    let internal = EntryKey::new(team().clone(), EntryKind::Internal, "somebody's").unwrap();
    let head = RecordHead {
        text: internal.text.clone(),
        version: version(1),
        ..RecordHead::default()
    };
    let internal = RecordKey::entry(&internal);
    write(&rig, &internal, head, &pattern(3, 10), NONE).unwrap();
    let met: BTreeSet<RecordKey> = walk(&rig, Walk::All, 3)
        .into_iter()
        .map(|i| i.key)
        .collect();
    assert_eq!(met, BTreeSet::from([blob(&pattern(2, 100)), internal]));
    let stats = rig.stats();
    assert_eq!(stats.blobs, 1);
}

#[test]
fn who_waits_for_pins_hears_of_each_that_comes_after_the_call() {
    let rig = Rig::fresh(12);
    let replica = rig.node().replica();
    let more = replica.pinned_more();
    put_blob(&rig, &pattern(1, 100), NONE);
    put_blob(&rig, &pattern(2, 100), HINT);
    rig.wait(more).unwrap();
    for again in [pattern(1, 100), pattern(2, 100)] {
        let more = replica.pinned_more();
        put_blob(&rig, &again, BOTH);
        rig.wait(more).unwrap();
    }
    put_entry(&rig, 1, 1, &pattern(1, 10), NONE);
    let more = replica.pinned_more();
    delete_entry(&rig, 1, 2, HINT);
    rig.wait(more).unwrap();
}

#[test]
fn a_store_of_which_too_much_is_pinned_refuses_values_until_some_is_settled() {
    let mut rig = Rig::fresh(16);
    let mut held = Vec::new();
    let refused = loop {
        let body = pattern(1 << 20 | held.len() as u64, 700_000);
        match write(&rig, &blob(&body), RecordHead::default(), &body, HINT) {
            Ok(_) => held.push(body),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), Code::OutOfSpace);
    let bytes: usize = held.iter().map(Bytes::len).sum();
    assert!(
        (50..66).contains(&(bytes * 100 / (64 << 20))),
        "{bytes} bytes"
    );
    let entries = rig.node().entries();
    let (meta, rule) = (EntryMeta::default(), Precondition::None);
    let put = entries.put(key(1), meta, rule, None);
    assert_eq!(rig.wait(put).unwrap().unwrap_err().code(), Code::OutOfSpace);
    drop(entries);
    delete_entry(&rig, 1, 1, HINT);
    rig.crash(1).unwrap();
    assert_eq!(pins_of(&rig, &held), vec![HINT; held.len()]);
    assert!(write(&rig, &entry(2), head(2, version(1)), &held[0], NONE).is_err());
    settle_blobs(&rig, &held[..held.len() / 2], HINT);
    put_entry(&rig, 2, 1, &held[0], NONE);
    flood(&rig, 1 << 30);
    let rest = &held[held.len() / 2..];
    assert_eq!(pins_of(&rig, rest), vec![HINT; rest.len()]);
}

#[test]
fn garbage_collection_and_retention_spare_what_is_pinned() {
    let rig = Rig::fresh(14);
    let all = bodies(1);
    put_blobs(&rig, &all, HINT);
    put_entry(&rig, 1, 1, &all[3], DIRTY);
    collect_all(&rig);
    rig.node().admin().set_retention(Retention {
        default_ttl: Some(std::time::Duration::from_mins(1)),
        ..Default::default()
    });
    rig.clock.advance(std::time::Duration::from_hours(20));
    flood(&rig, 1 << 20);
    assert_eq!(pins_of(&rig, &all), vec![HINT; all.len()]);
    assert_eq!(read(&rig, &entry(1)).unwrap().1, DIRTY);
    settle(&rig, &[(entry(1), version(1))], DIRTY);
    assert!(open(&rig, &entry(1)).is_none(), "its time is over");
}

#[test]
fn what_was_pinned_in_a_namespace_that_is_purged_is_pinned_no_more() {
    let mut rig = Rig::fresh(15);
    let (all, other) = (bodies(1), Namespace::new("other").unwrap());
    put_blobs(&rig, &all, BOTH);
    let elsewhere = RecordKey::blob(&other, &Digest::of(Function::Sha256, &all[0]));
    write(&rig, &elsewhere, RecordHead::default(), &all[0], HINT).unwrap();
    let entries = rig.node().entries();
    rig.wait(entries.purge(team())).unwrap().unwrap();
    drop(entries);
    for round in 0..2 {
        let counts = pinned(&rig);
        assert_eq!((counts.dirty, counts.hints), (0, 1), "round {round}");
        let met = walk(&rig, Walk::Hinted, 10);
        assert_eq!(met.iter().map(|i| &i.key).collect::<Vec<_>>(), [&elsewhere]);
        assert!(open(&rig, &blob(&all[0])).is_none());
        rig.crash(round).unwrap();
    }
    let found = rig.node().replica();
    let found = rig.wait(found.open_record(&elsewhere, ByteRange::Full));
    assert!(found.unwrap().unwrap().is_some());
}

#[test]
fn an_embedded_store_pins_nothing() {
    let rig = Rig::fresh(16);
    let stores = rig.stores();
    let body = pattern(1, 2_500_000);
    let digest = Digest::of(Function::Sha256, &body);
    let put = stores.put_blob(team(), &digest, &body, 1 << 20, CreateOptions::default());
    rig.wait(put).unwrap().unwrap();
    let put = stores.put_entry(
        key(1),
        &body,
        1 << 20,
        EntryMeta::default(),
        Precondition::None,
        None,
    );
    rig.wait(put).unwrap().unwrap();
    assert_eq!(pinned(&rig), PinnedCounts::default());
    assert_eq!(rig.stats().pinned_bytes, 0);
    assert!(walk(&rig, Walk::Dirty, 10).is_empty());
    assert_eq!(walk(&rig, Walk::All, 10).len(), 2);
}
