//! Ring changes: who holds what when the old placement may be closed.

use std::collections::BTreeMap;

use bytes::Bytes;
use zimcache_link::{Error, Found, Peer as _, StatusQuestion};
use zimcache_ring::{Change, State, next};
use zimcache_store::{Pins, RecordHead, RecordKey};

use crate::cluster::{Cluster, blob, entry, eventually, put, read, ring_member};

async fn fill(cluster: &Cluster) -> Vec<RecordKey> {
    let mut keys = Vec::new();
    for n in 0..300 {
        let (key, value) = blob(n);
        for owner in cluster.owners(&key) {
            let store = &cluster.nodes[&owner].store;
            put(store, &key, RecordHead::default(), &value, Pins::default()).await;
        }
        keys.push(key);
        let (key, head) = entry(n, 5);
        for owner in cluster.owners(&key) {
            let value = Bytes::from_static(b"value");
            put(
                &cluster.nodes[&owner].store,
                &key,
                head.clone(),
                &value,
                Pins::default(),
            )
            .await;
        }
        keys.push(key);
    }
    keys
}

/// Waits until all living nodes have reported; what they report.
async fn all_synced(cluster: &Cluster, ids: &[&str]) -> BTreeMap<String, u64> {
    let published = cluster.document.published_epoch();
    let mut reports = BTreeMap::new();
    for id in ids {
        eventually(&format!("{id} has handed over"), async || {
            cluster.status(id).await.synced_epoch >= published
        })
        .await;
        reports.insert((*id).to_owned(), cluster.status(id).await.synced_epoch);
    }
    reports
}

fn assert_on_owners(cluster: &Cluster, keys: &[RecordKey]) {
    for key in keys {
        let holders = cluster.holders(key);
        for owner in cluster.owners(key) {
            assert!(holders.contains_key(&owner), "{owner} lacks {key:?}");
        }
    }
}

/// Seed 683 of the simulation: it had nothing to hand over, and then got back what another one owns by now.
#[tokio::test]
async fn who_lost_its_disk_hands_over_only_what_it_got_back() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let keys = fill(&cluster).await;
    for other in ["b", "c"] {
        cluster.cut(other, true);
    }
    cluster.lose_disk("a").await;
    let members = vec![ring_member("d")];
    let joined = next(&cluster.document, &Change::Join { members }).unwrap();
    cluster.publish(joined).await;
    cluster.add("d").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let published = cluster.document.published_epoch();
    assert!(cluster.status("a").await.synced_epoch < published);
    for other in ["b", "c"] {
        cluster.cut(other, false);
    }
    all_synced(&cluster, &["a", "b", "c", "d"]).await;
    assert_on_owners(&cluster, &keys);
}

#[tokio::test]
async fn who_joins_holds_what_it_owns_before_the_old_placement_is_closed() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let keys = fill(&cluster).await;
    let members = vec![ring_member("d")];
    let joined = next(&cluster.document, &Change::Join { members }).unwrap();
    cluster.publish(joined).await;
    cluster.add("d").await;
    let reports = all_synced(&cluster, &["a", "b", "c", "d"]).await;
    assert_on_owners(&cluster, &keys);
    let moved = keys
        .iter()
        .filter(|key| cluster.owners(key).contains(&"d".to_owned()));
    assert!(moved.count() > 100);
    let closed = next(&cluster.document, &Change::ClosePrevious { reports }).unwrap();
    cluster.publish(closed).await;
    cluster.all_caught_up().await;
}

#[tokio::test]
async fn who_leaves_has_given_everything_away() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let keys = fill(&cluster).await;
    let ids = vec!["b".to_owned()];
    let left = next(&cluster.document, &Change::Leave { ids }).unwrap();
    cluster.publish(left).await;
    all_synced(&cluster, &["a", "b", "c"]).await;
    cluster.stop("b");
    cluster.nodes.remove("b");
    assert_on_owners(&cluster, &keys);
}

#[tokio::test]
async fn what_a_lost_node_held_is_copied_by_who_is_left() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let keys = fill(&cluster).await;
    cluster.stop("b");
    let change = Change::Mark {
        id: "b".to_owned(),
        state: State::Lost,
    };
    let lost = next(&cluster.document, &change).unwrap();
    let ids = vec!["b".to_owned()];
    let left = next(&lost, &Change::Leave { ids }).unwrap();
    cluster.publish(left).await;
    all_synced(&cluster, &["a", "c"]).await;
    cluster.nodes.remove("b");
    assert_on_owners(&cluster, &keys);
}

#[tokio::test]
async fn nothing_is_reported_while_an_owner_cannot_take_what_is_its() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    fill(&cluster).await;
    let members = vec![ring_member("d")];
    let joined = next(&cluster.document, &Change::Join { members }).unwrap();
    let published = joined.published_epoch();
    cluster.publish(joined).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for id in ["a", "b", "c"] {
        assert!(cluster.status(id).await.synced_epoch < published, "{id}");
    }
    cluster.add("d").await;
    all_synced(&cluster, &["a", "b", "c", "d"]).await;
}

#[tokio::test]
async fn after_the_report_entries_are_refused_to_who_follows_an_older_ring() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let keys = fill(&cluster).await;
    let ids = vec!["c".to_owned()];
    let left = next(&cluster.document, &Change::Leave { ids }).unwrap();
    let old = cluster.document.epoch();
    cluster.publish(left).await;
    all_synced(&cluster, &["a"]).await;
    let (blob, entry) = (&keys[0], &keys[1]);
    match cluster.member("a").read(read(entry, old)).await {
        Err(Error::StaleRing { ring }) => {
            let json = String::from_utf8(ring.to_vec()).unwrap();
            let document = zimcache_ring::Document::parse(&json).unwrap();
            assert_eq!(document, cluster.document);
        }
        other => panic!("{other:?}"),
    }
    let found = cluster
        .member("a")
        .read(read(entry, cluster.document.epoch()))
        .await;
    assert!(matches!(found, Ok(Found::Yes { .. })));
    assert!(cluster.member("a").read(read(blob, old)).await.is_ok());
}

/// A deletion under an older ring passed over the node that had joined, which kept the blob.
#[tokio::test]
async fn what_has_to_reach_every_member_is_refused_to_who_follows_an_older_ring() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let members = vec![ring_member("d")];
    let joined = next(&cluster.document, &Change::Join { members }).unwrap();
    let (old, new) = (cluster.document.epoch(), joined.epoch());
    cluster.publish(joined).await;
    let (member, (key, _)) = (cluster.member("a"), blob(1));
    let refusal = member.delete(old, key.clone()).await;
    assert!(matches!(refusal, Err(Error::StaleRing { .. })));
    let refusal = member.purge(old, key.namespace.clone()).await;
    assert!(matches!(refusal, Err(Error::StaleRing { .. })));
    member.delete(new, key.clone()).await.unwrap();
    member.purge(new, key.namespace).await.unwrap();
}

#[tokio::test]
async fn rings_are_learnt_from_who_asks_and_told_to_who_is_behind() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let ids = vec!["b".to_owned()];
    let newer = next(&cluster.document, &Change::Leave { ids }).unwrap();
    let json = |document: &zimcache_ring::Document| Some(Bytes::from(document.to_json().unwrap()));
    let ask = async |ring| {
        let question = StatusQuestion {
            ring,
            ..StatusQuestion::default()
        };
        cluster.member("a").status(question).await.unwrap()
    };
    let answer = ask(json(&newer)).await;
    assert_eq!((answer.epoch, answer.ring), (2, None));
    let answer = ask(json(&cluster.document)).await;
    assert_eq!((answer.epoch, answer.ring), (2, json(&newer)));
}
