//! Entries: the newest version wins, deletions are strong, of those who want absence one wins.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use zimcache_store::{Pins, Precondition, RecordHead, RecordKey, RecordOptions, Version};
use zimcache_types::{Code, EntryKind, ManualClock, Timestamp};

use super::{
    fake::Fault,
    harness::{NOW, Rig, blob_key, body, entry, plain, sha, team},
};

const NODES: [&str; 4] = ["a", "b", "c", "d"];
const ONE: Bytes = Bytes::from_static(b"one");
const TWO: Bytes = Bytes::from_static(b"two");

fn key(text: &str) -> RecordKey {
    RecordKey::entry(&entry(text))
}

#[tokio::test(start_paused = true)]
async fn the_newest_put_wins_whichever_gateway_made_it_and_whatever_its_clock_says() {
    let rig = Rig::new(2, &NODES);
    let behind = Arc::new(ManualClock::new(Timestamp(NOW.0 - 30_000)));
    let (right, wrong) = (rig.gateway(), rig.gateway_at(behind, 2, plain()));
    for size in [1000, 2_500_000] {
        let (one, two) = (body(size, 1), body(size, 2));
        right.put_entry("key", &one).await.unwrap();
        wrong.put_entry("key", &two).await.unwrap();
        assert!(right.get_entry("key").await.unwrap().unwrap() == two);
        right.put_entry("key", &one).await.unwrap();
        assert!(wrong.get_entry("key").await.unwrap().unwrap() == one);
    }
}

/// The stand-in kept its higher version and said that it holds the entry, which was taken for a copy of the lower one.
#[tokio::test(start_paused = true)]
async fn a_stand_in_that_holds_a_higher_version_is_no_copy_of_a_put_by_a_slow_clock() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let behind = Arc::new(ManualClock::new(Timestamp(NOW.0 - 30_000)));
    let (right, wrong) = (rig.gateway(), rig.gateway_at(behind, 2, plain()));
    let (owners, _) = rig.places(&key("key"));
    owners[0].set(Fault::Down);
    right.put_entry("key", &ONE).await.unwrap();
    owners[0].set(Fault::None);
    owners[1].set(Fault::FailsCommits);
    wrong.put_entry("key", &TWO).await.unwrap();
    owners[1].set(Fault::None);
    rig.deliver_hints();
    for owner in &owners {
        let state = owner.state.lock();
        assert_eq!(state.records.held[&key("key")].value, TWO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_from_the_far_future_stops_the_put_and_not_the_clock() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let head = RecordHead {
        text: "key".into(),
        version: Version {
            clock: (NOW.0 + 120_000) << 16,
            writer: 1,
        },
        ..RecordHead::default()
    };
    for owner in rig.places(&key("key")).0 {
        let options = RecordOptions::default();
        let mut state = owner.state.lock();
        state
            .records
            .put(&key("key"), head.clone(), ONE, &options, Pins::default())
            .unwrap();
    }
    assert_eq!(
        gateway.put_entry("key", &TWO).await.unwrap_err().code(),
        Code::Unavailable
    );
    gateway.put_entry("other", &TWO).await.unwrap();
    assert_eq!(
        gateway.get_entry("key").await.unwrap(),
        Some(ONE),
        "it can still be read"
    );
}

#[tokio::test(start_paused = true)]
async fn a_put_survives_any_fault_of_one_owner() {
    let faults = [
        Fault::Down,
        Fault::Hang,
        Fault::FailsCommits,
        Fault::LosesAcks,
        Fault::Full,
    ];
    for (fault, place) in faults
        .into_iter()
        .flat_map(|fault| [0, 1].map(|place| (fault, place)))
    {
        for size in [10, 2_500_000] {
            let rig = Rig::new(2, &NODES);
            let (gateway, value) = (rig.gateway(), body(size, 3));
            gateway.put_entry("key", &ONE).await.unwrap();
            let owners = rig.places(&key("key")).0;
            owners[place].set(fault);
            gateway.put_entry("key", &value).await.unwrap();
            assert!(
                rig.is_hinted_somewhere(&key("key")),
                "{fault:?} {place} {size}"
            );
            owners[place].set(Fault::None);
            rig.deliver_hints();
            let held = |owner: &Arc<super::fake::Fake>| {
                owner.state.lock().records.held[&key("key")].value.clone()
            };
            assert!(
                owners.iter().all(|owner| held(owner) == value),
                "{fault:?} {place} {size}"
            );
            assert!(!rig.is_hinted_somewhere(&key("key")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_on_every_owner_or_refused_and_never_undone_by_an_old_hint() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let (owners, stand_ins) = rig.places(&key("key"));
    owners[1].set(Fault::Down);
    gateway.put_entry("key", &ONE).await.unwrap();
    assert!(stand_ins.iter().any(|node| node.is_hinted(&key("key"))));
    let refusal = gateway.entries.delete(&entry("key")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);

    owners[1].set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(gateway.entries.delete(&entry("key")).await.unwrap());
    rig.deliver_hints();
    for owner in &owners {
        assert!(owner.state.lock().records.held[&key("key")].head.deleted);
    }
    assert_eq!(gateway.get_entry("key").await.unwrap(), None);
    assert!(!gateway.entries.delete(&entry("key")).await.unwrap());
    gateway.put_entry("key", &TWO).await.unwrap();
    assert_eq!(gateway.get_entry("key").await.unwrap(), Some(TWO));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_a_while_for_who_is_away() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    gateway.put_entry("key", &ONE).await.unwrap();
    let blob = body(50, 1);
    gateway.put(&blob).await.unwrap();
    let owner = rig.places(&key("key")).0.remove(1);
    owner.set(Fault::Down);
    let back = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        owner.set(Fault::None);
    };
    let (team, digest, entry) = (team(), sha(&blob), entry("key"));
    let (deleted, forgotten, ()) = tokio::join!(
        gateway.entries.delete(&entry),
        gateway.blobs.delete(&team, &digest),
        back
    );
    assert!(deleted.unwrap() && forgotten.unwrap());
    assert_eq!(gateway.get_entry("key").await.unwrap(), None);
    assert_eq!(rig.holders(&blob_key(&blob)).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn stand_ins_alone_do_not_bring_back_what_owners_may_know_to_be_deleted() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let (owners, _) = rig.places(&key("key"));
    owners[1].set(Fault::Down);
    gateway.put_entry("key", &ONE).await.unwrap();
    owners[1].set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.entries.delete(&entry("key")).await.unwrap();
    for owner in &owners {
        owner.set(Fault::Down);
    }
    let refusal = gateway.get_entry("key").await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}

/// Seed 113 of the simulation: its new disk had got back an old copy, and nothing newer yet.
#[tokio::test(start_paused = true)]
async fn an_owner_that_was_away_is_believed_only_while_the_other_one_is() {
    for stale in 0..2 {
        let rig = Rig::new(2, &NODES);
        let gateway = rig.gateway();
        gateway.put_entry("key", &ONE).await.unwrap();
        let (mut owners, _) = rig.places(&key("key"));
        let owner = owners.remove(stale);
        let old = owner.state.lock().records.held[&key("key")].clone();
        gateway.put_entry("key", &TWO).await.unwrap();
        owner.lose_disk();
        owner.state.lock().records.held.insert(key("key"), old);
        assert_eq!(gateway.get_entry("key").await.unwrap(), Some(TWO));
        gateway.entries.delete(&entry("key")).await.unwrap();
        let held = owner.state.lock().records.held[&key("key")].clone();
        assert!(held.head.deleted);
        owners[0].set(Fault::Down);
        assert_eq!(gateway.get_entry("key").await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_what_was_never_there_writes_nothing() {
    let rig = Rig::new(2, &NODES);
    assert!(!rig.gateway().entries.delete(&entry("key")).await.unwrap());
    assert!(rig.holders(&key("key")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_miss_needs_one_owner_and_is_counted_where_it_is_not_proven() {
    let rig = Rig::new(2, &["a", "b", "c"]);
    let gateway = rig.gateway();
    let (owners, stand_ins) = rig.places(&key("key"));
    assert_eq!(gateway.get_entry("key").await.unwrap(), None);
    assert_eq!(gateway.cluster.figures().unproven_misses, 0);
    owners[0].set(Fault::Down);
    stand_ins[0].set(Fault::Down);
    assert_eq!(gateway.get_entry("key").await.unwrap(), None);
    assert_eq!(gateway.cluster.figures().unproven_misses, 1);
    owners[1].set(Fault::Down);
    let refusal = gateway.get_entry("key").await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn of_eight_gateways_that_want_absence_one_wins_and_all_read_its_value() {
    for round in 0..10 {
        let rig = Rig::new(2, &NODES);
        let gateways: Vec<_> = (0..8).map(|seed| rig.gateway_with(seed, plain())).collect();
        let values: Vec<Bytes> = (0..8).map(|seed| body(100 + round, seed)).collect();
        let puts = gateways.iter().zip(&values);
        let puts =
            puts.map(|(gateway, value)| gateway.put_entry_if("key", value, Precondition::Absent));
        let outcomes = futures_util::future::join_all(puts).await;
        let won: Vec<usize> = (0..8).filter(|at| outcomes[*at].is_ok()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        assert!(lost.into_iter().all(|error| error.code() == Code::Conflict));
        for gateway in &gateways {
            let got = gateway.get_entry("key").await.unwrap();
            assert_eq!(got.as_ref(), Some(&values[won[0]]));
        }
        assert_eq!(rig.holders(&key("key")).len(), 2);
        assert!(!rig.is_hinted_somewhere(&key("key")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_that_wants_absence_needs_the_owner_that_decides_and_spreads_from_it() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let owners = rig.places(&key("key")).0;
    owners[0].set(Fault::Down);
    let refusal = gateway
        .put_entry_if("key", &ONE, Precondition::Absent)
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    assert!(rig.holders(&key("key")).is_empty());
    owners[0].set(Fault::None);
    owners[1].set(Fault::Down);
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway
        .put_entry_if("key", &body(2_000_000, 4), Precondition::Absent)
        .await
        .unwrap();
    assert_eq!(rig.holders(&key("key")).len(), 2);
    assert!(rig.is_hinted_everywhere(&key("key")));
}

#[tokio::test(start_paused = true)]
async fn the_same_key_can_be_put_in_absence_again_after_its_deletion() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    gateway
        .put_entry_if("key", &ONE, Precondition::Absent)
        .await
        .unwrap();
    gateway.entries.delete(&entry("key")).await.unwrap();
    gateway
        .put_entry_if("key", &TWO, Precondition::Absent)
        .await
        .unwrap();
    assert_eq!(gateway.get_entry("key").await.unwrap(), Some(TWO));
}

#[tokio::test(start_paused = true)]
async fn listings_have_the_newest_of_each_key_and_nothing_deleted_in_pages() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    for number in 0..30 {
        gateway
            .put_entry(&format!("key-{number:02}"), &ONE)
            .await
            .unwrap();
    }
    // One stand-in keeps an old hint for a key that is deleted everywhere else.
    let (owners, _) = rig.places(&key("key-07"));
    owners[1].set(Fault::Down);
    gateway.put_entry("key-07", &TWO).await.unwrap();
    owners[1].set(Fault::None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.entries.delete(&entry("key-07")).await.unwrap();
    let mut after: Option<String> = None;
    let mut seen = Vec::new();
    loop {
        let page = gateway
            .entries
            .list(&team(), EntryKind::Nx, "key-", after.as_deref(), 8)
            .await;
        let page = page.unwrap();
        seen.extend(page.iter().map(|row| row.text.to_string()));
        if page.len() < 8 {
            break;
        }
        after = page.last().map(|row| row.text.to_string());
    }
    let expected = (0..30)
        .filter(|number| *number != 7)
        .map(|number| format!("key-{number:02}"));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    rig.node("a").set(Fault::Down);
    let rest = gateway
        .entries
        .list(&team(), EntryKind::Nx, "", None, 100)
        .await
        .unwrap();
    assert_eq!(rest.len(), 29, "one node may be missing");
    rig.node("b").set(Fault::Down);
    let refusal = gateway
        .entries
        .list(&team(), EntryKind::Nx, "", None, 100)
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}
