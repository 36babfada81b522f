//! Values of all sizes, both ways.

use std::sync::Arc;

use bytes::Bytes;
use zimcache_link::{Found, Peer as _, Presence, Read, Write};
use zimcache_store::{
    ByteRange, EntryMeta, Pins, Precondition, RecordHead, RecordOptions, Version,
};
use zimcache_types::{Code, Timestamp};

use crate::{
    fake::{Fake, blob, read_all},
    pair::{Pair, until},
};

const SIZES: [usize; 6] = [0, 1, 1 << 10, 8 << 10, (256 << 10) + 1, 3_000_000];

fn value(length: usize) -> Bytes {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn head() -> RecordHead {
    RecordHead {
        text: "some/key".into(),
        meta: EntryMeta {
            content_type: Some("text/plain".into()),
            client: vec![("a".into(), "b".into()), ("c".into(), "".into())],
        },
        version: Version {
            clock: 5,
            writer: 6,
        },
        deleted: false,
    }
}

fn write(value: &[u8]) -> Write {
    Write {
        epoch: 2,
        key: blob(value),
        head: head(),
        options: RecordOptions {
            size_bytes: Some(value.len() as u64),
            resume_as: None,
            limit_bytes: Some(1 << 30),
            lease: true,
            precondition: Precondition::Absent,
        },
    }
}

#[tokio::test]
async fn values_of_every_size_are_written_and_read_with_their_heads() {
    for chunk_bytes in [0, 1000, 300_000] {
        let pair = Pair::new(Arc::new(Fake {
            chunk_bytes,
            ..Fake::default()
        }))
        .await;
        for size in SIZES {
            let value = value(size);
            let request = write(&value);
            let mut writing = pair.remote.write(request.clone()).await.unwrap();
            assert_eq!(writing.offset(), 0);
            for chunk in value.chunks(700_000) {
                writing.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            let pins = Pins {
                dirty: true,
                hint: true,
            };
            let written = writing.commit(pins).await.unwrap();
            assert_eq!(
                (written.size_bytes, written.version),
                (size as u64, head().version)
            );
            let asked = pair.fake.asked.lock().last().unwrap().clone();
            assert_eq!(asked, format!("{request:?}"));
            let held = pair.fake.values.lock()[&request.key].clone();
            assert_eq!(held, (head(), value.clone(), pins));
            let read = read_all(&pair.remote, &request.key, ByteRange::Full).await;
            assert_eq!(read.unwrap(), value);
        }
        pair.stop().await;
    }
}

#[tokio::test]
async fn what_stands_before_a_value_comes_with_it() {
    let pair = Pair::new(Fake::new()).await;
    let pins = Pins {
        dirty: false,
        hint: true,
    };
    for (deleted, fill) in [(false, false), (true, true)] {
        let head = RecordHead { deleted, ..head() };
        let record = (head.clone(), Bytes::from_static(b"12345"), pins);
        pair.fake.values.lock().insert(blob(b"x"), record);
        let read = Read {
            epoch: 1,
            key: blob(b"x"),
            range: ByteRange::Full,
            fill,
        };
        let Found::Yes {
            head: found,
            created,
            pins: found_pins,
            total_bytes,
            is_unsure,
            mut body,
        } = pair.remote.read(read).await.unwrap()
        else {
            panic!("it is there");
        };
        assert_eq!((found, found_pins, total_bytes), (head, pins, 5));
        assert_eq!(is_unsure, fill);
        assert_eq!(created, Timestamp(77));
        assert_eq!(body.next().await.is_none(), deleted);
    }
    pair.stop().await;
}

#[tokio::test]
async fn ranges_are_read_and_refused_as_the_store_does() {
    let pair = Pair::new(Fake::new()).await;
    let record = (head(), value(1000), Pins::default());
    pair.fake.values.lock().insert(blob(b"x"), record);
    let empty = (head(), Bytes::new(), Pins::default());
    pair.fake.values.lock().insert(blob(b""), empty);
    let from = |first, last| ByteRange::From { first, last };
    for (range, expected) in [
        (ByteRange::Full, 0..1000),
        (from(0, None), 0..1000),
        (from(0, Some(0)), 0..1),
        (from(990, None), 990..1000),
        (from(10, Some(19)), 10..20),
        (from(10, Some(u64::MAX)), 10..1000),
        (ByteRange::Suffix(3), 997..1000),
    ] {
        let read = read_all(&pair.remote, &blob(b"x"), range).await.unwrap();
        assert_eq!(read, value(1000).slice(expected), "{range:?}");
    }
    for (key, range) in [
        (blob(b"x"), from(1000, None)),
        (blob(b"x"), from(5, Some(4))),
        (blob(b"x"), from(5, Some(3))),
        (blob(b"x"), ByteRange::Suffix(0)),
        (blob(b""), from(0, None)),
    ] {
        let error = read_all(&pair.remote, &key, range).await.unwrap_err();
        assert_eq!(error.code(), Code::RangeInvalid, "{range:?}");
    }
    pair.stop().await;
}

#[tokio::test]
async fn absent_is_not_unknown() {
    let pair = Pair::new(Fake::new()).await;
    for (fill, expected) in [(false, Presence::Absent), (true, Presence::Unknown)] {
        let read = Read {
            epoch: 1,
            key: blob(b"nothing"),
            range: ByteRange::Full,
            fill,
        };
        match pair.remote.read(read).await.unwrap() {
            Found::No(presence) => assert_eq!(presence, expected),
            Found::Yes { .. } => panic!("nothing was put"),
        }
    }
    pair.stop().await;
}

#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off() {
    let value = value(600_000);
    let pair = Pair::new(Arc::new(Fake {
        held: value.slice(..100_001),
        ..Fake::default()
    }))
    .await;
    let mut request = write(&value);
    request.options.resume_as = Some("upload".into());
    let mut writing = pair.remote.write(request.clone()).await.unwrap();
    assert_eq!(writing.offset(), 100_001);
    writing.write(value.slice(100_001..)).await.unwrap();
    let written = writing.commit(Pins::default()).await.unwrap();
    assert_eq!(written.size_bytes, 600_000);
    assert_eq!(pair.fake.values.lock()[&request.key].1, value);
    pair.stop().await;
}

#[tokio::test]
async fn a_write_that_is_dropped_is_dropped_at_the_node() {
    let pair = Pair::new(Fake::new()).await;
    let value = value(600_000);
    let mut writing = pair.remote.write(write(&value)).await.unwrap();
    writing.write(value.clone()).await.unwrap();
    until("the write has begun", || pair.fake.under_way() == 1).await;
    drop(writing);
    until("the write is dropped", || pair.fake.under_way() == 0).await;
    assert!(pair.fake.values.lock().is_empty());
    pair.stop().await;
}

#[tokio::test]
async fn a_node_that_refuses_in_the_middle_says_why() {
    let pair = Pair::new(Fake::new()).await;
    let value = value(8_000_000);
    let mut request = write(&value);
    request.options.limit_bytes = Some(500_000);
    let mut writing = pair.remote.write(request).await.unwrap();
    let refused = match writing.write(value).await {
        Ok(()) => writing.commit(Pins::default()).await.map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(refused.unwrap_err().code(), Code::TooLarge);
    pair.stop().await;
}
