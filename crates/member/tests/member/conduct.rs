//! What a member says of itself, and what its keeper has it do.

use bytes::Bytes;
use zimcache_link::{Error, Found, Manage, Peer as _, Presence, Pull, StatusQuestion, Write};
use zimcache_ring::{Change, next};
use zimcache_store::{Pins, RecordHead, RecordOptions};
use zimcache_types::Code;

use crate::cluster::{Cluster, HINT, address, blob, eventually, put, read, ring_member};

#[tokio::test]
async fn a_new_cluster_has_caught_up_at_once() {
    let cluster = Cluster::of(&["a", "b", "c", "d", "e"]).await;
    for id in cluster.nodes.keys() {
        let status = cluster.status(id).await;
        assert_eq!((&*status.id, status.epoch), (id.as_str(), 1));
        assert!(!status.draining && status.tier_reachable.is_none());
    }
}

#[tokio::test]
async fn figures_come_when_they_are_asked_for_and_pins_always() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (key, value) = blob(1);
    cluster.cut("b", true);
    put(
        &cluster.nodes["a"].store,
        &key,
        RecordHead::default(),
        &value,
        HINT,
    )
    .await;
    let status = cluster.status("a").await;
    assert_eq!(
        (status.pinned.hints, status.pinned.hint_bytes),
        (1, value.len() as u64)
    );
    assert!(status.usage.is_empty());
    let question = StatusQuestion {
        with_figures: true,
        ..StatusQuestion::default()
    };
    let status = cluster.member("a").status(question).await.unwrap();
    assert_eq!(status.usage, "[]");
    assert_eq!(status.stats.capacity_bytes, u64::MAX);
}

#[tokio::test]
async fn a_node_that_drains_takes_nothing_new_until_it_is_told_otherwise() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (key, value) = blob(1);
    let write = Write {
        epoch: 1,
        key,
        head: RecordHead::default(),
        options: RecordOptions::default(),
    };
    let member = cluster.member("a");
    for (drains, code) in [(true, Some(Code::Unavailable)), (false, None)] {
        member.manage(Manage::Drain(drains)).await.unwrap();
        assert_eq!(cluster.status("a").await.draining, drains);
        let outcome = match member.write(write.clone()).await {
            Ok(mut writing) => {
                writing.write(value.clone()).await.unwrap();
                writing.commit(HINT).await.map(drop)
            }
            Err(error) => Err(error),
        };
        assert_eq!(outcome.err().as_ref().map(Error::code), code);
    }
}

/// A store that remembers the deletion of a blob was asked for it, and an empty value was the answer.
#[tokio::test]
async fn a_blob_that_was_deleted_is_not_there_and_its_deletion_goes_nowhere() {
    let mut cluster = Cluster::of(&["a", "b"]).await;
    let deletion = || RecordHead {
        deleted: true,
        ..RecordHead::default()
    };
    let keys: Vec<_> = (0..50).map(|n| blob(n).0).collect();
    for key in &keys {
        let store = &cluster.nodes["a"].store;
        put(store, key, deletion(), &Bytes::new(), Pins::default()).await;
        let found = cluster.member("a").read(read(key, 1)).await.unwrap();
        assert!(matches!(found, Found::No(Presence::Absent)));
    }
    let pull = Pull {
        epoch: 1,
        from: address("a").into(),
        keys: keys.clone(),
        pins: Pins::default(),
    };
    let held = cluster.member("b").pull(pull).await.unwrap();
    assert!(held.iter().all(|held| !held));
    // A ring change waits for nobody to take what nobody gives.
    let members = vec![ring_member("c")];
    let joined = next(&cluster.document, &Change::Join { members }).unwrap();
    let published = joined.published_epoch();
    cluster.publish(joined).await;
    cluster.add("c").await;
    eventually("a has handed over", async || {
        cluster.status("a").await.synced_epoch >= published
    })
    .await;
    for key in &keys {
        assert!(!cluster.holders(key).contains_key("c"));
    }
}
