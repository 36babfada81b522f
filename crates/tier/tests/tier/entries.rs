//! Entries in the bucket: never an older version over a newer one, deletions are versions.

use std::sync::Arc;

use zimcache_store::{ByteRange, RecordKey};
use zimcache_tier::{Fill, Operation};

use crate::{
    replica::{MemoryReplica, entry_key, version},
    server::Server,
    support::{Node, drink, found, loaded_node, node, noise},
};

/// What a node that has nothing finds.
async fn look(reader: &Node, key: &RecordKey) -> (u64, bool, Vec<u8>) {
    reader.replica.evict(key);
    reader.tier.learn([key]);
    let filled = found(reader.tier.fill(key, ByteRange::Full).await.unwrap());
    let (clock, deleted) = (filled.head.version.clock, filled.head.deleted);
    (clock, deleted, drink(filled).await.unwrap())
}

#[tokio::test]
async fn an_entry_comes_back_with_everything_that_travels_with_it() {
    let server = Server::start();
    let writer = loaded_node(&server).await;
    let key = writer.replica.put_entry("a key", 7, b"a value");
    writer.is_clean().await;
    let reader = loaded_node(&server).await;
    let filled = reader.open(&key).await;
    assert_eq!(&*filled.head.text, "a key");
    assert_eq!(filled.head.version, version(7));
    assert_eq!(filled.head.meta.content_type.as_deref(), Some("text/plain"));
    assert_eq!(filled.head.meta.client, [("duration".into(), "17".into())]);
    assert_eq!(filled.total_bytes, 7);
    assert_eq!(drink(filled).await.unwrap(), b"a value");
    assert!(!reader.replica.is_dirty(&key));
}

#[tokio::test]
async fn an_older_version_is_not_uploaded_over_a_newer_one() {
    let server = Server::start();
    let (newer, older) = (node(&server).await, node(&server).await);
    let key = newer.replica.put_entry("k", 9, b"new");
    newer.is_clean().await;
    older.replica.put_entry("k", 8, b"old");
    older.is_clean().await;
    assert_eq!(older.tier.figures().uploads(), 0);
    assert_eq!(older.tier.figures().uploads_spared(), 1);
    assert_eq!(
        look(&node(&server).await, &key).await,
        (9, false, b"new".to_vec())
    );
}

#[tokio::test]
async fn a_deletion_takes_the_place_of_the_entry() {
    let server = Server::start();
    let node = loaded_node(&server).await;
    let key = node.replica.put_entry("k", 1, b"value");
    node.is_clean().await;
    node.replica.delete_entry("k", 2);
    node.is_clean().await;
    let reader = loaded_node(&server).await;
    assert_eq!(look(&reader, &key).await, (2, true, Vec::new()));
    assert_eq!(server.objects().len(), 1);

    // And an entry the place of the deletion.
    node.replica.put_entry("k", 3, b"again");
    node.is_clean().await;
    assert_eq!(look(&reader, &key).await, (3, false, b"again".to_vec()));
}

#[tokio::test]
async fn a_large_entry_goes_up_in_parts_and_by_condition() {
    let server = Server::start();
    let writer = loaded_node(&server).await;
    let (one, two) = (noise(1, 20 << 20), noise(2, 21 << 20));
    let key = writer.replica.put_entry("k", 1, &one);
    writer.is_clean().await;
    writer.replica.put_entry("k", 2, &two);
    writer.is_clean().await;
    assert!(writer.tier.bucket().requests().of(Operation::Multipart) >= 10);
    let reader = loaded_node(&server).await;
    let (clock, _, value) = look(&reader, &key).await;
    assert!(clock == 2 && value == two);

    let older = loaded_node(&server).await;
    older.replica.put_entry("k", 1, &one);
    older.is_clean().await;
    assert_eq!(older.tier.figures().uploads(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_uploaders_that_race_never_put_an_older_version_over_a_newer_one() {
    const ROUNDS: u64 = 60;
    let server = Server::start();
    let (even, odd) = (loaded_node(&server).await, loaded_node(&server).await);
    let reader = Arc::new(loaded_node(&server).await);
    let key = entry_key("k");
    let watching = {
        let (reader, key) = (Arc::clone(&reader), key.clone());
        zimcache_telemetry::task::spawn("watcher", async move {
            let (mut last, mut seen) = (0, 0_u64);
            while last < 2 * ROUNDS + 1 {
                reader.replica.evict(&key);
                reader.tier.learn([&key]);
                let fill = reader.tier.fill(&key, ByteRange::Full).await.unwrap();
                let Fill::Found(filled) = fill else {
                    continue;
                };
                let clock = filled.head.version.clock;
                assert!(clock >= last, "version {clock} came after {last}");
                seen += u64::from(clock > last);
                last = clock;
                drink(filled).await.unwrap();
            }
            seen
        })
    };
    let write = async |replica: MemoryReplica, node: &Node, first: u64| {
        for round in 0..ROUNDS {
            let clock = 2 * round + first;
            replica.put_entry("k", clock, format!("value {clock}").as_bytes());
            node.tier.flush(&entry_key("k")).await.unwrap();
        }
    };
    tokio::join!(
        write(even.replica.clone(), &even, 2),
        write(odd.replica.clone(), &odd, 1),
    );
    even.replica.put_entry("k", 2 * ROUNDS + 1, b"last");
    even.is_clean().await;
    assert!(watching.await.unwrap() > 5, "the watcher saw the race");
    let last = (2 * ROUNDS + 1, false, b"last".to_vec());
    assert_eq!(look(&reader, &key).await, last);
}
