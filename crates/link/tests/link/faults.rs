//! What goes wrong at the node and on the way to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
};
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

/// The address of a relay that damages what looks like the value, in both directions.
async fn damaging(node: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    zimcache_telemetry::task::spawn("relay", async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&node).await.unwrap();
            let (client, server) = (client.into_split(), server.into_split());
            zimcache_telemetry::task::spawn("there", damage(client.0, server.1));
            zimcache_telemetry::task::spawn("back", damage(server.0, client.1));
        }
    });
    address
}

async fn damage(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..length];
        if let Some(at) = bytes.windows(8).position(|eight| eight == VALUE) {
            bytes[at + 3] ^= 4;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

const VALUE: &[u8] = b"UUUUUUUU";

#[tokio::test]
async fn a_value_damaged_on_its_way_is_neither_read_nor_written() {
    let pair = Pair::new(Fake::new()).await;
    let record = (RecordHead::default(), VALUE.into(), Pins::default());
    pair.fake.values.lock().insert(blob(b"x"), record);
    let relay = damaging(pair.address.clone()).await;
    let remote = Remote::new(&relay, &Settings::default());
    // The way is fine for what it does not damage.
    remote.find(find()).await.unwrap();
    let read = read_all(&remote, &blob(b"x"), ByteRange::Full).await;
    assert!(is_unreachable(read));
    let write = Write {
        epoch: 1,
        key: blob(b"y"),
        head: RecordHead::default(),
        options: RecordOptions::default(),
    };
    let mut writing = remote.write(write).await.unwrap();
    let written = match writing.write(VALUE.into()).await {
        Ok(()) => writing.commit(Pins::default()).await.map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(written.unwrap_err().code(), Code::Unavailable);
    assert!(!pair.fake.values.lock().contains_key(&blob(b"y")));
    pair.stop().await;
}

/// Copies of a burst of writes were given up at once, and the node ended the connection with all that was on it: calls
/// that it had not looked at yet were taken back, which h2 takes for an attack from the twenty-first on.
#[tokio::test]
async fn many_calls_given_up_at_once_leave_the_others_on_their_connection_alone() {
    const GIVEN_UP: usize = 100;
    let pair = Pair::new(Fake::new()).await;
    let gate = Arc::new(Gate::default());
    let settings = Settings {
        connections: 1,
        ..Settings::default()
    };
    let address = gated(pair.address.clone(), Arc::clone(&gate)).await;
    let remote = Remote::new(&address, &settings);
    let write = Write {
        epoch: 1,
        key: blob(b"x"),
        head: RecordHead::default(),
        options: RecordOptions::default(),
    };
    let mut writing = remote.write(write).await.unwrap();
    writing.write(vec![1; 600_000].into()).await.unwrap();
    until("the write has begun", || pair.fake.under_way() == 1).await;
    gate.is_shut.store(true, Ordering::SeqCst);
    let calls = (0..GIVEN_UP).map(|_| {
        let remote = remote.clone();
        zimcache_telemetry::task::spawn("call", async move { remote.find(find()).await })
    });
    let calls: Vec<_> = calls.collect();
    let held = |kind| {
        let held = gate.held.lock();
        held.iter()
            .map(|held| usize::from(*held == kind))
            .sum::<usize>()
    };
    until("all calls are on their way", || held(HEADERS) == GIVEN_UP).await;
    for call in &calls {
        call.abort();
    }
    until("all are given up", || held(RST_STREAM) == GIVEN_UP).await;
    gate.is_shut.store(false, Ordering::SeqCst);
    gate.opened.notify_waiters();
    writing.write(vec![2; 600_000].into()).await.unwrap();
    let written = writing.commit(Pins::default()).await.unwrap();
    assert_eq!(written.size_bytes, 1_200_000);
    pair.stop().await;
}

/// Types of HTTP/2 frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// What holds back the frames of a client.
#[derive(Default)]
struct Gate {
    is_shut: AtomicBool,
    opened: Notify,
    /// Types of the frames that are held back.
    held: Mutex<Vec<u8>>,
}

/// The address of a relay with a gate before the node.
async fn gated(node: String, gate: Arc<Gate>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    zimcache_telemetry::task::spawn("relay", async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(&node).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        zimcache_telemetry::task::spawn("back", async move {
            tokio::io::copy(&mut from_server, &mut to_client).await
        });
        let mut preface = [0; 24];
        from_client.read_exact(&mut preface).await.unwrap();
        to_server.write_all(&preface).await.unwrap();
        let mut held = Vec::new();
        loop {
            let mut head = [0; 9];
            let opened = gate.opened.notified();
            tokio::select! {
                read = from_client.read_exact(&mut head) => if read.is_err() { return },
                () = opened => {
                    to_server.write_all(&std::mem::take(&mut held)).await.unwrap();
                    continue;
                }
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut frame = vec![0; length];
            from_client.read_exact(&mut frame).await.unwrap();
            let frame = [&head[..], &frame].concat();
            if gate.is_shut.load(Ordering::SeqCst) {
                gate.held.lock().push(head[3]);
                held.extend(frame);
            } else {
                held.extend(frame);
                to_server
                    .write_all(&std::mem::take(&mut held))
                    .await
                    .unwrap();
            }
        }
    });
    address
}
