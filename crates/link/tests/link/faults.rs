//! What goes wrong at the node and on the way to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::net::TcpListener;
use zimcache_link::{Error, Find, Peer as _, Remote, Settings, StatusQuestion, Write};
use zimcache_store::{ByteRange, Pins, RecordHead, RecordOptions, Touch};
use zimcache_types::Code;

use crate::{
    fake::{Fake, Node, blob, read_all},
    pair::{Pair, until},
};

fn find() -> Find {
    Find {
        epoch: 1,
        keys: vec![blob(b"x")],
        sizes: vec![None],
        touch: Touch::No,
    }
}

fn is_unreachable<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Unreachable { .. }))
}

#[tokio::test]
async fn refusals_keep_their_kind_and_their_text() {
    let pair = Pair::new(Fake::new()).await;
    for code in Code::ALL {
        let message = "so it is".into();
        *pair.fake.failure.lock() = Some(Error::Refused { code, message });
        match pair.remote.find(find()).await {
            Err(Error::Refused {
                code: read,
                message,
            }) => {
                assert_eq!((read, &*message), (code, "so it is"));
            }
            other => panic!("{other:?}"),
        }
    }
    let ring = Bytes::from_static(b"{\"epoch\": 5}");
    *pair.fake.failure.lock() = Some(Error::StaleRing { ring: ring.clone() });
    match pair.remote.find(find()).await {
        Err(Error::StaleRing { ring: read }) => assert_eq!(read, ring),
        other => panic!("{other:?}"),
    }
    pair.stop().await;
}

#[tokio::test]
async fn a_value_that_breaks_off_is_an_error() {
    for breaks_after in [0, 1, 3] {
        let pair = Pair::new(Arc::new(Fake {
            chunk_bytes: 1000,
            breaks_after: Some(breaks_after),
            ..Fake::default()
        }))
        .await;
        let record = (RecordHead::default(), vec![7; 9000].into(), Pins::default());
        pair.fake.values.lock().insert(blob(b"x"), record);
        let error = read_all(&pair.remote, &blob(b"x"), ByteRange::Full)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Corrupt, "{breaks_after}");
        pair.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_was_never_there_is_unreachable_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let before = Instant::now();
    let settings = Settings::default();
    for address in [&*address, "nonsense", "https://127.0.0.1:1"] {
        let remote = Remote::new(address, &settings);
        assert!(is_unreachable(remote.find(find()).await), "{address}");
    }
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_node_that_accepts_and_says_nothing_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let remote = Remote::new(
        &address,
        &Settings {
            answer_timeout: Duration::from_millis(300),
            ..Settings::default()
        },
    );
    let before = Instant::now();
    assert!(is_unreachable(remote.find(find()).await));
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_node_that_dies_in_the_middle_of_a_value_is_unreachable() {
    let pair = Pair::new(Fake::new()).await;
    let write = Write {
        epoch: 1,
        key: blob(b"x"),
        head: RecordHead::default(),
        options: RecordOptions::default(),
    };
    let mut writing = pair.remote.write(write).await.unwrap();
    writing.write(vec![1; 600_000].into()).await.unwrap();
    until("the write has begun", || pair.fake.under_way() == 1).await;
    let (remote, _) = pair.kill().await;
    let before = Instant::now();
    let outcome = match writing.write(vec![2; 600_000].into()).await {
        Ok(()) => writing.commit(Pins::default()).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(is_unreachable(outcome));
    assert!(is_unreachable(
        remote.status(StatusQuestion::default()).await
    ));
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_node_that_comes_back_is_reached_again() {
    let pair = Pair::new(Fake::new()).await;
    pair.remote.find(find()).await.unwrap();
    let (remote, address) = pair.stop().await;
    assert!(is_unreachable(remote.find(find()).await));
    let listener = TcpListener::bind(&address).await.unwrap();
    let peer = Arc::new(Node(Fake::new()));
    let serving = zimcache_telemetry::task::spawn(
        "node",
        zimcache_link::serve(listener, peer, None, std::future::pending()),
    );
    remote.find(find()).await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn a_call_that_is_given_up_is_dropped_at_the_node() {
    let pair = Pair::new(Arc::new(Fake {
        hangs: true,
        ..Fake::default()
    }))
    .await;
    let remote = pair.remote.clone();
    let call = zimcache_telemetry::task::spawn("call", async move { remote.find(find()).await });
    until("the call is under way", || pair.fake.under_way() == 1).await;
    call.abort();
    until("the call is dropped", || pair.fake.under_way() == 0).await;
    pair.stop().await;
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let settings = Settings {
        answer_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let fake = Arc::new(Fake {
        hangs: true,
        ..Fake::default()
    });
    let pair = Pair::with(fake, None, settings).await;
    assert!(is_unreachable(pair.remote.find(find()).await));
    until("the call is dropped", || pair.fake.under_way() == 0).await;
    pair.stop().await;
}
