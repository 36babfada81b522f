//! Blobs are read from whoever has them; absence needs proof; a broken body goes on elsewhere at the right byte.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use zimcache_store::{ByteRange, Reader};
use zimcache_types::Code;

use super::{
    fake::Fault,
    harness::{Gateway, Rig, blob_key, body, eventually, plain, sha, team},
};
use crate::{Config, Durability};

const NODES: [&str; 4] = ["a", "b", "c", "d"];

async fn open(gateway: &Gateway, body: &Bytes) -> Reader {
    let opened = gateway
        .blobs
        .open(&team(), &sha(body), ByteRange::Full)
        .await;
    opened.unwrap().unwrap()
}

async fn code(gateway: &Gateway, body: &Bytes) -> Code {
    gateway.get(body).await.unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn absence_is_said_when_all_owners_say_so() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 1));
    rig.places(&blob_key(&body))
        .1
        .iter()
        .for_each(|node| node.set(Fault::Down));
    assert_eq!(gateway.get(&body).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn one_owner_is_replaced_by_all_stand_ins_and_two_are_not() {
    for fault in [Fault::Down, Fault::Hang] {
        let rig = Rig::new(2, &NODES);
        let (gateway, body) = (rig.gateway(), body(1000, 2));
        let (owners, stand_ins) = rig.places(&blob_key(&body));
        owners[0].set(fault);
        assert_eq!(gateway.get(&body).await.unwrap(), None, "{fault:?}");
        stand_ins[1].set(fault);
        assert_eq!(code(&gateway, &body).await, Code::Unavailable, "{fault:?}");
        stand_ins[1].set(Fault::None);
        owners[1].set(fault);
        assert_eq!(code(&gateway, &body).await, Code::Unavailable, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_catches_up_is_no_witness() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let (gateway, body) = (rig.gateway(), body(1000, 3));
    let (owners, stand_ins) = rig.places(&blob_key(&body));
    owners[0].lose_disk();
    assert_eq!(
        gateway.get(&body).await.unwrap(),
        None,
        "the stand-in speaks for it"
    );
    stand_ins[0].lose_disk();
    assert_eq!(code(&gateway, &body).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn with_one_copy_or_local_acknowledgements_nobody_speaks_for_an_owner() {
    let local = Config {
        durability: Durability::Local,
        ..plain()
    };
    for (replicas, config) in [(1, plain()), (2, local)] {
        let rig = Rig::new(replicas, &NODES);
        let (gateway, body) = (rig.gateway_with(1, config), body(1000, 4));
        rig.places(&blob_key(&body)).0[0].set(Fault::Down);
        assert_eq!(code(&gateway, &body).await, Code::Unavailable, "{replicas}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_the_durable_tier_has_is_filled_from_it() {
    let rig = Rig::new(2, &NODES);
    let config = Config {
        durable_tier: true,
        ..plain()
    };
    let (gateway, body) = (rig.gateway_with(1, config), body(200_000, 5));
    assert_eq!(gateway.get(&body).await.unwrap(), None);
    for node in rig.nodes() {
        node.state.lock().tier.insert(blob_key(&body), body.clone());
    }
    assert_eq!(gateway.get(&body).await.unwrap().unwrap(), body);
}

#[tokio::test(start_paused = true)]
async fn a_blob_found_late_is_repaired_where_it_was_missing() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 6));
    gateway.put(&body).await.unwrap();
    let key = blob_key(&body);
    let first = rig.places(&key).0.remove(0);
    first.state.lock().records.held.clear();
    assert_eq!(gateway.get(&body).await.unwrap().unwrap(), body);
    eventually(|| first.has(&key)).await;
    assert_eq!(gateway.cluster.figures().repairs, 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_goes_on_from_another_node_at_the_right_byte() {
    for (after, fault) in [0, 1, 70_000, 2_999_999].into_iter().flat_map(|after| {
        [Fault::BreaksAfter(after), Fault::StopsAfter(after)].map(|fault| (after, fault))
    }) {
        let rig = Rig::new(2, &NODES);
        let (gateway, body) = (rig.gateway(), body(3_000_000, 7));
        gateway.put(&body).await.unwrap();
        rig.nodes()
            .iter()
            .for_each(|node| node.state.lock().chunk = 10_001);
        for owner in rig.places(&blob_key(&body)).0 {
            owner.set(fault);
            let got = gateway.get(&body).await.unwrap().unwrap();
            assert!(got == body, "{after} {fault:?}");
            owner.set(Fault::None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_that_breaks_off_goes_on_at_the_right_byte() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1_000_000, 8));
    gateway.put(&body).await.unwrap();
    rig.places(&blob_key(&body)).0[0].set(Fault::BreaksAfter(100_000));
    let range = ByteRange::From {
        first: 123_456,
        last: Some(900_000),
    };
    for _ in 0..4 {
        let reader = gateway
            .blobs
            .open(&team(), &sha(&body), range)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (reader.total_bytes(), reader.range()),
            (1_000_000, 123_456..900_001)
        );
        assert!(reader.read_all(u64::MAX).await.unwrap() == body[123_456..=900_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_another_source_fails_and_is_never_short() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1_000_000, 9));
    gateway.put(&body).await.unwrap();
    let reader = open(&gateway, &body).await;
    rig.nodes()
        .iter()
        .for_each(|node| node.set(Fault::BreaksAfter(0)));
    assert_eq!(
        reader.read_all(u64::MAX).await.unwrap_err().code(),
        Code::Corrupt
    );
}

#[tokio::test(start_paused = true)]
async fn readers_of_one_blob_share_one_read_and_a_slow_one_goes_on_by_itself() {
    let rig = Rig::new(2, &NODES);
    // More than what stays of a beginning.
    let (gateway, body) = (rig.gateway(), body(12_000_000, 10));
    gateway.put(&body).await.unwrap();
    let reads = || {
        rig.nodes()
            .iter()
            .map(|node| node.reads.load(Ordering::Relaxed))
            .sum::<u64>()
    };
    let mut slow = open(&gateway, &body).await;
    let start = slow.next_chunk().await.unwrap().unwrap();
    let readers = futures_util::future::join_all((0..20).map(|_| gateway.get(&body)));
    for got in readers.await {
        assert!(got.unwrap().unwrap() == body);
    }
    assert_eq!(reads(), 1, "all readers shared it");
    assert_eq!(gateway.cluster.figures().joined, 20);
    let rest = slow.read_all(u64::MAX).await.unwrap();
    assert!([start, rest].concat() == body);
    assert_eq!(reads(), 2, "the slow one read the rest by itself");
}

/// Sixty-four readers of a cold blob: the last one waited until all others had been sent a hundred kilobytes.
#[tokio::test(start_paused = true)]
async fn several_readers_each_get_their_first_bytes_before_any_gets_more() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(4_000_000, 15));
    gateway.put(&body).await.unwrap();
    let mut readers = vec![open(&gateway, &body).await, open(&gateway, &body).await];
    for reader in &mut readers {
        assert_eq!(reader.next_chunk().await.unwrap().unwrap().len(), 16 << 10);
        let mut more = Box::pin(reader.next_chunk());
        assert!(futures_util::poll!(more.as_mut()).is_pending());
    }
    for reader in readers {
        let rest = reader.read_all(u64::MAX).await.unwrap();
        assert!(body[16 << 10..] == rest);
    }
    let mut alone = open(&gateway, &body).await;
    assert!(alone.next_chunk().await.unwrap().unwrap().len() > 16 << 10);
}

/// A reader that came after a put was acknowledged joined a read that had begun before it, and was told what that found.
#[tokio::test(start_paused = true)]
async fn that_a_read_found_nothing_does_not_count_for_who_came_after_it_began() {
    let rig = Rig::new(2, &NODES);
    let (gateway, other, body) = (rig.gateway(), rig.gateway_with(2, plain()), body(1000, 14));
    let owners = rig.places(&blob_key(&body)).0;
    owners[0].set(Fault::Hang);
    let early = gateway.get(&body);
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        owners[0].set(Fault::None);
        other.put(&body).await.unwrap();
        gateway.get(&body).await
    };
    let (early, late) = tokio::join!(early, late);
    assert_eq!(gateway.cluster.figures().joined, 1);
    assert_eq!(early.unwrap(), None);
    assert_eq!(late.unwrap(), Some(body));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_does_not_take_the_others_with_it() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(4_000_000, 11));
    gateway.put(&body).await.unwrap();
    let (mut first, second) = (open(&gateway, &body).await, open(&gateway, &body).await);
    first.next_chunk().await.unwrap().unwrap();
    drop(first);
    assert!(second.read_all(u64::MAX).await.unwrap() == body);
}

#[tokio::test(start_paused = true)]
async fn small_blobs_come_from_ram_until_they_are_deleted_here_or_a_minute_has_passed() {
    let rig = Rig::new(2, &NODES);
    let (here, there) = (
        rig.gateway_with(1, Config::default()),
        rig.gateway_with(2, plain()),
    );
    let (one, two) = (body(1000, 12), body(1000, 13));
    for body in [&one, &two] {
        here.put(body).await.unwrap();
        here.get(body).await.unwrap().unwrap();
        assert_eq!(here.get(body).await.unwrap().as_ref(), Some(body));
    }
    assert_eq!(here.cluster.figures().ram_hits, 2);
    assert!(here.blobs.delete(&team(), &sha(&one)).await.unwrap());
    assert_eq!(here.get(&one).await.unwrap(), None);
    assert!(there.blobs.delete(&team(), &sha(&two)).await.unwrap());
    let missing = here
        .blobs
        .missing(&team(), &[sha(&two)], zimcache_store::Touch::Use)
        .await;
    assert_eq!(missing.unwrap(), [true], "look-ups never ask it");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(here.get(&two).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_deleted_everywhere_or_the_caller_is_told() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 14));
    gateway.put(&body).await.unwrap();
    let key = blob_key(&body);
    let stand_in = rig.places(&key).1[0].clone();
    stand_in.set(Fault::Down);
    let refusal = gateway
        .blobs
        .delete(&team(), &sha(&body))
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    stand_in.set(Fault::None);
    eventually(|| !rig.nodes().iter().any(|node| node.fault() != Fault::None)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.blobs.delete(&team(), &sha(&body)).await.unwrap();
    assert!(rig.holders(&key).is_empty());
    assert_eq!(gateway.get(&body).await.unwrap(), None);
}
