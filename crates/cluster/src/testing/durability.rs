//! Durability classes, and rings that change.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use zimcache_ring::{Change, Document, Member};
use zimcache_store::{CreateOptions, RecordKey};
use zimcache_types::Code;

use super::{
    fake::{Fake, Fault},
    harness::{Rig, blob_key, body, entry, plain},
};
use crate::{Config, Durability};

const NODES: [&str; 4] = ["a", "b", "c", "d"];

fn class(durability: Durability) -> Config {
    Config {
        durability,
        durable_tier: true,
        ..plain()
    }
}

#[tokio::test(start_paused = true)]
async fn local_is_acknowledged_by_one_owner_with_a_hint_and_needs_an_owner() {
    let rig = Rig::new(2, &NODES);
    let config = Config {
        durability: Durability::Local,
        ..plain()
    };
    let (gateway, body) = (rig.gateway_with(1, config), body(1000, 1));
    let key = blob_key(&body);
    let (owners, stand_ins) = rig.places(&key);
    for node in &stand_ins {
        node.set(Fault::Down);
    }
    owners[1].set(Fault::Slow(Duration::from_secs(1)));
    let start = tokio::time::Instant::now();
    gateway.put(&body).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "the other owner is not waited for"
    );
    assert!(owners[0].is_hinted(&key));
    owners[1].set(Fault::None);
    rig.deliver_hints();
    assert!(owners[1].has(&key));

    for owner in &owners {
        owner.set(Fault::Down);
    }
    for node in &stand_ins {
        node.set(Fault::None);
    }
    let refusal = gateway.put(&body).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn bucket_waits_for_the_durable_tier() {
    let rig = Rig::new(2, &NODES);
    let config = Config {
        timing: crate::Timing {
            upload: Duration::from_secs(2),
            ..crate::Timing::default()
        },
        ..class(Durability::Bucket)
    };
    let (gateway, body) = (rig.gateway_with(1, config), body(1000, 2));
    rig.nodes()
        .iter()
        .for_each(|node| node.state.lock().dirty_for = 4);
    let start = tokio::time::Instant::now();
    gateway.put(&body).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(5 + 10 + 20));
    rig.nodes()
        .iter()
        .for_each(|node| node.state.lock().dirty_for = u32::MAX);
    let refusal = gateway
        .put(&super::harness::body(1000, 3))
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn one_owner_and_the_durable_tier_are_as_good_as_two_nodes() {
    let rig = Rig::new(2, &["a", "b"]);
    let (gateway, body) = (
        rig.gateway_with(1, class(Durability::Quorum)),
        body(1000, 4),
    );
    rig.places(&blob_key(&body)).0[0].set(Fault::Down);
    rig.nodes()
        .iter()
        .for_each(|node| node.state.lock().dirty_for = 3);
    gateway.put(&body).await.unwrap();
    let alone = rig.gateway_with(2, plain());
    let refusal = alone.put(&super::harness::body(1000, 5)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}

/// The ring with one more node, the old placement still open.
fn grown(rig: &Rig, id: &str) -> Document {
    Fake::new(id, &rig.net);
    let before = rig.rings.borrow().clone();
    let members = vec![Member::new(id)];
    zimcache_ring::next(&before, &Change::Join { members }).unwrap()
}

/// A key whose owners differ between the two placements of a ring by more than nothing.
fn moved_entry(document: &Document) -> String {
    let ring = zimcache_ring::Ring::new(document);
    let texts = (0..1000).map(|number| format!("key-{number}"));
    let is_moved = |text: &String| {
        let key = RecordKey::entry(&entry(text));
        let key =
            zimcache_ring::RingKey::of_entry_record(&key.namespace, entry(text).kind, &key.id);
        let set = ring.read_set(key.point());
        set.previous.first() != set.current.first() && set.previous != set.current
    };
    texts.into_iter().find(is_moved).unwrap()
}

#[tokio::test(start_paused = true)]
async fn while_a_ring_changes_entries_go_to_both_placements_and_the_newest_is_read() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let (old, new) = (rig.gateway_with(1, plain()), rig.gateway_with(2, plain()));
    let document = grown(&rig, "d");
    let text = moved_entry(&document);
    let key = RecordKey::entry(&entry(&text));
    old.put_entry(&text, &Bytes::from_static(b"before"))
        .await
        .unwrap();
    assert!(new.cluster.set_ring(document.clone()).await);
    assert!(!new.cluster.set_ring(document.clone()).await, "once");
    assert_eq!(new.get_entry(&text).await.unwrap().unwrap(), "before");

    new.put_entry(&text, &Bytes::from_static(b"after"))
        .await
        .unwrap();
    let ring = new.cluster.ring();
    let expected =
        zimcache_ring::RingKey::of_entry_record(&key.namespace, entry(&text).kind, &key.id);
    for ix in ring.read_set(expected.point()).iter() {
        assert!(rig.node(&ring.member(ix).id).has(&key));
    }
    assert_eq!(
        old.get_entry(&text).await.unwrap().unwrap(),
        "after",
        "by the old placement"
    );
    // The old gateway writes once more under the old ring; the new one must see it.
    old.put_entry(&text, &Bytes::from_static(b"later"))
        .await
        .unwrap();
    assert_eq!(
        new.get_entry(&text).await.unwrap().unwrap(),
        "later",
        "of both the newest"
    );
    assert!(new.entries.delete(&entry(&text)).await.unwrap());
    assert_eq!(old.get_entry(&text).await.unwrap(), None, "deleted in both");
}

#[tokio::test(start_paused = true)]
async fn blobs_are_found_on_owners_of_the_previous_placement() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let gateway = rig.gateway();
    let bodies: Vec<Bytes> = (0..60).map(|seed| body(500, seed)).collect();
    for body in &bodies {
        gateway.put(body).await.unwrap();
    }
    rig.rings.send_replace(Arc::new(grown(&rig, "d")));
    super::harness::eventually(|| gateway.cluster.ring().epoch() == 2).await;
    for body in &bodies {
        assert_eq!(gateway.get(body).await.unwrap().as_ref(), Some(body));
    }
    let absent = body(500, 99);
    assert_eq!(gateway.get(&absent).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_with_an_old_ring_learns_the_new_one_from_a_refusal_and_places_anew() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let gateway = rig.gateway();
    let document = grown(&rig, "d");
    let json = Bytes::from(document.to_json().unwrap());
    for node in rig.nodes() {
        node.state.lock().ring = Some((2, json.clone()));
    }
    let bodies: Vec<Bytes> = (0..20).map(|seed| body(500, seed)).collect();
    for body in &bodies {
        gateway.put(body).await.unwrap();
    }
    assert_eq!(gateway.cluster.ring().epoch(), 2);
    rig.rings.send_replace(Arc::new(document));
    for body in &bodies {
        let key = blob_key(body);
        assert!(rig.places(&key).0.iter().all(|owner| owner.has(&key)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_told_at_its_end_that_the_ring_is_old_is_placed_anew() {
    // The second: only some nodes know of the newer ring.
    for knowing in [3, 1] {
        let rig = Rig::new(2, &["a", "b", "c"]);
        let gateway = rig.gateway();
        let document = grown(&rig, "d");
        let json = Bytes::from(document.to_json().unwrap());
        for node in rig.nodes().iter().take(knowing) {
            let state = &mut *node.state.lock();
            state.ring = Some((2, json.clone()));
            state.refuses_late = true;
        }
        // At the same time: one of them learns of the ring, and the others have to notice that it did.
        let texts: Vec<String> = (0..20).map(|seed| format!("late {seed}")).collect();
        let value = Bytes::from_static(b"value");
        let puts = texts.iter().map(|text| gateway.put_entry(text, &value));
        for put in futures_util::future::join_all(puts).await {
            put.unwrap();
        }
        assert_eq!(gateway.cluster.ring().epoch(), 2);
        rig.rings.send_replace(Arc::new(document));
        for text in &texts {
            let key = RecordKey::entry(&entry(text));
            let (owners, stand_ins) = rig.places(&key);
            let copies = owners.iter().chain(&stand_ins);
            assert!(copies.filter(|node| node.has(&key)).count() >= 2, "{text}");
            assert!(owners.iter().any(|owner| owner.has(&key)), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_judged_by_the_ring_at_its_end() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let gateway = rig.gateway();
    let document = grown(&rig, "d");
    for seed in 0..30 {
        let body = body(500, seed);
        let mut writer = {
            let options = CreateOptions::default();
            let (team, digest) = (super::harness::team(), super::harness::sha(&body));
            gateway.blobs.create(&team, &digest, options).await.unwrap()
        };
        writer.write(body.clone()).await.unwrap();
        if seed == 15 {
            gateway.cluster.set_ring(document.clone()).await;
            rig.rings.send_replace(Arc::new(document.clone()));
        }
        writer.commit().await.unwrap();
        let key = blob_key(&body);
        let (owners, stand_ins) = rig.places(&key);
        let copies = owners
            .iter()
            .chain(&stand_ins)
            .filter(|node| node.has(&key))
            .count();
        assert!(
            copies >= 2 && owners.iter().any(|owner| owner.has(&key)),
            "{seed}"
        );
        let is_complete = owners.iter().all(|owner| owner.has(&key));
        assert!(is_complete || rig.is_hinted_everywhere(&key), "{seed}");
    }
}
