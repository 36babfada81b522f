//! Blobs survive any single fault during their write, on two nodes, with hints exactly where an owner was missed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use zimcache_store::CreateOptions;
use zimcache_types::Code;

use super::{
    fake::Fault,
    harness::{Gateway, Rig, blob_key, body, names, sha, team},
};

const NODES: [&str; 4] = ["a", "b", "c", "d"];

const FAULTS: [Fault; 10] = [
    Fault::Down,
    Fault::Hang,
    Fault::Slow(Duration::from_secs(20)),
    Fault::SlowDisk(Duration::from_secs(20)),
    Fault::BreaksAfter(0),
    Fault::BreaksAfter(100_000),
    Fault::StopsAfter(100_000),
    Fault::FailsCommits,
    Fault::LosesAcks,
    Fault::Full,
];

/// What fits into what is kept for another try, and what does not.
const SIZES: [usize; 3] = [1000, 300_000, 3_000_000];

#[tokio::test(start_paused = true)]
async fn without_faults_a_blob_is_on_its_owners_and_nowhere_else_without_hints() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    for size in SIZES {
        let body = body(size, 1);
        gateway.put(&body).await.unwrap();
        let key = blob_key(&body);
        let mut owners: Vec<_> = rig
            .places(&key)
            .0
            .iter()
            .map(|node| node.id.clone())
            .collect();
        owners.sort();
        assert_eq!(rig.holders(&key), owners);
        assert!(!rig.is_hinted_somewhere(&key));
    }
}

/// Puts a blob while the owner at a place has a fault; what must be so afterwards.
async fn survives(fault: Fault, place: usize, size: usize) {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let body = body(size, 2);
    let key = blob_key(&body);
    let owners = rig.places(&key).0;
    owners[place].set(fault);
    let context = format!(
        "{fault:?} at {place} with {size} bytes: {:?}",
        names(&owners)
    );
    gateway.put(&body).await.expect(&context);

    let healthy: Vec<_> = rig
        .nodes()
        .into_iter()
        .filter(|node| node.fault() == Fault::None)
        .collect();
    let copies: Vec<_> = healthy.iter().filter(|node| node.has(&key)).collect();
    let is_missed =
        size >= 100_000 || !matches!(fault, Fault::BreaksAfter(1..) | Fault::StopsAfter(_));
    assert!(
        owners[1 - place].has(&key),
        "a true owner has it: {context}"
    );
    assert_eq!(copies.len(), if is_missed { 2 } else { 1 }, "{context}");
    assert_eq!(
        copies.iter().all(|node| node.is_hinted(&key)),
        is_missed,
        "{context}"
    );

    owners[place].set(Fault::None);
    rig.deliver_hints();
    assert!(owners.iter().all(|owner| owner.has(&key)), "{context}");
    assert!(!rig.is_hinted_somewhere(&key), "{context}");
    assert_eq!(gateway.get(&body).await.unwrap().unwrap(), body);
}

#[tokio::test(start_paused = true)]
async fn a_write_survives_any_fault_of_one_owner_on_two_nodes() {
    for fault in FAULTS {
        for place in [0, 1] {
            for size in SIZES {
                survives(fault, place, size).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_is_known_to_be_needed_is_durable_together_with_the_copy() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 13));
    let key = blob_key(&body);
    rig.places(&key).0[0].set(Fault::Down);
    gateway.put(&body).await.unwrap();
    assert!(rig.is_hinted_everywhere(&key));
    let pulls = rig
        .nodes()
        .into_iter()
        .map(|node| node.pulls.load(Ordering::Relaxed));
    assert_eq!(pulls.sum::<u64>(), 0, "nothing was added afterwards");
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_a_stand_in_changes_nothing_while_the_owners_work() {
    for fault in FAULTS {
        let rig = Rig::new(2, &NODES);
        let body = body(1000, 3);
        let key = blob_key(&body);
        rig.places(&key).1.iter().for_each(|node| node.set(fault));
        rig.gateway().put(&body).await.unwrap();
        assert_eq!(rig.holders(&key).len(), 2);
        assert!(!rig.is_hinted_somewhere(&key));
    }
}

async fn refusal(gateway: &Gateway, body: &bytes::Bytes) -> Code {
    gateway.put(body).await.unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_on_one_node_alone() {
    for (fault, size) in FAULTS
        .into_iter()
        .flat_map(|fault| SIZES.map(|size| (fault, size)))
    {
        let rig = Rig::new(2, &["a", "b", "c"]);
        let body = body(size, 4);
        let key = blob_key(&body);
        let (owners, stand_ins) = rig.places(&key);
        owners[0].set(Fault::Down);
        stand_ins[0].set(fault);
        if let Err(refusal) = rig.gateway().put(&body).await {
            assert_eq!(refusal.code(), Code::Unavailable, "{fault:?} {size}");
            continue;
        }
        // Its bodies or its acknowledgements are lost, but what it is told to fetch arrives.
        let is_dead = matches!(
            fault,
            Fault::Down | Fault::Hang | Fault::Slow(_) | Fault::SlowDisk(_) | Fault::Full
        );
        assert!(!is_dead, "{fault:?} {size}");
        assert_eq!(rig.holders(&key).len(), 2, "{fault:?} {size}");
        assert!(rig.is_hinted_everywhere(&key), "{fault:?} {size}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_on_stand_ins_alone() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 5));
    let owners = rig.places(&blob_key(&body)).0;
    for owner in &owners {
        owner.set(Fault::Down);
    }
    assert_eq!(refusal(&gateway, &body).await, Code::Unavailable);
    owners[1].set(Fault::None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    gateway.put(&body).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_cluster_says_that_it_is_full() {
    let rig = Rig::new(2, &NODES);
    rig.nodes().iter().for_each(|node| node.set(Fault::Full));
    assert_eq!(
        refusal(&rig.gateway(), &body(1000, 6)).await,
        Code::OutOfSpace
    );
}

#[tokio::test(start_paused = true)]
async fn with_one_copy_wanted_its_owner_is_enough_and_nobody_else_is() {
    let rig = Rig::new(1, &["a", "b", "c"]);
    let (gateway, body) = (rig.gateway(), body(1000, 7));
    gateway.put(&body).await.unwrap();
    assert!(!rig.is_hinted_somewhere(&blob_key(&body)));
    let other = super::harness::body(1000, 8);
    rig.places(&blob_key(&other)).0[0].set(Fault::Down);
    assert_eq!(refusal(&gateway, &other).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_upload_goes_on_from_the_least_that_all_owners_hold() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1_000_000, 9));
    let key = blob_key(&body);
    let owners = rig.places(&key).0;
    let resume = || CreateOptions {
        resume_as: Some("upload".into()),
        ..CreateOptions::default()
    };
    for (owner, bytes) in owners.iter().zip([300_000, 200_000]) {
        let partial = (key.clone(), "upload".into());
        owner
            .state
            .lock()
            .records
            .partial
            .insert(partial, body[..bytes].to_vec());
    }
    let writer = gateway
        .blobs
        .create(&team(), &sha(&body), resume())
        .await
        .unwrap();
    assert_eq!(writer.offset(), 200_000);
    drop(writer);
    gateway.put_in(&body, 70_001, resume()).await.unwrap();
    assert!(owners.iter().all(|owner| owner.has(&key)));
    assert_eq!(gateway.get(&body).await.unwrap().unwrap(), body);
}

#[tokio::test(start_paused = true)]
async fn an_upload_taken_up_again_while_an_owner_is_down_is_pulled_by_a_stand_in() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1_000_000, 10));
    let key = blob_key(&body);
    let owners = rig.places(&key).0;
    let partial = (key.clone(), "upload".into());
    owners[0]
        .state
        .lock()
        .records
        .partial
        .insert(partial, body[..400_000].to_vec());
    owners[1].set(Fault::Down);
    let resume = CreateOptions {
        resume_as: Some("upload".into()),
        ..CreateOptions::default()
    };
    gateway.put_in(&body, 70_001, resume).await.unwrap();
    assert_eq!(rig.holders(&key).len(), 2);
    assert!(rig.is_hinted_everywhere(&key));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_body_is_refused_and_leaves_nothing() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let (right, wrong) = (body(1000, 11), body(1000, 12));
    let options = CreateOptions::default();
    let mut writer = gateway
        .blobs
        .create(&team(), &sha(&right), options)
        .await
        .unwrap();
    writer.write(wrong).await.unwrap();
    let refusal = writer.commit().await.unwrap_err();
    assert!(
        matches!(refusal, zimcache_store::Error::DigestMismatch { .. }),
        "{refusal}"
    );
    assert!(rig.holders(&blob_key(&right)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_and_a_purge_under_an_old_ring_reach_the_members_that_are_new() {
    for purges in [false, true] {
        let rig = Rig::new(2, &NODES);
        let (gateway, body) = (rig.gateway(), body(1000, 13));
        gateway.put(&body).await.unwrap();
        let new = super::fake::Fake::new("new", &rig.net);
        let before = rig.rings.borrow().clone();
        let members = super::harness::members(&["new"]);
        let join = zimcache_ring::Change::Join { members };
        let document = zimcache_ring::next(&before, &join).unwrap();
        // It was handed over already; of the others one knows of the newer ring.
        let key = blob_key(&body);
        let holder = rig.places(&key).0[0].state.lock().records.held[&key].clone();
        new.state.lock().records.held.insert(key.clone(), holder);
        let json = bytes::Bytes::from(document.to_json().unwrap());
        rig.node("d").state.lock().ring = Some((document.epoch(), json));
        if purges {
            gateway.entries.purge(&team()).await.unwrap();
        } else {
            gateway.blobs.delete(&team(), &sha(&body)).await.unwrap();
        }
        assert!(rig.holders(&key).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_while_the_ring_changes_reaches_who_is_new_and_tells_what_was_there() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(1000, 14));
    gateway.put(&body).await.unwrap();
    let key = blob_key(&body);
    let owners = rig.places(&key).0;
    let new = super::fake::Fake::new("new", &rig.net);
    let held = owners[0].state.lock().records.held[&key].clone();
    new.state.lock().records.held.insert(key.clone(), held);
    let before = rig.rings.borrow().clone();
    let members = super::harness::members(&["new"]);
    let join = zimcache_ring::Change::Join { members };
    let document = zimcache_ring::next(&before, &join).unwrap();
    // Somebody else takes so long that the ring changes before all have answered.
    let is_owner = |node: &Arc<super::fake::Fake>| owners.iter().any(|owner| owner.id == node.id);
    let mut others = rig.nodes().into_iter();
    let other = others.find(|node| !is_owner(node) && *node.id != *"new");
    other.unwrap().set(Fault::Slow(Duration::from_millis(40)));
    let change = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        rig.rings.send_replace(Arc::new(document));
    };
    let (namespace, digest) = (team(), sha(&body));
    let deletion = gateway.blobs.delete(&namespace, &digest);
    let (deleted, ()) = tokio::join!(deletion, change);
    assert!(deleted.unwrap(), "it was there");
    assert!(rig.holders(&key).is_empty());
}
