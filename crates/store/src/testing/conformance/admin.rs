//! Promises to the people who run a store: figures that add up, maintenance that loses nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Stores, action, checks, pattern, room, sha};
use crate::{ByteRange, GcOptions};

checks!(
    figures_follow_what_is_stored,
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
    assert!(full.live_bytes >= 2 * payload as u64, "{full:?}");
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
        report.bytes >= 2 * SIZES.iter().sum::<usize>() as u64,
        "{report:?}"
    );
    assert!(calls.load(Ordering::Relaxed) > 0, "progress is told");
    everything_is_there(stores).await;
}
