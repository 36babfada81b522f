//! Fills: one request for any number of readers, and never a wrong byte.

use std::{path::PathBuf, time::Duration};

use zimcache_store::{ByteRange, Pins, RecordHead, RecordKey};
use zimcache_tier::{Error, Fill, Operation};
use zimcache_types::{Digest, Function, Namespace};

use crate::{
    server::Server,
    support::{Node, drink, eventually, found, loaded_node, noise},
};

/// A server that has one blob, and its name.
async fn server_with(body: &[u8]) -> (Server, RecordKey) {
    let server = Server::start();
    let writer = loaded_node(&server).await;
    let key = writer.replica.put_blob(body);
    writer.is_clean().await;
    writer.tier.stop().await;
    (server, key)
}

fn only_object(server: &Server) -> PathBuf {
    let objects = server.objects();
    assert_eq!(objects.len(), 1);
    server.bucket_folder().join(&objects[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_readers_of_one_cold_object_are_one_request() {
    let body = noise(1, 12 << 20);
    let (server, key) = server_with(&body).await;
    let node = loaded_node(&server).await;
    let readers = (0..64).map(|_| node.read(&key));
    for read in futures_util::future::join_all(readers).await {
        assert!(read.unwrap() == body);
    }
    assert_eq!(node.tier.bucket().requests().of(Operation::Get), 1);
    assert_eq!(node.tier.figures().fills(), 1);
    assert_eq!(node.tier.figures().fills_shared(), 63);
    assert_eq!(server.logged("GetObject"), 1, "the server counts the same");
    eventually("it is kept", || node.replica.holds(&key)).await;
    assert!(!node.replica.is_dirty(&key), "it came from the bucket");
    // And from now on none.
    assert!(node.read(&key).await.unwrap() == body);
    assert_eq!(node.tier.bucket().requests().of(Operation::Get), 1);
}

#[tokio::test]
async fn readers_get_the_range_they_asked_for() {
    let body = noise(2, 3 << 20);
    let (server, key) = server_with(&body).await;
    let node = loaded_node(&server).await;
    let ranges = [
        (
            ByteRange::From {
                first: 5,
                last: Some(9),
            },
            5..10,
        ),
        (
            ByteRange::From {
                first: 2 << 20,
                last: None,
            },
            2 << 20..3 << 20,
        ),
        (ByteRange::Suffix(1), (3 << 20) - 1..3 << 20),
    ];
    let fills = ranges.iter().map(|(range, _)| node.tier.fill(&key, *range));
    let fills = futures_util::future::join_all(fills).await;
    for (fill, (_, bytes)) in fills.into_iter().zip(&ranges) {
        let filled = found(fill.unwrap());
        assert_eq!(filled.total_bytes, 3 << 20);
        assert!(drink(filled).await.unwrap() == body[bytes.clone()]);
    }
    assert_eq!(node.tier.bucket().requests().of(Operation::Get), 1);
    node.replica.evict(&key);
    let behind = ByteRange::From {
        first: 3 << 20,
        last: None,
    };
    let refused = node.tier.fill(&key, behind).await;
    assert!(
        matches!(refused, Err(Error::RangeInvalid { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_the_value_can_be_uploaded_again() {
    let body = noise(3, 2 << 20);
    let (server, key) = server_with(&body).await;
    let object = only_object(&server);
    let mut wrong = body.clone();
    wrong[1 << 20] ^= 1;
    std::fs::write(&object, &wrong).unwrap();

    let node = loaded_node(&server).await;
    let mut filled = node.open(&key).await;
    let mut shown = 0;
    let error = loop {
        match filled.next_chunk().await {
            Some(Ok(chunk)) => shown += chunk.len(),
            Some(Err(error)) => break error,
            None => panic!("wrong bytes were shown to the end"),
        }
    };
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert!(shown < body.len());
    assert!(!node.replica.holds(&key));
    assert_eq!(node.tier.figures().corrupt(), 1);
    eventually("it is removed", || server.objects().is_empty()).await;

    node.replica.put_blob(&body);
    node.is_clean().await;
    node.replica.evict(&key);
    assert!(node.read(&key).await.unwrap() == body);
}

#[tokio::test]
async fn a_small_value_with_wrong_bytes_shows_none_of_them() {
    let (server, key) = server_with(b"a small body").await;
    std::fs::write(only_object(&server), b"a smell body").unwrap();
    let node = loaded_node(&server).await;
    let first = node.open(&key).await.next_chunk().await.unwrap();
    assert!(matches!(first, Err(Error::Corrupt(_))), "{first:?}");
}

#[tokio::test]
async fn a_truncated_object_is_refused() {
    let body = noise(4, 1 << 20);
    let (server, key) = server_with(&body).await;
    std::fs::write(only_object(&server), &body[..1 << 19]).unwrap();
    let node = loaded_node(&server).await;
    let read = node.read(&key).await;
    assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
}

#[tokio::test]
async fn a_store_that_takes_nothing_stops_no_reader() {
    let body = noise(5, 3 << 20);
    let (server, key) = server_with(&body).await;
    let node = loaded_node(&server).await;
    node.replica.set_full(true);
    assert!(node.read(&key).await.unwrap() == body);
    assert!(!node.replica.holds(&key));
    eventually("it is counted", || {
        node.tier.figures().fills_not_kept() == 1
    })
    .await;
    node.replica.set_full(false);
    assert!(node.read(&key).await.unwrap() == body);
    eventually("it is kept", || node.replica.holds(&key)).await;
}

/// A node whose disk is new makes its folder and syncs it first: its readers waited 5 ms longer for the first byte.
#[tokio::test]
async fn a_store_that_takes_its_time_keeps_nobody_from_the_first_bytes() {
    let (small, large) = (noise(15, 1_000), noise(16, 3 << 20));
    for body in [small, large] {
        let (server, key) = server_with(&body).await;
        let node = loaded_node(&server).await;
        let busy = node.replica.busy().await;
        let mut filled = node.open(&key).await;
        let first = filled.next_chunk().await.unwrap().unwrap();
        assert!(body.starts_with(&first));
        assert!(!node.replica.holds(&key));
        drop(busy);
        assert!(drink(filled).await.unwrap() == body[first.len()..]);
        eventually("it is kept", || node.replica.holds(&key)).await;
    }
}

/// A blob that was deleted while it came from the bucket was on the disk again afterwards.
#[tokio::test]
async fn a_value_that_is_deleted_on_its_way_is_kept_by_nobody() {
    let body = noise(17, 3 << 20);
    for purges in [false, true] {
        let (server, key) = server_with(&body).await;
        let node = loaded_node(&server).await;
        let busy = node.replica.busy().await;
        let filled = node.open(&key).await;
        if purges {
            node.tier.purge(&key.namespace).await.unwrap();
        } else {
            node.tier.delete(&key).await.unwrap();
        }
        let late = node.tier.fill(&key, ByteRange::Full).await.unwrap();
        assert!(matches!(late, Fill::Absent), "nobody joins: {late:?}");
        drop(busy);
        assert!(drink(filled).await.unwrap() == body, "it began before");
        eventually("it has ended", || node.tier.figures().fills_not_kept() == 1).await;
        assert!(!node.replica.holds(&key));
    }
}

#[tokio::test]
async fn a_reader_that_stands_still_goes_on_from_the_store() {
    let body = noise(6, 12 << 20);
    let (server, key) = server_with(&body).await;
    let node = loaded_node(&server).await;
    let mut slow = node.open(&key).await;
    let first = slow.next_chunk().await.unwrap().unwrap();
    assert!(
        node.read(&key).await.unwrap() == body,
        "others are not held up for good"
    );
    eventually("it is kept", || node.replica.holds(&key)).await;
    let mut all = first.to_vec();
    while let Some(chunk) = slow.next_chunk().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    assert!(all == body);
    assert_eq!(node.tier.bucket().requests().of(Operation::Get), 1);
}

#[tokio::test]
async fn a_value_is_kept_although_its_only_reader_left() {
    let (server, key) = server_with(&noise(7, 12 << 20)).await;
    let node = loaded_node(&server).await;
    drop(node.open(&key).await);
    eventually("it is kept", || node.replica.holds(&key)).await;
}

#[tokio::test]
async fn blobs_of_every_function_are_verified_by_their_names() {
    let server = Server::start();
    let node = loaded_node(&server).await;
    for function in Function::ALL {
        let body = format!("a body under {function}");
        let digest = Digest::of(function, body.as_bytes());
        let key = RecordKey::blob(&Namespace::default(), &digest);
        let dirty = Pins {
            dirty: true,
            hint: false,
        };
        node.replica
            .put(&key, RecordHead::default(), body.clone().into(), dirty);
        node.is_clean().await;
        node.replica.evict(&key);
        assert_eq!(
            node.read(&key).await.unwrap(),
            body.as_bytes(),
            "{function}"
        );
    }
    assert_eq!(server.objects().len(), Function::ALL.len());
}

#[tokio::test]
async fn the_first_bytes_come_long_before_the_last() {
    let body = noise(8, 64 << 20);
    let (server, key) = server_with(&body).await;
    let node = loaded_node(&server).await;
    let mut filled = node.open(&key).await;
    let first = filled.next_chunk().await.unwrap().unwrap();
    assert!(!first.is_empty());
    let come = node.tier.figures().fill_bytes();
    assert!(
        come < 16 << 20,
        "{come} bytes had come before a reader saw the first"
    );
    assert!(drink(filled).await.unwrap() == body[first.len()..]);
}

/// A blob that is in the bucket and not in the filter, since it was put there behind our back.
async fn behind_our_back(node: &Node, server: &Server) -> RecordKey {
    let writer = loaded_node(server).await;
    let key = writer.replica.put_blob(b"behind our back");
    writer.is_clean().await;
    assert!(node.tier.presence().is_loaded());
    key
}

#[tokio::test]
async fn a_ring_change_lists_the_bucket_again() {
    let server = Server::start();
    let node = loaded_node(&server).await;
    let key = behind_our_back(&node, &server).await;
    let fill = node.tier.fill(&key, ByteRange::Full).await.unwrap();
    assert!(matches!(fill, Fill::Absent), "the filter is believed");
    node.tier.ring_changed();
    assert_eq!(node.read(&key).await.unwrap(), b"behind our back");
    eventually("it is listed", || node.tier.presence().is_loaded()).await;
    tokio::time::timeout(Duration::from_secs(20), node.tier.stop())
        .await
        .unwrap();
}

/// A store that remembers the deletion of a blob was asked for what it had just been sent.
#[tokio::test]
async fn a_blob_that_was_deleted_here_is_fetched_like_any_other() {
    let body = noise(9, 1000);
    let (server, key) = server_with(&body).await;
    let node = loaded_node(&server).await;
    node.replica.put(
        &key,
        RecordHead {
            deleted: true,
            ..RecordHead::default()
        },
        bytes::Bytes::new(),
        Pins::default(),
    );
    assert!(node.read(&key).await.unwrap() == body);
}
