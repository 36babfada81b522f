//! What a member says of itself, and what its keeper has it do.

use zimcache_link::{Error, Manage, Peer as _, StatusQuestion, Write};
use zimcache_store::{RecordHead, RecordOptions};
use zimcache_types::Code;

use crate::cluster::{Cluster, HINT, blob, put};

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
