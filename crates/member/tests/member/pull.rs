//! Fetching records: what is transferred, what is not, and in which pieces.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_link::{
    Body, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read,
    Result, Status, StatusQuestion, Write, Writing,
};
use zimcache_store::{Pins, RecordHead, RecordKey, Version};
use zimcache_types::{Digest, Function, Namespace, Timestamp};

use crate::cluster::{Cluster, HINT, address, blob, entry, put};

fn pull(from: &str, keys: Vec<RecordKey>, pins: Pins) -> Pull {
    Pull {
        epoch: 1,
        from: address(from).into(),
        keys,
        pins,
    }
}

#[tokio::test]
async fn each_record_is_answered_for_by_itself() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (there, value) = blob(1);
    let (nowhere, _) = blob(2);
    put(
        &cluster.nodes["a"].store,
        &there,
        RecordHead::default(),
        &value,
        Pins::default(),
    )
    .await;
    let keys = vec![nowhere.clone(), there.clone(), nowhere, there.clone()];
    let held = cluster
        .member("b")
        .pull(pull("a", keys, HINT))
        .await
        .unwrap();
    assert_eq!(held, [false, true, false, true]);
    assert_eq!(cluster.pins("b", &there), Some(HINT));
    let held = cluster
        .member("b")
        .pull(pull("gone", vec![there], HINT))
        .await
        .unwrap();
    assert_eq!(held, [true], "what is here is not fetched");
}

/// A deletion reaches one node after the other; a repair from one that it had not reached brought the blob back.
#[tokio::test(start_paused = true)]
async fn a_blob_deleted_a_moment_ago_is_not_fetched_from_a_node_that_has_it_still() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (key, value) = blob(1);
    let head = RecordHead::default;
    put(&cluster.nodes["a"].store, &key, head(), &value, HINT).await;
    let b = cluster.member("b");
    b.delete(1, key.clone()).await.unwrap();
    cluster.nodes["b"].store.forget(&key);
    let again = || b.pull(pull("a", vec![key.clone()], Pins::default()));
    assert_eq!(again().await.unwrap(), [false]);
    assert!(!cluster.holders(&key).contains_key("b"));
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(again().await.unwrap(), [true], "it was put again");
}

#[tokio::test]
async fn a_blob_that_is_here_gets_the_pins_it_lacks() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (key, value) = blob(1);
    put(
        &cluster.nodes["b"].store,
        &key,
        RecordHead::default(),
        &value,
        Pins::default(),
    )
    .await;
    let held = cluster
        .member("b")
        .pull(pull("a", vec![key.clone()], HINT))
        .await
        .unwrap();
    assert_eq!(held, [true]);
    // The hint may be settled by now if the other one has it; it is not there, so it was delivered first.
    crate::cluster::eventually("the other one got it", async || {
        cluster.holders(&key).contains_key("a")
    })
    .await;
}

#[tokio::test]
async fn an_older_version_is_held_already() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (key, old) = entry(1, 10);
    let (_, new) = entry(1, 20);
    let value = Bytes::from_static(b"v");
    put(
        &cluster.nodes["a"].store,
        &key,
        old,
        &value,
        Pins::default(),
    )
    .await;
    put(
        &cluster.nodes["b"].store,
        &key,
        new,
        &value,
        Pins::default(),
    )
    .await;
    let held = cluster
        .member("b")
        .pull(pull("a", vec![key.clone()], Pins::default()))
        .await;
    assert_eq!(held.unwrap(), [true]);
    assert_eq!(
        cluster.holders(&key)["b"],
        Version {
            clock: 20,
            writer: 1
        }
    );
    let held = cluster
        .member("a")
        .pull(pull("b", vec![key.clone()], Pins::default()))
        .await;
    assert_eq!(held.unwrap(), [true]);
    assert_eq!(
        cluster.holders(&key)["a"],
        Version {
            clock: 20,
            writer: 1
        }
    );
}

/// A node that serves one large value and remembers how many chunks were asked for at once.
#[derive(Debug)]
struct Large {
    chunk: Bytes,
    count: usize,
    breaks: bool,
    served: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Chunks {
    chunk: Bytes,
    left: usize,
    breaks: bool,
    served: Arc<AtomicUsize>,
}

#[async_trait]
impl Body for Chunks {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.left == 0 || (self.breaks && self.left == 1) {
            return None;
        }
        self.left -= 1;
        self.served.fetch_add(1, Ordering::SeqCst);
        Some(Ok(self.chunk.clone()))
    }
}

fn refused() -> zimcache_link::Error {
    zimcache_link::Error::Refused {
        code: zimcache_types::Code::Internal,
        message: "not asked for here".into(),
    }
}

#[async_trait]
impl Peer for Large {
    async fn read(&self, _: Read) -> Result<Found> {
        Ok(Found::Yes {
            head: RecordHead::default(),
            created: Timestamp(0),
            pins: Pins::default(),
            total_bytes: (self.chunk.len() * self.count) as u64,
            is_unsure: false,
            body: Box::new(Chunks {
                chunk: self.chunk.clone(),
                left: self.count,
                breaks: self.breaks,
                served: Arc::clone(&self.served),
            }),
        })
    }
    async fn write(&self, _: Write) -> Result<Box<dyn Writing>> {
        Err(refused())
    }
    async fn find(&self, _: Find) -> Result<Vec<Presence>> {
        Err(refused())
    }
    async fn pull(&self, _: Pull) -> Result<Vec<bool>> {
        Err(refused())
    }
    async fn settle(&self, _: Vec<(RecordKey, Version)>, _: Pins) -> Result<()> {
        Err(refused())
    }
    async fn delete(&self, _: u64, _: RecordKey) -> Result<bool> {
        Err(refused())
    }
    async fn purge(&self, _: u64, _: Namespace) -> Result<()> {
        Err(refused())
    }
    async fn list_entries(&self, _: Listing) -> Result<Vec<ListedEntry>> {
        Err(refused())
    }
    async fn list_blobs(&self, _: Listing) -> Result<Vec<ListedBlob>> {
        Err(refused())
    }
    async fn status(&self, _: StatusQuestion) -> Result<Status> {
        Err(refused())
    }
    async fn manage(&self, _: Manage) -> Result<Bytes> {
        Err(refused())
    }
}

#[tokio::test]
async fn a_large_value_passes_chunk_by_chunk_and_a_broken_one_leaves_nothing() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (chunk, count) = (Bytes::from(vec![7; 64 << 10]), 512);
    let digest = Digest::of(Function::Sha256, &chunk.repeat(count));
    let key = RecordKey::blob(&Namespace::default(), &digest);
    for (breaks, expected) in [(true, [false]), (false, [true])] {
        let served = Arc::new(AtomicUsize::new(0));
        let large = Large {
            chunk: chunk.clone(),
            count,
            breaks,
            served: Arc::clone(&served),
        };
        cluster.net.put("http://large:1", Arc::new(large));
        let held = cluster
            .member("b")
            .pull(pull("large", vec![key.clone()], Pins::default()));
        assert_eq!(held.await.unwrap(), expected);
        assert_eq!(served.load(Ordering::SeqCst), count - usize::from(breaks));
        assert_eq!(cluster.holders(&key).contains_key("b"), !breaks);
    }
}
