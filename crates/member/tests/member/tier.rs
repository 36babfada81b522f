//! Deletions of what is on its way from the durable tier.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use zimcache_link::{Found, Peer as _, Presence, Read, Result};
use zimcache_member::DurableTier;
use zimcache_store::{
    BlobStore as _, ByteRange, CreateOptions, RecordKey, Touch, memory::MemoryStore,
};
use zimcache_types::{Digest, Function, Namespace};

use crate::cluster::{Cluster, blob, read};

/// A tier whose last fill ends while its object is deleted.
#[derive(Debug)]
struct Filling {
    node: Arc<MemoryStore>,
    fills: AtomicUsize,
    has_it: AtomicBool,
}

#[async_trait]
impl DurableTier for Filling {
    async fn fill(&self, _: &RecordKey, _: ByteRange) -> Result<Found> {
        self.fills.fetch_add(1, Ordering::SeqCst);
        Ok(Found::No(Presence::Unknown))
    }
    async fn delete(&self, key: &RecordKey) -> Result<()> {
        let (_, value) = blob(1);
        let digest = Digest::of(Function::Sha256, &value);
        let created = self
            .node
            .create(&key.namespace, &digest, CreateOptions::default());
        let mut writer = created.await.unwrap();
        writer.write(value).await.unwrap();
        writer.commit().await.unwrap();
        Ok(())
    }
    fn may_hold(&self, keys: &[&RecordKey]) -> Vec<bool> {
        vec![true; keys.len()]
    }
    async fn holds(&self, _: &RecordKey) -> Result<bool> {
        Ok(self.has_it.load(Ordering::SeqCst))
    }
    async fn purge(&self, _: &Namespace) -> Result<()> {
        Ok(())
    }
    async fn sweep(&self, _: bool) -> Result<(u64, u64)> {
        Ok((0, 0))
    }
    fn touched(&self, _: &RecordKey) {}
    fn learn(&self, _: &[RecordKey]) {}
    fn is_reachable(&self) -> bool {
        true
    }
}

/// A node "a" behind which there is such a tier.
async fn filling() -> (Cluster, Arc<Filling>) {
    let mut cluster = Cluster::of(&["a"]).await;
    let node = cluster.nodes.get_mut("a").unwrap();
    let tier = Arc::new(Filling {
        node: Arc::clone(&node.rest),
        fills: AtomicUsize::new(0),
        has_it: AtomicBool::new(false),
    });
    node.tier = Some(tier.clone());
    cluster.stop("a");
    cluster.start("a").await;
    cluster.all_caught_up().await;
    (cluster, tier)
}

#[tokio::test]
async fn a_blob_that_was_on_its_way_when_it_was_deleted_does_not_stay() {
    let (cluster, tier) = filling().await;
    let (key, value) = blob(1);
    let was_here = cluster.member("a").delete(1, key.clone()).await.unwrap();
    assert!(was_here, "it came meanwhile");
    let digests = [Digest::of(Function::Sha256, &value)];
    let missing = tier.node.missing(&key.namespace, &digests, Touch::No);
    assert_eq!(missing.await.unwrap(), [true]);
}

/// Another owner whom the deletion has not reached yet may upload it once more, or it may have been put again.
#[tokio::test(start_paused = true)]
async fn nothing_is_filled_that_was_deleted_a_moment_ago() {
    let (cluster, tier) = filling().await;
    let (key, _) = blob(1);
    let member = cluster.member("a");
    let said = async || {
        let fill = Read {
            fill: true,
            ..read(&key, 1)
        };
        match member.read(fill).await.unwrap() {
            Found::No(said) => (said, tier.fills.load(Ordering::SeqCst)),
            found @ Found::Yes { .. } => panic!("{found:?}"),
        }
    };
    assert_eq!(said().await, (Presence::Unknown, 1));
    member.delete(1, key.clone()).await.unwrap();
    assert_eq!(said().await, (Presence::Absent, 1));
    tier.has_it.store(true, Ordering::SeqCst);
    assert_eq!(said().await, (Presence::Unknown, 1), "it cannot tell which");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(said().await, (Presence::Unknown, 2));
}
