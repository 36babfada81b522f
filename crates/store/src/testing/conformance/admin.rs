//! Promises to the people who run a store: figures that add up, maintenance that loses nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use zimcache_types::{Clock as _, EntryKind, Namespace};

use super::{Stores, action, checks, key, pattern, room, sha};
use crate::{ByteRange, GcOptions, Usage, UsageKind};

checks!(
    figures_follow_what_is_stored,
    usage_tells_what_each_namespace_holds,
    blobs_are_listed_in_the_order_of_their_digests,
    collecting_without_a_target_loses_nothing,
    a_verification_of_a_good_store_finds_no_damage,
);

const SIZES: [usize; 4] = [10, 5000, 200_000, (2 << 20) + 3];

async fn fill(stores: &Stores) {
    let team = room("team");
    for size in SIZES {
        stores.add(&team, &pattern(70, size)).await;
        stores
            .set(&action(&format!("{size}")), &pattern(71, size))
            .await;
    }
}

async fn everything_is_there(stores: &Stores) {
    let team = room("team");
    for size in SIZES {
        let body = pattern(70, size);
        let found = stores
            .blob(&team, &sha(&body), ByteRange::Full)
            .await
            .unwrap();
        assert!(found == Some(body));
        let value = stores
            .value(&action(&format!("{size}")), ByteRange::Full)
            .await
            .unwrap();
        assert!(value == Some(pattern(71, size)));
    }
}

async fn figures_follow_what_is_stored(stores: &Stores) {
    let before = stores.admin.stats();
    assert_eq!((before.blobs, before.entries), (0, 0));
    fill(stores).await;
    let full = stores.admin.stats();
    assert_eq!((full.blobs, full.entries), (4, 4));
    let payload: usize = SIZES.iter().sum();
    assert!(full.raw_bytes >= 2 * payload as u64, "{full:?}");
    assert!(full.stored_bytes <= full.raw_bytes, "{full:?}");
    assert!(full.live_bytes >= full.stored_bytes, "{full:?}");
    assert!(full.capacity_bytes >= full.live_bytes, "{full:?}");
    assert_eq!(full.read_only, None);
    for size in SIZES {
        let digest = sha(&pattern(70, size));
        stores.blobs.delete(&room("team"), &digest).await.unwrap();
        stores
            .entries
            .delete(&action(&format!("{size}")))
            .await
            .unwrap();
    }
    let after = stores.admin.stats();
    assert_eq!((after.blobs, after.entries), (0, 0));
    assert!(after.live_bytes < payload as u64, "{after:?}");
}

async fn usage_tells_what_each_namespace_holds(stores: &Stores) {
    fill(stores).await;
    let (team, other) = (room("team"), room("other"));
    stores.add(&other, &pattern(72, 3000)).await;
    stores
        .set(&key(&other, EntryKind::Ccache, "c"), &pattern(73, 70_000))
        .await;
    stores.set(&action("10"), &pattern(74, 11)).await;
    let digest = sha(&pattern(70, SIZES[3]));
    assert!(stores.blobs.delete(&team, &digest).await.unwrap());
    let mut usage = stores.admin.usage().await.unwrap();
    usage.sort_by_key(|row| (row.namespace.clone(), row.kind));
    let row = |namespace: &Namespace, kind, count, bytes: usize| Usage {
        namespace: namespace.clone(),
        kind,
        count,
        bytes: bytes as u64,
    };
    let all: usize = SIZES.iter().sum();
    let actions = UsageKind::Entry(EntryKind::ActionResult);
    let expected = [
        row(&other, UsageKind::Blob, 1, 3000),
        row(&other, UsageKind::Entry(EntryKind::Ccache), 1, 70_000),
        row(&team, UsageKind::Blob, 3, all - SIZES[3]),
        row(&team, actions, 4, all + 1),
    ];
    assert_eq!(usage, expected);
    stores.entries.purge(&team).await.unwrap();
    let left = stores.admin.usage().await.unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|row| row.namespace == other), "{left:?}");
}

async fn blobs_are_listed_in_the_order_of_their_digests(stores: &Stores) {
    let team = room("team");
    let mut expected = Vec::new();
    for size in [3, 500, 5000, 150_000, (1 << 20) + 7] {
        expected.push((stores.add(&team, &pattern(75, size)).await, size as u64));
    }
    expected.sort_by_key(|(digest, _)| digest.hash);
    stores.add(&room("other"), &pattern(76, 100)).await;
    stores.set(&action("no-blob"), &pattern(77, 100)).await;
    let listed = stores.admin.list_blobs(&team, None, 100).await.unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|row| (row.digest, row.size_bytes))
        .collect();
    assert_eq!(names, expected);
    assert!(listed.iter().all(|row| row.created == stores.clock.now()));
    let after = expected[1].0;
    let page = stores.admin.list_blobs(&team, Some(&after), 2).await;
    let page: Vec<_> = page.unwrap().iter().map(|row| row.digest).collect();
    assert_eq!(page, [expected[2].0, expected[3].0]);
    let nowhere = stores.admin.list_blobs(&room("nowhere"), None, 9).await;
    assert_eq!(nowhere.unwrap(), []);
}

async fn collecting_without_a_target_loses_nothing(stores: &Stores) {
    fill(stores).await;
    let report = stores.admin.gc(GcOptions::default()).await.unwrap();
    assert_eq!(report.evicted_records, 0, "{report:?}");
    everything_is_there(stores).await;
}

async fn a_verification_of_a_good_store_finds_no_damage(stores: &Stores) {
    fill(stores).await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let on_progress = Box::new(move |progress: crate::Progress| {
        assert!(progress.done_bytes <= progress.total_bytes.max(progress.done_bytes));
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let report = stores.admin.verify(on_progress).await.unwrap();
    assert_eq!(
        (report.damaged, report.examples.len()),
        (0, 0),
        "{report:?}"
    );
    assert!(report.records >= 8, "{report:?}");
    assert!(
        report.bytes >= stores.admin.stats().stored_bytes,
        "{report:?}"
    );
    assert!(calls.load(Ordering::Relaxed) > 0, "progress is told");
    everything_is_there(stores).await;
}
