//! Nodes that take calls and never answer: no request waits for them for long, and soon none waits at all.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use zimcache_store::{CreateOptions, RecordKey, RecordKind, Touch};

use super::{
    fake::Fault,
    harness::{Gateway, Rig, blob_key, body, entry, sha, team},
};

const NODES: [&str; 4] = ["a", "b", "c", "d"];

/// A blob put while all is well, and the time that a read of it takes when one owner has a fault.
async fn read_beside(fault: Fault, size: usize) -> Duration {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(size, 1));
    gateway.put(&body).await.unwrap();
    let mut longest = Duration::ZERO;
    for owner in rig.places(&blob_key(&body)).0 {
        owner.set(fault);
        let start = Instant::now();
        assert!(gateway.get(&body).await.unwrap().unwrap() == body);
        longest = longest.max(start.elapsed());
        owner.set(Fault::None);
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_small_read_asks_the_next_owner_after_ten_milliseconds() {
    let took = read_beside(Fault::Hang, 1000).await;
    assert!((10..=12).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_large_read_asks_the_next_owner_after_a_quarter_of_a_second() {
    let took = read_beside(Fault::Hang, 3_000_000).await;
    assert!((250..=255).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_given_up_after_a_second() {
    let took = read_beside(Fault::StopsAfter(1_000_000), 3_000_000).await;
    assert!((1000..=1010).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_is_no_slower_than_the_hedge() {
    let took = read_beside(Fault::Slow(Duration::from_secs(1)), 1000).await;
    assert!(took.as_millis() <= 12, "{took:?}");
}

async fn put_time(gateway: &Gateway, body: &Bytes) -> Duration {
    let start = Instant::now();
    gateway.put(body).await.unwrap();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_write_beside_a_stopped_node_ends_soon_whenever_it_stops() {
    for fault in [
        Fault::Hang,
        Fault::StopsAfter(0),
        Fault::StopsAfter(500_000),
    ] {
        for size in [1000, 900_000, 3_000_000] {
            let rig = Rig::new(2, &NODES);
            let (gateway, body) = (rig.gateway(), body(size, 2));
            rig.places(&blob_key(&body)).0[0].set(fault);
            let took = put_time(&gateway, &body).await;
            assert!(took < Duration::from_secs(3), "{fault:?} {size}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_before_its_acknowledgement_is_replaced() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 3));
    let owners = rig.places(&blob_key(&body)).0;
    let mut writer = gateway
        .blobs
        .create(&team(), &sha(&body), CreateOptions::default())
        .await
        .unwrap();
    writer.write(body.clone()).await.unwrap();
    owners[1].set(Fault::Hang);
    let start = Instant::now();
    writer.commit().await.unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(2100),
        "{:?}",
        start.elapsed()
    );
    assert!(owners[0].is_hinted(&blob_key(&body)));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_costs_nothing_once_it_was_noticed_and_comes_back_by_itself() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let bodies: Vec<Bytes> = (0..20).map(|seed| body(1000, seed)).collect();
    for body in &bodies {
        gateway.put(body).await.unwrap();
    }
    let stopped = rig.node("b");
    stopped.set(Fault::Hang);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (start, reads) = (Instant::now(), stopped.reads.load(Ordering::Relaxed));
    for body in &bodies {
        assert_eq!(gateway.get(body).await.unwrap().as_ref(), Some(body));
        gateway.put(body).await.unwrap();
    }
    let digests: Vec<_> = bodies.iter().map(|body| sha(body)).collect();
    gateway
        .blobs
        .missing(&team(), &digests, Touch::Use)
        .await
        .unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(
        stopped.reads.load(Ordering::Relaxed),
        reads,
        "nobody asks it"
    );

    stopped.set(Fault::None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for body in &bodies {
        gateway.get(body).await.unwrap().unwrap();
    }
    assert!(
        stopped.reads.load(Ordering::Relaxed) > reads,
        "it is asked again"
    );
    let status = gateway.cluster.status(false).await;
    assert!(
        status
            .iter()
            .all(|node| node.is_reachable && node.status.is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn look_ups_double_a_stopped_node_after_a_tenth_of_a_second() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let bodies: Vec<Bytes> = (0..50).map(|seed| body(100, seed)).collect();
    for body in &bodies {
        gateway.put(body).await.unwrap();
    }
    rig.node("c").set(Fault::Hang);
    let digests: Vec<_> = bodies.iter().map(|body| sha(body)).collect();
    let start = Instant::now();
    let missing = gateway
        .blobs
        .missing(&team(), &digests, Touch::Use)
        .await
        .unwrap();
    assert!(missing.iter().all(|missing| !missing));
    assert!(
        start.elapsed() <= Duration::from_millis(102),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_a_stand_in_has_waits_for_the_slow_owner_that_has_it_too() {
    let rig = Rig::new(2, &NODES);
    let (gateway, value) = (rig.gateway(), body(1000, 4));
    let (owners, _) = rig.places(&RecordKey::entry(&entry("key")));
    owners[1].set(Fault::Down);
    gateway.put_entry("key", &value).await.unwrap();
    owners[0].set(Fault::Slow(Duration::from_secs(1)));
    assert_eq!(gateway.get_entry("key").await.unwrap(), Some(value));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_passed_over_is_asked_before_a_read_is_refused() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 5));
    gateway.put(&body).await.unwrap();
    gateway.put_entry("key", &body).await.unwrap();
    for key in [blob_key(&body), RecordKey::entry(&entry("key"))] {
        let (owners, stand_ins) = rig.places(&key);
        owners[0].set(Fault::Down);
        tokio::time::sleep(Duration::from_secs(6)).await;
        // It is back, the gateway has not noticed it yet, and all others go.
        owners[0].set(Fault::None);
        owners[1].set(Fault::Down);
        for node in &stand_ins {
            node.set(Fault::Down);
        }
        let found = match key.kind {
            RecordKind::Blob(_) => gateway.get(&body).await,
            RecordKind::Entry(_) => gateway.get_entry("key").await,
        };
        assert_eq!(found.unwrap().as_ref(), Some(&body));
        for node in rig.nodes() {
            node.set(Fault::None);
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_in_whose_midst_a_node_comes_back_is_not_refused() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 6));
    gateway.put(&body).await.unwrap();
    let (owners, _) = rig.places(&blob_key(&body));
    for owner in &owners {
        owner.set(Fault::Down);
    }
    let back = tokio::time::sleep(Duration::from_millis(100));
    let back = async {
        back.await;
        owners[1].set(Fault::None);
    };
    let (found, ()) = tokio::join!(gateway.get(&body), back);
    assert_eq!(found.unwrap(), Some(body));
}
