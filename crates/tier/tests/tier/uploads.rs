//! The upload queue: what it puts where, outages, restarts, owners, flushes and drains.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use zimcache_store::{RecordKey, Replica};
use zimcache_tier::{BucketSettings, Error, Known, Operation, TierSettings};

use crate::{
    replica::{MemoryReplica, blob_key},
    server::Server,
    support::{Node, TestOwners, eventually, hex, loaded_node, node, node_with, noise},
};

/// Settings that notice a server that says nothing within a second.
fn impatient(server: &Server) -> BucketSettings {
    BucketSettings {
        request_timeout: Duration::from_secs(1),
        ..server.settings()
    }
}

async fn impatient_node(server: &Server, replica: MemoryReplica) -> Node {
    node_with(
        impatient(server),
        TierSettings::default(),
        Arc::default(),
        replica,
    )
    .await
}

fn name_of(key: &RecordKey, folder: &str) -> String {
    let hex = hex(&key.id);
    format!("v1/default/{folder}/{}/{hex}", &hex[..2])
}

#[tokio::test]
async fn dirty_records_reach_the_bucket_under_generated_names() {
    let server = Server::start();
    let node = loaded_node(&server).await;
    let blob = node.replica.put_blob(b"a body");
    let entry = node.replica.put_entry("../../etc/passwd", 5, b"a value");
    node.is_clean().await;

    let mut expected = vec![name_of(&blob, "sha256"), name_of(&entry, "e/gradle")];
    expected.sort();
    assert_eq!(server.objects(), expected);
    let body = std::fs::read(server.bucket_folder().join(name_of(&blob, "sha256")));
    assert_eq!(body.unwrap(), b"a body");

    let mut keys = vec![blob, entry];
    keys.sort();
    eventually("the owners are told", || node.owners.settled_keys() == keys).await;
    for key in &keys {
        assert_eq!(node.tier.presence().ask(key), Known::Maybe);
    }
    assert_eq!(node.tier.figures().uploads(), 2);
}

#[tokio::test]
async fn a_large_blob_goes_up_in_parts_and_comes_back() {
    let server = Server::start();
    let (body, node) = (noise(3, 40 << 20), loaded_node(&server).await);
    let key = node.replica.put_blob(&body);
    node.is_clean().await;
    let requests = node.tier.bucket().requests();
    // One begins, five have 8 MiB each, one ends.
    assert_eq!(requests.of(Operation::Multipart), 7);
    assert_eq!(requests.of(Operation::Put), 0);
    let stored = std::fs::read(server.bucket_folder().join(name_of(&key, "sha256")));
    assert!(stored.unwrap() == body);

    node.replica.evict(&key);
    assert!(node.read(&key).await.unwrap() == body);
    eventually("it is kept", || node.replica.holds(&key)).await;
    assert!(!node.replica.is_dirty(&key));

    // The same again: a look is enough.
    node.replica.evict(&key);
    node.replica.put_blob(&body);
    node.is_clean().await;
    assert_eq!(requests.of(Operation::Multipart), 7);
    assert_eq!(node.tier.figures().uploads_spared(), 1);
}

#[tokio::test]
async fn a_large_upload_that_fails_leaves_nothing_visible_and_is_done_again() {
    let mut server = Server::start();
    let node = impatient_node(&server, MemoryReplica::default()).await;
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    let body = noise(4, 40 << 20);
    let key = node.replica.put_blob(&body);
    let requests = node.tier.bucket().requests();
    eventually("parts are on their way", || {
        requests.of(Operation::Multipart) >= 3
    })
    .await;
    server.kill();
    assert!(!server.objects().contains(&name_of(&key, "sha256")));
    eventually("the outage is noticed", || {
        !node.tier.bucket().is_reachable()
    })
    .await;
    assert!(node.replica.is_dirty(&key));
    server.run();
    node.is_clean().await;
    let stored = std::fs::read(server.bucket_folder().join(name_of(&key, "sha256")));
    assert!(stored.unwrap() == body);
}

#[tokio::test]
async fn uploads_survive_a_server_that_dies() {
    let mut server = Server::start();
    let node = impatient_node(&server, MemoryReplica::default()).await;
    node.replica.put_blob(b"before");
    node.is_clean().await;
    server.kill();
    let keys: Vec<_> = (0..200_u64)
        .map(|n| node.replica.put_blob(&noise(n, 1000)))
        .collect();
    eventually("the outage is noticed", || {
        !node.tier.bucket().is_reachable()
    })
    .await;
    let tried = node.tier.bucket().requests().total();
    assert!(keys.iter().all(|key| node.replica.is_dirty(key)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let probes = node.tier.bucket().requests().total() - tried;
    // Waits of at most 0.5, 1, 2 s with full jitter: a handful, and not one for each record.
    assert!(
        probes <= 40,
        "{probes} requests to a dead server in two seconds"
    );
    server.run();
    node.is_clean().await;
    assert_eq!(server.objects().len(), 201);
}

#[tokio::test]
async fn uploads_survive_a_server_that_freezes() {
    let server = Server::start();
    let node = impatient_node(&server, MemoryReplica::default()).await;
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    server.freeze();
    (0..50_u64).for_each(|n| {
        node.replica.put_blob(&noise(n, 1000));
    });
    eventually("the outage is noticed", || {
        !node.tier.bucket().is_reachable()
    })
    .await;
    server.thaw();
    node.is_clean().await;
    assert_eq!(server.objects().len(), 50);
}

#[tokio::test]
async fn uploads_go_on_after_a_restart_of_the_node() {
    let mut server = Server::start();
    let replica = MemoryReplica::default();
    let first = impatient_node(&server, replica.clone()).await;
    server.kill();
    (0..30_u64).for_each(|n| {
        replica.put_blob(&noise(n, 1000));
    });
    eventually("the outage is noticed", || {
        !first.tier.bucket().is_reachable()
    })
    .await;
    first.tier.stop().await;
    drop(first);
    assert_eq!(replica.pinned().dirty, 30);

    server.run();
    let second = impatient_node(&server, replica).await;
    second.is_clean().await;
    assert_eq!(server.objects().len(), 30);
}

#[tokio::test]
async fn an_owner_that_is_not_the_first_waits_and_then_takes_over() {
    let server = Server::start();
    let settings = TierSettings {
        takeover_after: Duration::from_secs(2),
        ..TierSettings::default()
    };
    let replica = MemoryReplica::default();
    let began = Instant::now();
    let key = replica.put_blob(b"a body");
    let node = node_with(server.settings(), settings, TestOwners::second(), replica).await;
    node.is_clean().await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.objects(), [name_of(&key, "sha256")]);
}

#[tokio::test]
async fn what_the_first_owner_uploaded_is_not_uploaded_again() {
    let server = Server::start();
    let settings = TierSettings {
        takeover_after: Duration::from_hours(1),
        ..TierSettings::default()
    };
    let replica = MemoryReplica::default();
    let second = node_with(server.settings(), settings, TestOwners::second(), replica).await;
    eventually("the filter is loaded", || {
        second.tier.presence().is_loaded()
    })
    .await;
    let first = loaded_node(&server).await;
    let key = first.replica.put_blob(b"a body");
    second.replica.put_blob(b"a body");
    first.is_clean().await;
    let before = second.tier.bucket().requests().total();
    // What the first owner's callback makes of it.
    let dirty = zimcache_store::Pins {
        dirty: true,
        hint: false,
    };
    let settled = [(key.clone(), zimcache_store::Version::default())];
    second.replica.settle(&settled, dirty).await.unwrap();
    second.tier.learn([&key]);
    second.is_clean().await;
    assert_eq!(second.tier.presence().ask(&key), Known::Maybe);
    assert_eq!(second.tier.bucket().requests().total(), before);
}

#[tokio::test]
async fn a_flush_returns_when_the_bucket_has_the_record() {
    let server = Server::start();
    let settings = TierSettings {
        takeover_after: Duration::from_hours(1),
        ..TierSettings::default()
    };
    let replica = MemoryReplica::default();
    let node = node_with(server.settings(), settings, TestOwners::second(), replica).await;
    let key = node.replica.put_blob(b"a body");
    node.tier.flush(&key).await.unwrap();
    assert_eq!(server.objects(), [name_of(&key, "sha256")]);
    eventually("the pin goes", || !node.replica.is_dirty(&key)).await;
    node.tier.flush(&key).await.unwrap();
    let absent = node.tier.flush(&blob_key(b"never put")).await;
    assert!(matches!(absent, Err(Error::Absent)), "{absent:?}");
}

#[tokio::test]
async fn many_flushes_of_one_record_are_one_upload() {
    let server = Server::start();
    let node = node(&server).await;
    let key = node.replica.put_blob(&noise(5, 1 << 20));
    let flushes = (0..32).map(|_| node.tier.flush(&key));
    for flushed in futures_util::future::join_all(flushes).await {
        flushed.unwrap();
    }
    assert_eq!(node.tier.figures().uploads(), 1);
}

#[tokio::test]
async fn a_flush_fails_while_the_server_is_away() {
    let mut server = Server::start();
    let node = impatient_node(&server, MemoryReplica::default()).await;
    server.kill();
    let key = node.replica.put_blob(b"a body");
    let failed = node.tier.flush(&key).await.unwrap_err();
    assert_eq!(failed.code(), zimcache_types::Code::Unavailable, "{failed}");
    assert!(node.replica.is_dirty(&key));
}

#[tokio::test]
async fn a_drain_uploads_what_other_owners_would_too() {
    let server = Server::start();
    let settings = TierSettings {
        takeover_after: Duration::from_hours(1),
        ..TierSettings::default()
    };
    let replica = MemoryReplica::default();
    let node = node_with(server.settings(), settings, TestOwners::second(), replica).await;
    (0..100_u64).for_each(|n| {
        node.replica.put_blob(&noise(n, 1000));
    });
    let drained = node.tier.drain(Duration::from_mins(1)).await;
    assert_eq!(drained.left.dirty, 0);
    assert_eq!(server.objects().len(), 100);
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_and_says_what_is_left() {
    let mut server = Server::start();
    let node = impatient_node(&server, MemoryReplica::default()).await;
    server.kill();
    node.replica.put_blob(b"a body");
    let began = Instant::now();
    let drained = node.tier.drain(Duration::from_secs(1)).await;
    assert_eq!(drained.left.dirty, 1);
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// The removal came before the object, which then stayed, and the blob came back from the bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_deleted_while_it_is_uploaded_does_not_stay_in_the_bucket() {
    let server = Server::start();
    let node = loaded_node(&server).await;
    for (seed, length) in [(21, 3 << 20), (22, 40 << 20)] {
        let requests = || {
            let requests = node.tier.bucket().requests();
            requests.of(Operation::Put) + requests.of(Operation::Multipart)
        };
        let before = requests();
        let key = node.replica.put_blob(&noise(seed, length));
        eventually("the upload has begun", || requests() > before).await;
        node.replica.evict(&key);
        node.tier.delete(&key).await.unwrap();
        // Whatever was under way has ended when the record can be had again.
        let _absent = node.tier.flush(&key).await;
        assert_eq!(server.objects(), [""; 0]);
    }
}
