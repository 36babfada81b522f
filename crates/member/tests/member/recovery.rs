//! Hints, restarts and lost disks.

use bytes::Bytes;
use zimcache_link::{Find, Found, Peer as _, Presence, Write};
use zimcache_store::{Pins, Precondition, RecordHead, RecordOptions, Touch};

use crate::cluster::{Cluster, HINT, blob, entry, eventually, put, read};

/// A node that does not own a key, of which there is one.
fn outsider(cluster: &Cluster, key: &zimcache_store::RecordKey) -> String {
    let owners = cluster.owners(key);
    let ids = cluster.nodes.keys();
    ids.into_iter()
        .find(|id| !owners.contains(id))
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_hint_is_delivered_when_its_owner_is_back_and_settled_when_all_hold_it() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let (key, value) = blob(1);
    let owners = cluster.owners(&key);
    let stand_in = outsider(&cluster, &key);
    cluster.cut(&owners[1], true);
    for holder in [&owners[0], &stand_in] {
        put(
            &cluster.nodes[holder].store,
            &key,
            RecordHead::default(),
            &value,
            HINT,
        )
        .await;
    }
    // Rounds go by, and the hint stays.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(cluster.pins(&owners[0], &key), Some(HINT));
    assert_eq!(cluster.pins(&stand_in, &key), Some(HINT));
    assert!(!cluster.holders(&key).contains_key(&owners[1]));
    cluster.cut(&owners[1], false);
    eventually("the owner holds it, and nobody has a hint", async || {
        let holds = cluster.holders(&key).contains_key(&owners[1]);
        let none = |id: &String| cluster.pins(id, &key) == Some(Pins::default());
        holds && none(&owners[0]) && none(&stand_in)
    })
    .await;
}

#[tokio::test]
async fn the_newest_version_is_what_every_owner_ends_with() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let (key, old) = entry(1, 10);
    let (_, new) = entry(1, 20);
    let owners = cluster.owners(&key);
    let stand_in = outsider(&cluster, &key);
    put(
        &cluster.nodes[&owners[0]].store,
        &key,
        new.clone(),
        &Bytes::from_static(b"new"),
        HINT,
    )
    .await;
    put(
        &cluster.nodes[&stand_in].store,
        &key,
        old,
        &Bytes::from_static(b"old"),
        HINT,
    )
    .await;
    eventually("both owners hold the new version", async || {
        let holders = cluster.holders(&key);
        let is_new = |id: &String| holders.get(id) == Some(&new.version);
        owners.iter().all(is_new)
    })
    .await;
    eventually("no hint is left", async || {
        let pinned = cluster.nodes.keys().filter_map(|id| cluster.pins(id, &key));
        pinned.into_iter().all(|pins| !pins.hint)
    })
    .await;
    let records = cluster.nodes[&owners[1]].store.records();
    assert_eq!(records[&key].1, "new");
}

#[tokio::test]
async fn a_deletion_travels_like_a_value() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let (key, old) = entry(1, 10);
    let owners = cluster.owners(&key);
    put(
        &cluster.nodes[&owners[1]].store,
        &key,
        old,
        &Bytes::from_static(b"old"),
        Pins::default(),
    )
    .await;
    let (_, mut deletion) = entry(1, 20);
    deletion.deleted = true;
    put(
        &cluster.nodes[&owners[0]].store,
        &key,
        deletion,
        &Bytes::new(),
        HINT,
    )
    .await;
    eventually("the other owner knows of the deletion", async || {
        cluster.nodes[&owners[1]].store.records()[&key].0.deleted
    })
    .await;
}

#[tokio::test]
async fn a_lost_disk_is_refilled_before_its_node_says_absent() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let blobs: Vec<_> = (0..300).map(blob).collect();
    for (key, value) in &blobs {
        for owner in cluster.owners(key) {
            let store = &cluster.nodes[&owner].store;
            put(store, key, RecordHead::default(), value, Pins::default()).await;
        }
    }
    let owned = |cluster: &Cluster| -> Vec<_> {
        let is_of_b =
            |key: &zimcache_store::RecordKey| cluster.owners(key).contains(&"b".to_owned());
        blobs
            .iter()
            .map(|(key, _)| key.clone())
            .filter(is_of_b)
            .collect()
    };
    let keys = owned(&cluster);
    assert!(keys.len() > 100, "{}", keys.len());
    cluster.lose_disk("b").await;
    let member = cluster.member("b").clone();
    let find = Find {
        epoch: 1,
        sizes: vec![None; keys.len()],
        keys,
        touch: Touch::No,
    };
    loop {
        let presences = member.find(find.clone()).await.unwrap();
        assert!(
            !presences.contains(&Presence::Absent),
            "absent is said too early"
        );
        if presences.iter().all(|one| *one == Presence::Present) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    cluster.all_caught_up().await;
    let (nowhere, _) = blob(1_000_000);
    let found = member.read(read(&nowhere, 1)).await.unwrap();
    assert!(matches!(found, Found::No(Presence::Absent)));
}

#[tokio::test]
async fn a_node_does_not_say_absent_while_another_one_is_away() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.cut("c", true);
    cluster.stop("a");
    cluster.start("a").await;
    let (key, _) = blob(7);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let found = cluster.member("a").read(read(&key, 1)).await.unwrap();
    assert!(matches!(found, Found::No(Presence::Unknown)));
    cluster.cut("c", false);
    cluster.all_caught_up().await;
    let found = cluster.member("a").read(read(&key, 1)).await.unwrap();
    assert!(matches!(found, Found::No(Presence::Absent)));
}

#[tokio::test]
async fn a_node_is_unsure_of_its_versions_while_another_one_is_away_and_decides_nothing() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let (key, head) = entry(1, 10);
    let store = &cluster.nodes["a"].store;
    put(
        store,
        &key,
        head,
        &Bytes::from_static(b"old"),
        Pins::default(),
    )
    .await;
    cluster.cut("c", true);
    cluster.stop("a");
    cluster.start("a").await;
    for is_unsure in [true, false] {
        let found = cluster.member("a").read(read(&key, 1)).await.unwrap();
        let Found::Yes {
            is_unsure: said, ..
        } = found
        else {
            panic!("it is there");
        };
        assert_eq!(said, is_unsure);
        let (new, head) = entry(2, 10);
        let options = RecordOptions {
            precondition: Precondition::Absent,
            ..RecordOptions::default()
        };
        let write = Write {
            epoch: 1,
            key: new,
            head,
            options,
        };
        assert_eq!(cluster.member("a").write(write).await.is_err(), is_unsure);
        cluster.cut("c", false);
        cluster.all_caught_up().await;
    }
}

#[tokio::test]
async fn a_restarted_node_gets_what_it_missed_though_another_owner_is_away() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let (key, value) = blob(3);
    let owners = cluster.owners(&key);
    let holder = outsider(&cluster, &key);
    cluster.stop(&owners[0]);
    cluster.cut(&owners[1], true);
    put(
        &cluster.nodes[&holder].store,
        &key,
        RecordHead::default(),
        &value,
        HINT,
    )
    .await;
    cluster.start(&owners[0]).await;
    eventually("it holds what it missed", async || {
        cluster.holders(&key).contains_key(&owners[0])
    })
    .await;
    assert_eq!(cluster.pins(&holder, &key), Some(HINT));
    let question = zimcache_link::StatusQuestion {
        for_member: Some((
            owners[0].as_str().into(),
            zimcache_store::Replica::store_id(&cluster.nodes[&owners[0]].store),
        )),
        ..Default::default()
    };
    let holder = cluster.member(&holder).clone();
    eventually("the holder owes it nothing", async || {
        holder
            .status(question.clone())
            .await
            .unwrap()
            .nothing_for_member
    })
    .await;
}

#[tokio::test]
async fn a_new_disk_is_known_as_one_though_both_nodes_were_restarted() {
    let mut cluster = Cluster::of(&["a", "b"]).await;
    let (key, value) = blob(5);
    put(
        &cluster.nodes["a"].store,
        &key,
        RecordHead::default(),
        &value,
        Pins::default(),
    )
    .await;
    put(
        &cluster.nodes["b"].store,
        &key,
        RecordHead::default(),
        &value,
        Pins::default(),
    )
    .await;
    cluster.stop("a");
    cluster.lose_disk("b").await;
    cluster.start("a").await;
    eventually("the new disk holds what is left", async || {
        cluster.holders(&key).contains_key("b")
    })
    .await;
    cluster.all_caught_up().await;
    // And one that is the same disk as before is given nothing again.
    cluster.nodes["b"].store.forget(&key);
    cluster.stop("a");
    cluster.stop("b");
    cluster.start("a").await;
    cluster.start("b").await;
    cluster.all_caught_up().await;
    assert!(!cluster.holders(&key).contains_key("b"));
}
