//! Reads that share a stream: what goes over it, what does not, and what happens to reads that nobody waits for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use zimcache_link::{Peer as _, Read};
use zimcache_store::{ByteRange, Pins, RecordHead, RecordKey, Version};
use zimcache_telemetry::task;

use crate::{
    fake::{Fake, blob, read_all},
    pair::{Pair, until},
};

const SMALL: usize = 64 << 10;

fn read(key: RecordKey, range: ByteRange) -> Read {
    Read {
        epoch: 1,
        key,
        range,
        fill: false,
    }
}

fn hold(fake: &Fake, name: &[u8], length: usize, clock: u64) {
    let head = RecordHead {
        version: Version { clock, writer: 1 },
        ..RecordHead::default()
    };
    let value = vec![7; length].into();
    let record = (head, value, Pins::default());
    fake.values.lock().insert(blob(name), record);
}

/// The ranges of the reads that the node was asked for.
fn asked(fake: &Fake) -> Vec<String> {
    let asked = std::mem::take(&mut *fake.asked.lock());
    let range = |text: String| {
        let (_, range) = text.split_once("range: ").unwrap();
        range.split_once(", fill").unwrap().0.to_owned()
    };
    asked.into_iter().map(range).collect()
}

#[tokio::test]
async fn a_small_value_is_one_question_and_a_long_one_is_two() {
    let pair = Pair::new(Fake::new()).await;
    let begin = "From { first: 0, last: Some(65535) }";
    let rest = "From { first: 65536, last: None }";
    for (length, expected) in [
        (1, vec![begin]),
        (SMALL, vec![begin]),
        (SMALL + 1, vec![begin, rest]),
        (5 * SMALL, vec![begin, rest]),
        // Nothing of nothing can be asked for: the call says what that means.
        (0, vec![begin, "Full"]),
    ] {
        hold(&pair.fake, b"x", length, 1);
        let value = read_all(&pair.remote, &blob(b"x"), ByteRange::Full).await;
        assert_eq!(value.unwrap().len(), length);
        assert_eq!(asked(&pair.fake), expected, "{length}");
    }
    pair.stop().await;
}

#[tokio::test]
async fn a_value_that_changes_between_its_beginning_and_its_rest_breaks_off() {
    let pair = Pair::new(Fake::new()).await;
    for (length, clock) in [(3 * SMALL, 2), (4 * SMALL, 1)] {
        hold(&pair.fake, b"x", 3 * SMALL, 1);
        let found = pair.remote.read(read(blob(b"x"), ByteRange::Full)).await;
        let zimcache_link::Found::Yes { mut body, .. } = found.unwrap() else {
            panic!("it is there");
        };
        assert_eq!(body.next().await.unwrap().unwrap().len(), SMALL);
        hold(&pair.fake, b"x", length, clock);
        body.next().await.unwrap().unwrap_err();
        assert!(body.next().await.is_none());
    }
    pair.stop().await;
}

#[tokio::test]
async fn reads_beyond_what_a_stream_takes_are_calls_and_each_is_taken_back_when_it_is_dropped() {
    let pair = Pair::new(Arc::new(Fake {
        hangs: true,
        ..Fake::default()
    }))
    .await;
    let reading = (0..300).map(|_| {
        let remote = pair.remote.clone();
        task::spawn("test", async move {
            remote.read(read(blob(b"x"), ByteRange::Full)).await
        })
    });
    let mut reading: Vec<_> = reading.collect();
    until("all reads have begun", || pair.fake.under_way() == 300).await;
    let calls = asked(&pair.fake);
    let calls = calls.iter().filter(|range| *range == "Full").count();
    assert_eq!(calls, 300 - 256);
    for left in [299, 150, 0] {
        reading.drain(left..).for_each(|one| one.abort());
        until("the node drops them", || pair.fake.under_way() == left).await;
    }
    let stopping = Instant::now();
    pair.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn many_reads_at_once_each_get_their_own_answer() {
    let pair = Pair::new(Fake::new()).await;
    let names: Vec<Vec<u8>> = (1..=200).map(|length| vec![b'x'; length]).collect();
    for name in &names {
        hold(&pair.fake, name, name.len() * 400, 1);
    }
    let reads = names.iter().map(async |name| {
        let value = read_all(&pair.remote, &blob(name), ByteRange::Full).await;
        assert_eq!(value.unwrap().len(), name.len() * 400);
    });
    join_all(reads).await;
    pair.stop().await;
}
