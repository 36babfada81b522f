//! What is known without asking: misses that cost nothing, and answers while nothing is known yet.

use std::{sync::Arc, time::Duration};

use zimcache_store::ByteRange;
use zimcache_tier::{BucketSettings, Fill, Known, Operation, TierSettings};

use crate::{
    replica::{MemoryReplica, blob_key, entry_key},
    server::Server,
    support::{eventually, hex, loaded_node, node_with},
};

/// Puts objects into the server's folder, as if they had been uploaded; their bytes are their numbers.
fn plant(server: &Server, count: u64) {
    for n in 0..count {
        let body = n.to_le_bytes();
        let id = hex(&blob_key(&body).id);
        let folder = server
            .bucket_folder()
            .join("v1/default/sha256")
            .join(&id[..2]);
        if n < 65_536 {
            std::fs::create_dir_all(&folder).unwrap();
        }
        std::fs::write(folder.join(id), body).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_costs_no_request_with_a_hundred_thousand_objects_listed() {
    const HELD: u64 = 100_000;
    let server = Server::start();
    plant(&server, HELD);
    let settings = BucketSettings {
        request_timeout: Duration::from_mins(1),
        ..server.settings()
    };
    let node = node_with(
        settings,
        TierSettings::default(),
        Arc::default(),
        MemoryReplica::default(),
    );
    let node = node.await;
    let began = std::time::Instant::now();
    while !node.tier.presence().is_loaded() {
        assert!(
            began.elapsed() < Duration::from_mins(5),
            "the listing takes too long"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{HELD} objects listed in {:?}", began.elapsed());
    let known = node.tier.presence().records();
    assert!((HELD - 5..=HELD).contains(&known), "{known}");

    let requests = node.tier.bucket().requests();
    let before = requests.total();
    for n in HELD..HELD + 2_000 {
        let fill = node
            .tier
            .fill(&blob_key(&n.to_le_bytes()), ByteRange::Full)
            .await;
        assert!(matches!(fill.unwrap(), Fill::Absent));
        let fill = node
            .tier
            .fill(&entry_key(&n.to_string()), ByteRange::Full)
            .await;
        assert!(matches!(fill.unwrap(), Fill::Absent));
        assert!(!node.tier.holds(&blob_key(&n.to_be_bytes())).await.unwrap());
    }
    assert_eq!(requests.total() - before, 0);
    assert_eq!(node.tier.figures().absent_for_free(), 6_000);
    for n in (0..HELD).step_by(9_973) {
        let body = n.to_le_bytes();
        assert_eq!(node.tier.presence().ask(&blob_key(&body)), Known::Maybe);
        assert_eq!(node.read(&blob_key(&body)).await.unwrap(), body);
    }
}

#[tokio::test]
async fn before_the_filter_is_loaded_blobs_are_asked_for_and_entries_are_not() {
    let server = Server::start();
    let writer = loaded_node(&server).await;
    let blob = writer.replica.put_blob(b"a body");
    let entry = writer.replica.put_entry("k", 1, b"a value");
    writer.is_clean().await;

    // A listing cannot end while the server is frozen; the rest of the test is over before it is thawed and done.
    let node = loaded_node(&server).await;
    server.freeze();
    node.tier.ring_changed();
    let unknown = entry_key("another");
    assert_eq!(node.tier.presence().ask(&unknown), Known::Unknown);
    let before = node.tier.bucket().requests().of(Operation::Get);
    let fill = node.tier.fill(&unknown, ByteRange::Full).await.unwrap();
    assert!(matches!(fill, Fill::Unknown), "{fill:?}");
    assert_eq!(node.tier.bucket().requests().of(Operation::Get), before);
    server.thaw();
    assert_eq!(node.read(&blob).await.unwrap(), b"a body");
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    assert_eq!(node.read(&entry).await.unwrap(), b"a value");
}

#[tokio::test]
async fn while_the_server_is_away_blobs_are_unavailable_and_entries_are_misses() {
    let mut server = Server::start();
    let node = loaded_node(&server).await;
    let blob = node.replica.put_blob(b"a body");
    let entry = node.replica.put_entry("k", 1, b"a value");
    node.is_clean().await;
    node.replica.evict(&blob);
    node.replica.evict(&entry);
    server.kill();
    let read = node.tier.fill(&blob, ByteRange::Full).await.unwrap_err();
    assert_eq!(read.code(), zimcache_types::Code::Unavailable, "{read}");
    let read = node.tier.fill(&entry, ByteRange::Full).await.unwrap();
    assert!(matches!(read, Fill::Unknown), "{read:?}");
    let absent = node
        .tier
        .fill(&blob_key(b"never put"), ByteRange::Full)
        .await;
    assert!(
        matches!(absent.unwrap(), Fill::Absent),
        "the filter needs no server"
    );

    server.run();
    // Nobody wants anything of it.
    eventually("it answers again", || node.tier.bucket().is_reachable()).await;
}

#[tokio::test]
async fn what_is_removed_or_purged_costs_a_request_and_is_absent() {
    let server = Server::start();
    let node = loaded_node(&server).await;
    let blob = node.replica.put_blob(b"a body");
    let other = node.replica.put_blob(b"another");
    let entry = node.replica.put_entry("k", 1, b"a value");
    node.is_clean().await;
    for key in [&blob, &other, &entry] {
        node.replica.evict(key);
    }
    node.tier.delete(&blob).await.unwrap();
    node.tier.delete(&blob).await.unwrap();
    assert_eq!(server.objects().len(), 2);
    let fill = node.tier.fill(&blob, ByteRange::Full).await.unwrap();
    assert!(matches!(fill, Fill::Absent), "{fill:?}");
    assert_eq!(node.tier.purge(&blob.namespace).await.unwrap(), 2);
    assert_eq!(server.objects(), Vec::<String>::new());
    let fill = node.tier.fill(&entry, ByteRange::Full).await.unwrap();
    assert!(matches!(fill, Fill::Absent), "{fill:?}");
}
