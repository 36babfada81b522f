//! The life of objects: made young when used, promised only while safe, swept when over.

use std::{sync::Arc, time::Duration};

use zimcache_store::RecordKey;
use zimcache_tier::{BucketSettings, Operation, SweepOptions, SweepReport, TierSettings};

use crate::{
    replica::MemoryReplica,
    server::Server,
    support::{Node, eventually, node_with, noise},
};

const DAY: Duration = Duration::from_hours(24);
const TTL: Duration = Duration::from_hours(24 * 30);

async fn node(server: &Server) -> Node {
    let settings = BucketSettings {
        ttl: Some(TTL),
        ..server.settings()
    };
    let node = node_with(
        settings,
        TierSettings::default(),
        Arc::default(),
        MemoryReplica::default(),
    );
    let node = node.await;
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    node
}

/// A server with one object of this age.
async fn server_with(
    age: Duration,
    put: impl Fn(&MemoryReplica) -> RecordKey,
) -> (Server, RecordKey, String) {
    let server = Server::start();
    let writer = node(&server).await;
    let key = put(&writer.replica);
    writer.is_clean().await;
    writer.tier.stop().await;
    let name = server.objects().remove(0);
    server.age(&name, age);
    (server, key, name)
}

fn blob(replica: &MemoryReplica) -> RecordKey {
    replica.put_blob(b"a body")
}

fn entry(replica: &MemoryReplica) -> RecordKey {
    replica.put_entry("k", 4, b"a value")
}

#[tokio::test]
async fn a_touched_blob_past_half_of_its_life_is_made_young_once() {
    let (server, key, name) = server_with(DAY * 16, blob).await;
    let node = node(&server).await;
    assert_eq!(node.read(&key).await.unwrap(), b"a body");
    node.tier.touched(&key);
    eventually("it is young", || server.age_of(&name) < DAY).await;
    eventually("it is counted", || node.tier.figures().refreshes() == 1).await;
    node.replica.evict(&key);
    assert_eq!(node.read(&key).await.unwrap(), b"a body");

    let requests = node.tier.bucket().requests();
    let before = requests.total();
    (0..1000).for_each(|_| node.tier.touched(&key));
    assert!(node.tier.holds(&key).await.unwrap());
    assert_eq!(
        requests.of(Operation::Head),
        2,
        "the first touch and the question"
    );
    assert_eq!(requests.total() - before, 1);
    assert_eq!(node.tier.figures().refreshes(), 1);
}

#[tokio::test]
async fn a_touch_of_a_young_object_costs_no_request() {
    let (server, key, name) = server_with(DAY * 14, blob).await;
    let node = node(&server).await;
    let before = node.tier.bucket().requests().total();
    (0..1000).for_each(|_| node.tier.touched(&key));
    // A request later in the queue would have been sent after those.
    assert_eq!(node.read(&key).await.unwrap(), b"a body");
    assert_eq!(node.tier.bucket().requests().total() - before, 1);
    assert!(server.age_of(&name) > DAY * 13);
}

#[tokio::test]
async fn a_touched_entry_past_half_of_its_life_is_written_again() {
    let (server, key, name) = server_with(DAY * 16, entry).await;
    let node = node(&server).await;
    assert_eq!(node.read(&key).await.unwrap(), b"a value");
    eventually("it is kept", || node.replica.holds(&key)).await;
    node.tier.touched(&key);
    eventually("it is young", || server.age_of(&name) < DAY).await;
    assert_eq!(node.tier.bucket().requests().of(Operation::Copy), 0);
    node.replica.evict(&key);
    assert_eq!(node.read(&key).await.unwrap(), b"a value");
}

#[tokio::test]
async fn an_upload_of_what_is_there_makes_it_young_or_writes_it_over() {
    for (age, copies) in [(DAY * 3, 0), (DAY * 16, 1), (DAY * 31, 0)] {
        let (server, _, name) = server_with(age, blob).await;
        let node = node(&server).await;
        node.replica.put_blob(b"a body");
        node.is_clean().await;
        let young = age < TTL / 2 || server.age_of(&name) < DAY;
        assert!(young, "{age:?}");
        assert_eq!(node.tier.figures().refreshes(), copies, "{age:?}");
        assert_eq!(
            node.tier.figures().uploads(),
            u64::from(age > TTL),
            "{age:?}"
        );
    }
}

#[tokio::test]
async fn a_blob_is_promised_only_while_it_is_safe() {
    for (age, held, young) in [
        (DAY * 3, true, false),
        (DAY * 29 + DAY / 2, true, true),
        (DAY * 31, false, false),
    ] {
        let (server, key, name) = server_with(age, blob).await;
        let node = node(&server).await;
        assert_eq!(node.tier.holds(&key).await.unwrap(), held, "{age:?}");
        assert_eq!(server.age_of(&name) < DAY, young, "{age:?}");
        let before = node.tier.bucket().requests().total();
        assert_eq!(node.tier.holds(&key).await.unwrap(), held);
        let asked = node.tier.bucket().requests().total() - before;
        assert_eq!(asked, u64::from(!held), "what was shown is remembered");
    }
}

#[tokio::test]
async fn a_sweep_removes_what_is_over_and_a_dry_one_only_says_so() {
    let server = Server::start();
    let node = node(&server).await;
    let keys: Vec<_> = (0..20_u64)
        .map(|n| node.replica.put_blob(&noise(n, 100)))
        .collect();
    let entry = entry(&node.replica);
    node.is_clean().await;
    let names = server.objects();
    // In the last day of its life, over but within the margin, and over for good.
    server.age(&names[0], DAY * 29 + DAY / 2);
    server.age(&names[1], TTL + DAY / 2);
    for name in &names[2..7] {
        server.age(name, TTL + DAY + DAY / 24);
    }
    std::fs::write(server.bucket_folder().join("not-ours"), b"x").unwrap();
    server.age("not-ours", TTL * 2);

    let dry = SweepOptions { dry_run: true };
    let would = node.tier.sweep(dry).await.unwrap();
    assert_eq!((would.objects, would.removed), (21, 5));
    assert_eq!(server.objects().len(), 22);

    let did = node.tier.sweep(SweepOptions::default()).await.unwrap();
    assert_eq!(did, would, "it did what it said");
    assert!(did.removed_bytes >= 100);
    let left = server.objects();
    assert!(names[2..7].iter().all(|name| !left.contains(name)));
    assert_eq!(left.len(), 17);
    assert!(left.contains(&"not-ours".to_owned()));

    let again = node.tier.sweep(SweepOptions::default()).await.unwrap();
    let nothing = SweepReport {
        objects: 16,
        bytes: again.bytes,
        ..SweepReport::default()
    };
    assert_eq!(again, nothing);
    assert_eq!(keys.len() + 1, names.len(), "{entry:?}");
}

#[tokio::test]
async fn without_a_time_to_live_nothing_is_swept_or_copied() {
    let (server, key, name) = server_with(DAY * 4000, blob).await;
    let node = node_with(
        server.settings(),
        TierSettings::default(),
        Arc::default(),
        MemoryReplica::default(),
    );
    let node = node.await;
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    node.tier.touched(&key);
    assert!(node.tier.holds(&key).await.unwrap());
    let report = node.tier.sweep(SweepOptions::default()).await.unwrap();
    assert_eq!((report.objects, report.removed), (1, 0));
    assert_eq!(node.tier.figures().refreshes(), 0);
    assert_eq!(server.objects(), [name]);
}
