//! Records by their names, with versions given from outside: the higher one wins, whatever happens in between.

use bytes::Bytes;
use zimcache_store::{
    ByteRange, EntryMeta, Error, Pins, Precondition, Record, RecordHead, RecordKey, RecordOptions,
    Touch, Version, Written, testing::conformance::pattern,
};
use zimcache_types::{Clock as _, Code, Digest, EntryKey, EntryKind, Function};

use crate::{
    harness::Rig,
    ops::{key, team},
};

pub(crate) const NONE: Pins = Pins {
    dirty: false,
    hint: false,
};
pub(crate) const DIRTY: Pins = Pins {
    dirty: true,
    hint: false,
};
pub(crate) const HINT: Pins = Pins {
    dirty: false,
    hint: true,
};
pub(crate) const BOTH: Pins = Pins {
    dirty: true,
    hint: true,
};

/// The version of this number, of a clock near that of the tests.
pub(crate) const fn version(number: u64) -> Version {
    Version {
        clock: (1_800_000_000_000 << 16) + number,
        writer: 7,
    }
}

/// The key of the entry of this place.
pub(crate) fn entry(place: usize) -> RecordKey {
    RecordKey::entry(key(place))
}

/// The key of a blob.
pub(crate) fn blob(body: &[u8]) -> RecordKey {
    RecordKey::blob(team(), &Digest::of(Function::Sha256, body))
}

/// What stands before the value of an entry.
pub(crate) fn head(place: usize, version: Version) -> RecordHead {
    RecordHead {
        text: key(place).text.clone(),
        version,
        ..RecordHead::default()
    }
}

/// What says that an entry is deleted.
pub(crate) fn deletion(version: Version) -> RecordHead {
    RecordHead {
        version,
        deleted: true,
        ..RecordHead::default()
    }
}

/// Writes a record in chunks.
pub(crate) fn write_with(
    rig: &Rig,
    key: &RecordKey,
    head: RecordHead,
    options: RecordOptions,
    body: &Bytes,
    pins: Pins,
) -> Result<Written, Error> {
    let replica = rig.node().replica();
    let written = rig.wait(async {
        let mut writer = replica.write_record(key, head, options).await?;
        for chunk in body.chunks(300_000) {
            writer.write(body.slice_ref(chunk)).await?;
        }
        writer.commit(pins).await
    });
    written.unwrap()
}

/// The same without options.
pub(crate) fn write(
    rig: &Rig,
    key: &RecordKey,
    head: RecordHead,
    body: &Bytes,
    pins: Pins,
) -> Result<Written, Error> {
    write_with(rig, key, head, RecordOptions::default(), body, pins)
}

/// Writes a blob.
pub(crate) fn put_blob(rig: &Rig, body: &Bytes, pins: Pins) {
    let written = write(rig, &blob(body), RecordHead::default(), body, pins).unwrap();
    assert_eq!(written.size_bytes, body.len() as u64);
}

/// Writes a version of an entry; says which is held then.
pub(crate) fn put_entry(rig: &Rig, place: usize, number: u64, body: &Bytes, pins: Pins) -> Version {
    let head = head(place, version(number));
    write(rig, &entry(place), head, body, pins).unwrap().version
}

/// Deletes an entry as of a version; says which is held then.
pub(crate) fn delete_entry(rig: &Rig, place: usize, number: u64, pins: Pins) -> Version {
    let head = deletion(version(number));
    let written = write(rig, &entry(place), head, &Bytes::new(), pins);
    written.unwrap().version
}

/// What lies under a key.
pub(crate) fn open(rig: &Rig, key: &RecordKey) -> Option<Record> {
    let replica = rig.node().replica();
    rig.wait(replica.open_record(key, ByteRange::Full))
        .unwrap()
        .unwrap()
}

/// What lies under a key: head, pins and value.
pub(crate) fn read(rig: &Rig, key: &RecordKey) -> Option<(RecordHead, Pins, Bytes)> {
    let record = open(rig, key)?;
    let value = rig.wait(record.value.read_all(u64::MAX)).unwrap().unwrap();
    Some((record.head, record.pins, value))
}

/// The version of an entry that is held, and its value unless that is a deletion.
fn held(rig: &Rig, place: usize) -> Option<(Version, Option<Bytes>)> {
    let (head, _, value) = read(rig, &entry(place))?;
    Some((head.version, (!head.deleted).then_some(value)))
}

/// Three times what the store holds, which nobody asks for again.
pub(crate) fn flood(rig: &Rig, first: u64) {
    for number in 0..2_000 {
        put_blob(rig, &pattern(first + number, 100_000), NONE);
    }
}

#[test]
fn a_blob_is_found_by_its_record_key_whatever_its_function_and_size() {
    let rig = Rig::fresh(1);
    let functions = Function::ALL;
    for (number, function) in functions.into_iter().enumerate() {
        for size in [1, 5_000, 200_000, 1 << 20, 2_500_000] {
            let body = pattern(number as u64 + 1, size);
            let digest = Digest::of(function, &body);
            let key = RecordKey::blob(team(), &digest);
            assert!(open(&rig, &key).is_none(), "{function}");
            let options = RecordOptions {
                size_bytes: Some(size as u64),
                ..RecordOptions::default()
            };
            let head = RecordHead::default();
            let written = write_with(&rig, &key, head, options, &body, NONE).unwrap();
            assert_eq!(
                (written.size_bytes, written.version),
                (size as u64, Version::default())
            );
            let (head, pins, value) = read(&rig, &key).unwrap();
            assert_eq!((head, pins), (RecordHead::default(), NONE));
            assert!(value == body, "{function}, {size} bytes");
            let stores = rig.stores();
            let found = stores.blob(team(), &digest, ByteRange::Full);
            assert!(
                rig.wait(found).unwrap().unwrap() == Some(body),
                "by its digest"
            );
        }
    }
}

#[test]
fn the_empty_blob_is_always_there() {
    let rig = Rig::fresh(2);
    let keys = Function::ALL.map(|function| RecordKey::blob(team(), &Digest::of(function, b"")));
    for key in &keys {
        assert!(read(&rig, key).unwrap().2.is_empty());
    }
    let replica = rig.node().replica();
    let sizes = vec![0; keys.len()];
    let missing = rig.wait(replica.missing_records(&keys, &sizes, Touch::No));
    assert!(!missing.unwrap().unwrap().contains(&true));
}

#[test]
fn what_does_not_belong_under_its_key_is_refused_and_leaves_nothing() {
    let rig = Rig::fresh(3);
    for function in [Function::Sha256, Function::Sha1, Function::Sha512] {
        for size in [10, 300_000, 2_500_000] {
            let (body, other) = (pattern(1, size), pattern(2, size));
            let key = RecordKey::blob(team(), &Digest::of(function, &other));
            let refused = write(&rig, &key, RecordHead::default(), &body, DIRTY).unwrap_err();
            assert_eq!(refused.code(), Code::Invalid, "{function}: {refused}");
            assert!(open(&rig, &key).is_none());
        }
    }
    let body = pattern(1, 10);
    let sized = RecordOptions {
        size_bytes: Some(11),
        ..RecordOptions::default()
    };
    let refused = write_with(
        &rig,
        &blob(&body),
        RecordHead::default(),
        sized,
        &body,
        NONE,
    );
    assert_eq!(refused.unwrap_err().code(), Code::Invalid);
    let refused = write(&rig, &entry(1), head(2, version(1)), &body, NONE);
    assert_eq!(refused.unwrap_err().code(), Code::Invalid, "another text");
    let versioned = RecordHead {
        version: version(1),
        ..RecordHead::default()
    };
    let refused = write(&rig, &blob(&body), versioned, &body, NONE);
    assert_eq!(
        refused.unwrap_err().code(),
        Code::Invalid,
        "blobs have none"
    );
    assert_eq!(
        rig.node().replica().pinned(),
        zimcache_store::PinnedCounts::default()
    );
}

#[test]
fn an_entry_brings_its_text_metadata_and_version_along() {
    let mut rig = Rig::fresh(4);
    let meta = EntryMeta {
        content_type: Some("text/plain".into()),
        client: vec![("x-tag".into(), "abc".into())],
    };
    let expected = RecordHead {
        meta,
        ..head(20, version(3))
    };
    for size in [0, 100, 200_000, 2_500_000] {
        let place = 20;
        let (key, body) = (entry(place), pattern(9, size));
        let mut expected = expected.clone();
        expected.version.clock += size as u64;
        let written = write(&rig, &key, expected.clone(), &body, NONE).unwrap();
        assert_eq!(
            (written.version, written.size_bytes),
            (expected.version, size as u64)
        );
        rig.crash(size as u64).unwrap();
        let (head, _, value) = read(&rig, &key).unwrap();
        assert_eq!(head, expected);
        assert!(value == body);
    }
}

#[test]
fn the_higher_version_wins_in_whatever_order_versions_arrive() {
    let mut rig = Rig::fresh(5);
    let sizes = [50, 90_000, 700_000];
    let order = [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [2, 3, 1],
        [3, 1, 2],
        [3, 2, 1],
    ];
    for (at, numbers) in order.into_iter().enumerate() {
        let mut highest = 0;
        for number in numbers {
            let body = pattern(number, sizes[(number as usize + at) % 3]);
            highest = highest.max(number);
            assert_eq!(put_entry(&rig, at, number, &body, NONE), version(highest));
        }
    }
    for round in 0..3 {
        for at in 0..order.len() {
            let body = pattern(3, sizes[(3 + at) % 3]);
            assert!(
                held(&rig, at) == Some((version(3), Some(body))),
                "{round}, {at}"
            );
        }
        if round == 0 {
            rig.restart().unwrap();
        } else {
            rig.crash(round).unwrap();
        }
    }
}

#[test]
fn of_two_equal_clocks_the_higher_writer_wins_also_after_a_crash() {
    // Tables of contents hold no writers: here the records have to be asked.
    let writers = [0x0010_0009, 0x0030_0001];
    for swapped in [false, true] {
        let mut rig = Rig::fresh(6);
        for at in if swapped { [1, 0] } else { [0, 1] } {
            let mut head = head(1, version(5));
            head.version.writer = writers[at];
            let written = write(&rig, &entry(1), head, &pattern(at as u64, 100), NONE).unwrap();
            let highest = if swapped { writers[1] } else { writers[at] };
            assert_eq!(written.version.writer, highest);
        }
        for round in 0..3 {
            let (version, value) = held(&rig, 1).unwrap();
            assert_eq!(version.writer, writers[1]);
            assert!(value == Some(pattern(1, 100)));
            if round == 0 {
                rig.restart().unwrap();
            } else {
                rig.crash(round).unwrap();
            }
        }
    }
}

#[test]
fn a_version_that_comes_again_is_a_success_that_changes_nothing() {
    let rig = Rig::fresh(7);
    let body = pattern(1, 2_500_000);
    put_entry(&rig, 1, 5, &body, NONE);
    let before = rig.stats().live_bytes;
    for number in [5, 4, 5] {
        assert_eq!(
            put_entry(&rig, 1, number, &pattern(2, 2_500_000), NONE),
            version(5)
        );
    }
    assert!(held(&rig, 1) == Some((version(5), Some(body))));
    assert_eq!(
        rig.stats().live_bytes,
        before,
        "nothing is left of what lost"
    );
}

#[test]
fn a_deletion_is_a_version_also_where_nothing_was() {
    let mut rig = Rig::fresh(8);
    let body = pattern(1, 100);
    assert_eq!(delete_entry(&rig, 1, 5, NONE), version(5));
    assert_eq!(put_entry(&rig, 1, 4, &body, NONE), version(5), "too late");
    put_entry(&rig, 2, 6, &body, NONE);
    assert_eq!(delete_entry(&rig, 2, 5, NONE), version(6), "too late");
    put_entry(&rig, 3, 6, &pattern(3, 2_500_000), NONE);
    assert_eq!(delete_entry(&rig, 3, 7, NONE), version(7));
    for round in 0..3 {
        assert!(held(&rig, 1) == Some((version(5), None)));
        assert!(held(&rig, 2) == Some((version(6), Some(body.clone()))));
        assert!(held(&rig, 3) == Some((version(7), None)));
        rig.crash(round).unwrap();
    }
    assert_eq!(put_entry(&rig, 1, 6, &body, NONE), version(6));
    assert!(held(&rig, 1) == Some((version(6), Some(body))));
}

#[test]
fn a_blob_that_is_deleted_is_found_as_a_deletion_and_can_be_put_again() {
    let mut rig = Rig::fresh(9);
    let body = pattern(1, 2_500_000);
    put_blob(&rig, &body, HINT);
    let deletion = deletion(Version::default());
    write(&rig, &blob(&body), deletion, &Bytes::new(), DIRTY).unwrap();
    let (head, pins, _) = read(&rig, &blob(&body)).unwrap();
    assert!(head.deleted);
    assert_eq!(pins, DIRTY);
    put_blob(&rig, &body, NONE);
    rig.crash(1).unwrap();
    let (head, pins, value) = read(&rig, &blob(&body)).unwrap();
    assert_eq!((head.deleted, pins), (false, NONE));
    assert!(value == body);
}

#[test]
fn versions_the_store_gives_never_go_back_behind_a_clock_that_is_ahead() {
    let mut rig = Rig::fresh(10);
    let ahead = Version {
        clock: (rig.clock.now().0 + 3_600_000_000) << 16,
        writer: u32::MAX,
    };
    for place in 1..4 {
        write(
            &rig,
            &entry(place),
            head(place, ahead),
            &pattern(1, 10),
            NONE,
        )
        .unwrap();
    }
    let put = |rig: &Rig, seed: u64| {
        let (stores, body) = (rig.stores(), pattern(seed, 100));
        let (meta, rule) = (EntryMeta::default(), Precondition::None);
        let put = stores.put_entry(key(1), &body, 100, meta, rule, None);
        rig.wait(put).map(drop).unwrap();
    };
    put(&rig, 2);
    let entries = rig.node().entries();
    assert!(rig.wait(entries.delete(key(2))).unwrap().unwrap());
    drop(entries);
    rig.crash(1).unwrap();
    assert!(held(&rig, 1).unwrap().1 == Some(pattern(2, 100)));
    assert!(held(&rig, 2).unwrap().1.is_none());
    put(&rig, 3);
    let given = write(
        &rig,
        &entry(3),
        head(3, Version::default()),
        &pattern(4, 10),
        NONE,
    );
    assert!(
        given.unwrap().version > ahead,
        "also as a record without a version"
    );
    rig.restart().unwrap();
    assert!(held(&rig, 1).unwrap().1 == Some(pattern(3, 100)));
    assert!(held(&rig, 3).unwrap().1 == Some(pattern(4, 10)));
    // Nor does the clock of somebody else become the one by which blobs are leased and grow old.
    put_blob(&rig, &pattern(1, 10), NONE);
    let created = open(&rig, &blob(&pattern(1, 10))).unwrap().created;
    assert!(created.0 <= rig.clock.now().0 + 1000, "{created:?}");
}

#[test]
fn of_writers_that_want_an_absent_entry_one_gets_it() {
    let rig = Rig::fresh(11);
    let replica = rig.node().replica();
    let absent = || RecordOptions {
        precondition: Precondition::Absent,
        ..RecordOptions::default()
    };
    for place in 0..8 {
        let write = |number: u64| {
            let replica = replica.clone();
            async move {
                let head = head(place, version(number));
                let mut writer = replica.write_record(&entry(place), head, absent()).await?;
                writer.write(pattern(number, 50)).await?;
                writer.commit(NONE).await
            }
        };
        let written = rig.wait(async { tokio::join!(write(3), write(1), write(2), write(4)) });
        let (a, b, c, d) = written.unwrap();
        let won: Vec<Written> = [a, b, c, d].into_iter().filter_map(Result::ok).collect();
        assert_eq!(won.len(), 1);
        assert_eq!(held(&rig, place).unwrap().0, won[0].version);
        let body = pattern(9, 10);
        let late = write_with(
            &rig,
            &entry(place),
            head(place, version(9)),
            absent(),
            &body,
            NONE,
        );
        assert_eq!(late.unwrap_err().code(), Code::Conflict);
        let again = head(place, won[0].version);
        let again = write_with(&rig, &entry(place), again, absent(), &body, NONE);
        assert_eq!(
            again.unwrap().version,
            won[0].version,
            "the same write once more"
        );
        delete_entry(&rig, place, 10, NONE);
        let after = write_with(
            &rig,
            &entry(place),
            head(place, version(11)),
            absent(),
            &body,
            NONE,
        );
        assert_eq!(after.unwrap().version, version(11));
    }
}

#[test]
fn missing_blobs_are_told_by_their_record_keys_as_by_their_digests() {
    let rig = Rig::fresh(12);
    let bodies: Vec<Bytes> = (0..40u64)
        .map(|number| pattern(number, 1 + (number as usize % 5) * 400_000))
        .collect();
    let functions = [Function::Sha256, Function::Sha512];
    let digests: Vec<Digest> = bodies
        .iter()
        .zip(functions.into_iter().cycle())
        .map(|(body, function)| Digest::of(function, body))
        .collect();
    for (digest, body) in digests.iter().zip(&bodies).step_by(3) {
        let key = RecordKey::blob(team(), digest);
        write(&rig, &key, RecordHead::default(), body, NONE).unwrap();
    }
    let mut keys: Vec<RecordKey> = digests.iter().map(|d| RecordKey::blob(team(), d)).collect();
    let mut sizes: Vec<u64> = bodies.iter().map(|body| body.len() as u64).collect();
    let (replica, blobs) = (rig.node().replica(), rig.node().blobs());
    for touch in [Touch::No, Touch::Use, Touch::Lease] {
        let by_key = rig.wait(replica.missing_records(&keys, &sizes, touch));
        let by_digest = rig.wait(blobs.missing(team(), &digests, touch));
        assert_eq!(by_key.unwrap().unwrap(), by_digest.unwrap().unwrap());
    }
    keys.push(RecordKey {
        namespace: zimcache_types::Namespace::new("elsewhere").unwrap(),
        ..keys[0].clone()
    });
    sizes.push(sizes[0]);
    sizes[3] += 1;
    sizes[6] = 0;
    let missing = rig.wait(replica.missing_records(&keys, &sizes, Touch::No));
    let missing = missing.unwrap().unwrap();
    assert_eq!([missing[0], missing[3], missing[6]], [false, true, false]);
    assert!(missing[keys.len() - 1], "of another namespace");
}

#[test]
fn a_range_of_a_record_is_what_was_asked_for() {
    let rig = Rig::fresh(13);
    let body = pattern(1, 2_500_000);
    put_blob(&rig, &body, NONE);
    put_entry(&rig, 1, 1, &body, NONE);
    let replica = rig.node().replica();
    for key in [blob(&body), entry(1)] {
        let range = ByteRange::From {
            first: 1_000_000,
            last: Some(2_099_999),
        };
        let record = rig.wait(replica.open_record(&key, range)).unwrap().unwrap();
        let value = rig.wait(record.unwrap().value.read_all(u64::MAX)).unwrap();
        assert!(value.unwrap() == body.slice(1_000_000..2_100_000));
        let behind = ByteRange::From {
            first: 2_500_000,
            last: None,
        };
        let refused = rig.wait(replica.open_record(&key, behind)).unwrap();
        assert_eq!(refused.unwrap_err().code(), Code::RangeInvalid);
    }
}

#[test]
fn an_upload_of_a_record_goes_on_where_it_was_interrupted() {
    let mut rig = Rig::fresh(14);
    let body = pattern(1, 3_500_000);
    let options = || RecordOptions {
        resume_as: Some("upload-1".into()),
        ..RecordOptions::default()
    };
    for function in [Function::Sha256, Function::Sha512] {
        let key = RecordKey::blob(team(), &Digest::of(function, &body));
        let replica = rig.node().replica();
        let started = rig.wait(async {
            let head = RecordHead::default();
            let mut writer = replica.write_record(&key, head, options()).await?;
            writer.write(body.slice(..2_000_000)).await
        });
        started.unwrap().unwrap();
        drop(replica);
        rig.restart().unwrap();
        let replica = rig.node().replica();
        let resumed = rig.wait(async {
            let head = RecordHead::default();
            let mut writer = replica.write_record(&key, head, options()).await?;
            let offset = writer.offset();
            writer.write(body.slice(offset as usize..)).await?;
            writer.commit(DIRTY).await.map(|_| offset)
        });
        let offset = resumed.unwrap().unwrap();
        assert!(offset > 0, "{function}");
        let (_, pins, value) = read(&rig, &key).unwrap();
        assert_eq!(pins, DIRTY);
        assert!(value == body);
    }
}

#[test]
fn a_store_is_told_from_every_other_by_its_id() {
    let mut rig = Rig::fresh(15);
    let id = rig.node().replica().store_id();
    rig.crash(1).unwrap();
    assert_eq!(rig.node().replica().store_id(), id);
    assert_ne!(Rig::fresh(15).node().replica().store_id(), id);
}

#[test]
fn versions_stay_in_order_through_reclaim() {
    let mut rig = Rig::fresh(16);
    let mut highest = [0u64; 8];
    for round in 0..6u64 {
        for (place, highest) in highest.iter_mut().enumerate() {
            let number = (round * 7 + place as u64 * 3) % 11 + 1;
            let body = pattern(number, 3_000 + 20_000 * place);
            *highest = number.max(*highest);
            let held = put_entry(&rig, place, number, &body, HINT);
            assert_eq!(held, version(*highest));
        }
        flood(&rig, (round + 1) << 20);
        for (place, number) in highest.into_iter().enumerate() {
            let body = pattern(number, 3_000 + 20_000 * place);
            let expected = Some((version(number), Some(body)));
            assert!(
                held(&rig, place) == expected,
                "round {round}, place {place}"
            );
        }
        if round % 2 == 0 {
            rig.crash(round).unwrap();
        }
    }
    assert!(rig.evicted_records() > 1_000);
}

#[test]
fn a_version_of_no_clock_is_refused() {
    let rig = Rig::fresh(17);
    let mut head = head(1, version(1));
    head.version.clock = u64::MAX;
    let refused = write(&rig, &entry(1), head, &Bytes::new(), NONE);
    assert_eq!(refused.unwrap_err().code(), Code::Invalid);
}

#[test]
fn entries_of_every_kind_are_records() {
    let rig = Rig::fresh(18);
    for kind in EntryKind::ALL {
        let key = EntryKey::new(team().clone(), kind, "a key").unwrap();
        let head = RecordHead {
            text: key.text.clone(),
            version: version(1),
            ..RecordHead::default()
        };
        let key = RecordKey::entry(&key);
        write(&rig, &key, head.clone(), &pattern(1, 10), NONE).unwrap();
        assert_eq!(read(&rig, &key).unwrap().0, head);
    }
}
