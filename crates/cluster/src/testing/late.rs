//! Copies that are late, on disks that are all slow: they are waited for when no other copy can be had sooner.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use zimcache_store::{Precondition, RecordHead, RecordKey, RecordOptions, Result, Version};
use zimcache_types::Code;

use super::{
    fake::{Fake, Fault},
    harness::{Gateway, NOW, Rig, blob_key, body, entry, plain},
};
use crate::Config;

const SLOW: Fault = Fault::SlowDisk(Duration::from_secs(5));

/// With a durable tier behind the nodes.
fn tiered() -> Config {
    Config {
        durable_tier: true,
        ..plain()
    }
}

/// New records are dirty for so many looks.
fn dirty_for(rig: &Rig, looks: u32) {
    for node in rig.nodes() {
        node.state.lock().dirty_for = looks;
    }
}

/// What came of a put, and after how many milliseconds.
async fn timed<T>(put: impl Future<Output = Result<T>>) -> (Result<T>, u128) {
    let start = Instant::now();
    let outcome = put.await;
    (outcome, start.elapsed().as_millis())
}

async fn put_takes(gateway: &Gateway, body: &Bytes) -> u128 {
    let (outcome, took) = timed(gateway.put(body)).await;
    outcome.unwrap();
    took
}

async fn refused_after(gateway: &Gateway, body: &Bytes) -> u128 {
    let (outcome, took) = timed(gateway.put(body)).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Unavailable);
    took
}

fn pulls(nodes: &[Arc<Fake>]) -> u64 {
    let pulls = nodes.iter().map(|node| node.pulls.load(Ordering::Relaxed));
    pulls.sum()
}

#[tokio::test(start_paused = true)]
async fn a_late_owner_is_waited_for_when_there_is_no_other_node() {
    for place in [0, 1] {
        for size in [1000, 3_000_000] {
            let rig = Rig::new(2, &["a", "b"]);
            let body = body(size, 1);
            let owners = rig.places(&blob_key(&body)).0;
            owners[place].set(SLOW);
            let took = put_takes(&rig.gateway(), &body).await;
            assert!((5000..5010).contains(&took), "{took}");
            assert_eq!(rig.holders(&blob_key(&body)).len(), 2);
            assert!(!rig.is_hinted_somewhere(&blob_key(&body)));
            assert_eq!(pulls(&owners), 0, "no disk gets the same bytes twice");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_owner_is_waited_for_when_no_stand_in_can_fetch_a_copy() {
    for fault in [Fault::Full, Fault::Down, Fault::Hang] {
        let rig = Rig::new(2, &["a", "b", "c"]);
        let body = body(1000, 2);
        let (owners, stand_ins) = rig.places(&blob_key(&body));
        owners[1].set(SLOW);
        stand_ins[0].set(fault);
        let took = put_takes(&rig.gateway(), &body).await;
        assert!((5000..5010).contains(&took), "{fault:?}: {took}");
        assert!(owners.iter().all(|owner| owner.has(&blob_key(&body))));
        assert!(!rig.is_hinted_somewhere(&blob_key(&body)));
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_tier_is_waited_for_nodes_that_failed_are_asked_again() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    dirty_for(&rig, u32::MAX);
    let body = body(1000, 21);
    let (owners, stand_ins) = rig.places(&blob_key(&body));
    let failing = [&owners[1], &stand_ins[0]];
    for node in failing {
        node.set(Fault::Full);
    }
    let room = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        for node in failing {
            node.set(Fault::None);
        }
    };
    let gateway = rig.gateway_with(1, tiered());
    let (took, ()) = tokio::join!(put_takes(&gateway, &body), room);
    assert!((4000..5000).contains(&took), "{took}");
    assert_eq!(rig.holders(&blob_key(&body)).len(), 2);
    assert!(owners[1].has(&blob_key(&body)) || rig.is_hinted_everywhere(&blob_key(&body)));
}

#[tokio::test(start_paused = true)]
async fn when_all_disks_are_slow_a_write_takes_as_long_as_they_do() {
    let rig = Rig::new(2, &["a", "b", "c", "d"]);
    let (gateway, body) = (rig.gateway(), body(1000, 3));
    for (number, node) in (0..).zip(rig.nodes()) {
        node.set(Fault::SlowDisk(Duration::from_millis(5000 + 100 * number)));
    }
    let took = put_takes(&gateway, &body).await;
    assert!((5000..5400).contains(&took), "{took}");
    let owners = rig.places(&blob_key(&body)).0;
    assert!(owners.iter().all(|owner| owner.has(&blob_key(&body))));
    gateway.put_entry("key", &body).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_is_faster_than_an_owner_that_is_late() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let body = body(1000, 4);
    let key = blob_key(&body);
    let (owners, stand_ins) = rig.places(&key);
    owners[1].set(SLOW);
    let took = put_takes(&rig.gateway(), &body).await;
    assert!((2000..2010).contains(&took), "{took}");
    assert!(owners[0].has(&key) && stand_ins[0].has(&key));
    assert!(rig.is_hinted_everywhere(&key));
    owners[1].set(Fault::None);
    rig.deliver_hints();
    assert!(owners[1].has(&key));
    assert!(!rig.is_hinted_somewhere(&key));
}

#[tokio::test(start_paused = true)]
async fn a_late_owner_that_dies_is_replaced_by_the_stand_in_that_is_late_too() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let body = body(1000, 5);
    let key = blob_key(&body);
    let (owners, stand_ins) = rig.places(&key);
    owners[1].set(SLOW);
    stand_ins[0].set(SLOW);
    let death = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        owners[1].set(Fault::Down);
    };
    let gateway = rig.gateway();
    let (took, ()) = tokio::join!(put_takes(&gateway, &body), death);
    assert!((7000..7010).contains(&took), "{took}");
    assert!(!owners[1].has(&key));
    assert!(stand_ins[0].has(&key) && rig.is_hinted_everywhere(&key));
}

#[tokio::test(start_paused = true)]
async fn a_late_owner_that_dies_leaves_no_acknowledgement_on_one_node() {
    let rig = Rig::new(2, &["a", "b"]);
    let body = body(1000, 6);
    let owners = rig.places(&blob_key(&body)).0;
    owners[1].set(SLOW);
    let death = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        owners[1].set(Fault::Down);
    };
    let gateway = rig.gateway();
    let (took, ()) = tokio::join!(refused_after(&gateway, &body), death);
    assert!((5000..5010).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_never_acknowledges_is_waited_for_no_longer_than_patience_and_a_pull() {
    let rig = Rig::new(2, &["a", "b"]);
    let body = body(1000, 7);
    rig.places(&blob_key(&body)).0[1].set(Fault::SlowDisk(Duration::from_hours(1)));
    let took = refused_after(&rig.gateway(), &body).await;
    assert!((15_000..20_010).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_late_owner_is_enough_when_the_durable_tier_never_takes_the_value() {
    let rig = Rig::new(2, &["a", "b"]);
    dirty_for(&rig, u32::MAX);
    let body = body(1000, 8);
    rig.places(&blob_key(&body)).0[1].set(SLOW);
    let took = put_takes(&rig.gateway_with(1, tiered()), &body).await;
    assert!((5000..5010).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn the_durable_tier_is_enough_before_a_late_owner_and_the_copy_is_hinted() {
    let rig = Rig::new(2, &["a", "b"]);
    dirty_for(&rig, 3);
    let body = body(1000, 9);
    let owners = rig.places(&blob_key(&body)).0;
    owners[1].set(SLOW);
    let took = put_takes(&rig.gateway_with(1, tiered()), &body).await;
    assert!((2000..2100).contains(&took), "{took}");
    assert_eq!(rig.holders(&blob_key(&body)), [owners[0].id.clone()]);
    assert!(rig.is_hinted_everywhere(&blob_key(&body)));
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_is_aborted_when_the_client_goes_away() {
    let rig = Rig::new(2, &["a", "b"]);
    let body = body(1000, 10);
    let owners = rig.places(&blob_key(&body)).0;
    owners[1].set(SLOW);
    let gateway = rig.gateway();
    let put = tokio::time::timeout(Duration::from_secs(4), gateway.put(&body));
    assert!(put.await.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!owners[1].has(&blob_key(&body)));
}

#[tokio::test(start_paused = true)]
async fn a_late_owner_that_holds_a_higher_version_of_an_entry_raises_that_of_the_put() {
    let rig = Rig::new(2, &["a", "b"]);
    let (gateway, value) = (rig.gateway(), body(1000, 11));
    let key = RecordKey::entry(&entry("key"));
    let owners = rig.places(&key).0;
    let head = RecordHead {
        text: "key".into(),
        version: Version {
            clock: (NOW.0 + 30_000) << 16,
            writer: 1,
        },
        ..RecordHead::default()
    };
    let (options, pins) = (RecordOptions::default(), zimcache_store::Pins::default());
    let other = Bytes::from_static(b"other");
    {
        let records = &mut owners[1].state.lock().records;
        records.put(&key, head, other, &options, pins).unwrap();
    }
    owners[1].set(SLOW);
    let (outcome, took) = timed(gateway.put_entry("key", &value)).await;
    outcome.unwrap();
    assert!((10_000..10_010).contains(&took), "{took}");
    for owner in owners {
        assert_eq!(owner.state.lock().records.held[&key].value, value);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_wants_absence_waits_for_the_pull_of_a_slow_owner() {
    let rig = Rig::new(2, &["a", "b"]);
    let (gateway, value) = (rig.gateway(), body(1000, 12));
    let key = RecordKey::entry(&entry("key"));
    let owners = rig.places(&key).0;
    owners[1].set(SLOW);
    let put = gateway.put_entry_if("key", &value, Precondition::Absent);
    let (outcome, took) = timed(put).await;
    outcome.unwrap();
    assert!(took < 10_000, "{took}");
    assert!(owners.iter().all(|owner| owner.has(&key)));
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_waited_for_when_no_copy_carries_it() {
    let rig = Rig::new(3, &["a", "b", "c"]);
    let body = body(1000, 13);
    let owners = rig.places(&blob_key(&body)).0;
    owners[2].set(Fault::SlowDisk(Duration::from_secs(30)));
    let slowness = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        owners[0].set(SLOW);
        owners[1].set(SLOW);
    };
    let gateway = rig.gateway();
    let (took, ()) = tokio::join!(put_takes(&gateway, &body), slowness);
    assert!((7000..7010).contains(&took), "{took}");
    let is_hinted = |owner: &Arc<Fake>| owner.is_hinted(&blob_key(&body));
    assert!(owners[..2].iter().any(is_hinted));
}
