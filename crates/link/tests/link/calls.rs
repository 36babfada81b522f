//! Each call arrives as it was made, and its answer as it was given.

use bytes::Bytes;
use zimcache_link::{Find, Listing, Manage, Peer as _, Presence, Pull, StatusQuestion};
use zimcache_store::{GcOptions, Pins, RecordHead, RecordKey, Touch, Version};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Namespace, Timestamp};

use crate::{
    fake::{Fake, blob, status},
    pair::Pair,
};

fn entry(text: &str) -> RecordKey {
    let namespace = Namespace::new("team/ios").unwrap();
    RecordKey::entry(&EntryKey::new(namespace, EntryKind::Nx, text).unwrap())
}

/// What the node was asked last.
fn last(pair: &Pair) -> String {
    pair.fake.asked.lock().last().unwrap().clone()
}

#[tokio::test]
async fn find_keeps_the_order_the_sizes_and_the_functions() {
    let pair = Pair::new(Fake::new()).await;
    let there = blob(b"there");
    let record = (
        RecordHead::default(),
        Bytes::from_static(b"there"),
        Pins::default(),
    );
    pair.fake.values.lock().insert(there.clone(), record);
    let other = RecordKey::blob(&there.namespace, &Digest::of(Function::Blake3, b"x"));
    let find = Find {
        epoch: 7,
        keys: vec![blob(b"a"), there, other, blob(b"b")],
        sizes: vec![Some(0), None, Some(5), Some(u64::MAX - 1)],
        touch: Touch::Lease,
    };
    let answer = pair.remote.find(find.clone()).await.unwrap();
    let (no, yes) = (Presence::Absent, Presence::Present);
    assert_eq!(answer, [no, yes, no, no]);
    assert_eq!(last(&pair), format!("{find:?}"));
    pair.stop().await;
}

#[tokio::test]
async fn pull_settle_delete_and_purge_say_what_they_were_told() {
    let pair = Pair::new(Fake::new()).await;
    let pins = Pins {
        dirty: true,
        hint: false,
    };
    let pull = Pull {
        epoch: 3,
        from: "https://10.0.0.1:1".into(),
        keys: vec![blob(b"1"), blob(b"2"), entry("3")],
        pins,
    };
    let held: Vec<bool> = pull.keys.iter().map(|key| key.id[0] % 2 == 0).collect();
    assert_eq!(pair.remote.pull(pull.clone()).await.unwrap(), held);
    assert_eq!(last(&pair), format!("{pull:?}"));

    let version = Version {
        clock: u64::MAX,
        writer: 1,
    };
    let records = vec![(entry("e"), version), (blob(b"b"), Version::default())];
    pair.remote.settle(records.clone(), pins).await.unwrap();
    assert_eq!(last(&pair), format!("{:?}", (records, pins)));

    assert!(!pair.remote.delete(4, blob(b"1")).await.unwrap());
    assert_eq!(last(&pair), format!("{:?}", (4, blob(b"1"))));
    let namespace = Namespace::new("a/b").unwrap();
    pair.remote.purge(5, namespace.clone()).await.unwrap();
    assert_eq!(last(&pair), format!("{:?}", (5, namespace)));
    pair.stop().await;
}

#[tokio::test]
async fn listings_go_there_and_come_back() {
    let pair = Pair::new(Fake::new()).await;
    let namespace = Namespace::default();
    for after in [None, Some("m".into())] {
        let listing = Listing::Entries {
            namespace: namespace.clone(),
            kind: EntryKind::Internal,
            prefix: "pre".into(),
            after,
            limit: 10,
        };
        let entries = pair.remote.list_entries(listing.clone()).await.unwrap();
        assert_eq!(
            (&*entries[0].text, entries[0].created),
            ("one", Timestamp(7))
        );
        assert_eq!(
            entries[0].version,
            Version {
                clock: 9,
                writer: 8
            }
        );
        assert_eq!(last(&pair), format!("{listing:?}"));
    }
    let hash = Digest::of(Function::Sha1, b"after").hash;
    for after in [None, Some(Digest::unsized_(hash))] {
        let listing = Listing::Blobs {
            namespace: namespace.clone(),
            after,
            limit: 11,
        };
        let blobs = pair.remote.list_blobs(listing.clone()).await.unwrap();
        assert_eq!(blobs[0].digest, Digest::of(Function::Blake3, b"listed"));
        assert_eq!(last(&pair), format!("{listing:?}"));
    }
    pair.stop().await;
}

#[tokio::test]
async fn a_status_comes_back_whole() {
    let pair = Pair::new(Fake::new()).await;
    for question in [
        StatusQuestion::default(),
        StatusQuestion {
            ring: Some(Bytes::from_static(b"{}")),
            for_member: Some(("node-2".into(), [9; 16])),
            with_figures: true,
        },
    ] {
        let answer = pair.remote.status(question.clone()).await.unwrap();
        assert_eq!(format!("{answer:?}"), format!("{:?}", status()));
        assert_eq!(last(&pair), format!("{question:?}"));
    }
    pair.stop().await;
}

#[tokio::test]
async fn the_keepers_work_arrives() {
    let pair = Pair::new(Fake::new()).await;
    let gc = GcOptions {
        target_bytes: Some(5),
        dry_run: true,
        ..GcOptions::default()
    };
    for work in [
        Manage::Gc(gc),
        Manage::Verify,
        Manage::Drain(true),
        Manage::Drain(false),
    ] {
        assert_eq!(pair.remote.manage(work.clone()).await.unwrap(), "{}");
        assert_eq!(last(&pair), format!("{work:?}"));
    }
    pair.stop().await;
}
