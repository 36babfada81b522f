//! Promises about age: what is past its time is a miss at once, what is not stays, and collections take what they say.

use std::{collections::BTreeMap, time::Duration};

use zimcache_types::{Digest, EntryKind, Namespace};

use super::{Stores, action, checks, key, pattern, room, sha};
use crate::{ByteRange, EntryMeta, GcOptions, GcReport, Precondition, Retention, Touch};

checks!(
    without_retention_nothing_expires,
    what_is_past_its_time_is_a_miss_at_once,
    namespaces_have_times_of_their_own,
    a_put_again_counts_anew,
    an_expired_entry_makes_way_for_a_put_that_needs_absence,
    a_leased_blob_is_served_although_its_time_is_over,
    collecting_by_age_takes_the_old_and_leaves_the_new,
    collecting_in_a_namespace_leaves_the_others,
    a_dry_run_says_what_would_go_and_changes_nothing,
);

const HOUR: Duration = Duration::from_hours(1);
const SIZES: [usize; 4] = [10, 5000, 200_000, (2 << 20) + 3];

fn retention(ttl: Duration) -> Retention {
    Retention {
        default_ttl: Some(ttl),
        ..Retention::default()
    }
}

async fn fill(stores: &Stores, team: &Namespace, seed: u64) -> Vec<Digest> {
    let mut digests = Vec::new();
    for size in SIZES {
        digests.push(stores.add(team, &pattern(seed, size)).await);
        let name = key(team, EntryKind::Ccache, &format!("{seed}-{size}"));
        stores.set(&name, &pattern(seed + 1, size)).await;
    }
    digests
}

/// How many of the blobs and entries that [`fill`] made are there; look-ups, listings and ranges agree.
async fn held(stores: &Stores, team: &Namespace, seed: u64) -> (usize, usize) {
    let (mut blobs, mut entries) = (0, 0);
    for size in SIZES {
        let body = pattern(seed, size);
        if stores.has(team, &sha(&body)).await {
            let found = stores.blob(team, &sha(&body), ByteRange::Full).await;
            assert!(found.unwrap() == Some(body));
            blobs += 1;
        }
        let name = key(team, EntryKind::Ccache, &format!("{seed}-{size}"));
        let found = stores.value(&name, ByteRange::Full).await.unwrap();
        if let Some(found) = found {
            assert!(found == pattern(seed + 1, size));
            entries += 1;
        }
    }
    let listed = stores
        .entries
        .list(team, EntryKind::Ccache, &format!("{seed}-"), None, 100)
        .await;
    assert_eq!(
        listed.unwrap().len(),
        entries,
        "a listing has what is served"
    );
    (blobs, entries)
}

async fn without_retention_nothing_expires(stores: &Stores) {
    let team = room("team");
    fill(stores, &team, 1).await;
    stores.clock.advance(1000 * HOUR);
    assert_eq!(held(stores, &team, 1).await, (4, 4));
}

async fn what_is_past_its_time_is_a_miss_at_once(stores: &Stores) {
    let team = room("team");
    fill(stores, &team, 1).await;
    stores.admin.set_retention(retention(10 * HOUR));
    stores
        .clock
        .advance(9 * HOUR + Duration::from_millis(3_599_999));
    fill(stores, &team, 11).await;
    assert_eq!(held(stores, &team, 1).await, (4, 4));
    stores.clock.advance(Duration::from_millis(1));
    assert_eq!(held(stores, &team, 1).await, (0, 0));
    assert_eq!(held(stores, &team, 11).await, (4, 4));
    let body = pattern(1, SIZES[1]);
    assert!(!stores.blobs.delete(&team, &sha(&body)).await.unwrap());
    let name = key(&team, EntryKind::Ccache, "1-10");
    assert!(!stores.entries.delete(&name).await.unwrap());
    fill(stores, &team, 1).await;
    assert_eq!(
        held(stores, &team, 1).await,
        (4, 4),
        "put again, it is there"
    );
}

async fn namespaces_have_times_of_their_own(stores: &Stores) {
    let (short, long, plain) = (room("short"), room("long"), room("plain"));
    for team in [&short, &long, &plain] {
        fill(stores, team, 1).await;
    }
    let mut rules = retention(10 * HOUR);
    rules.namespaces = BTreeMap::from([
        (short.clone(), Some(HOUR)),
        (long.clone(), None),
        (room("later"), Some(HOUR)),
    ]);
    stores.admin.set_retention(rules);
    fill(stores, &room("later"), 1).await;
    stores.clock.advance(2 * HOUR);
    assert_eq!(held(stores, &short, 1).await, (0, 0));
    assert_eq!(held(stores, &room("later"), 1).await, (0, 0));
    assert_eq!(held(stores, &plain, 1).await, (4, 4));
    stores.clock.advance(10 * HOUR);
    assert_eq!(held(stores, &plain, 1).await, (0, 0));
    assert_eq!(held(stores, &long, 1).await, (4, 4));
}

async fn a_put_again_counts_anew(stores: &Stores) {
    let team = room("team");
    stores.admin.set_retention(retention(10 * HOUR));
    fill(stores, &team, 1).await;
    stores.clock.advance(9 * HOUR);
    fill(stores, &team, 1).await;
    stores.clock.advance(9 * HOUR);
    assert_eq!(held(stores, &team, 1).await, (4, 4));
    stores.clock.advance(HOUR);
    assert_eq!(held(stores, &team, 1).await, (0, 0));
}

async fn an_expired_entry_makes_way_for_a_put_that_needs_absence(stores: &Stores) {
    stores.admin.set_retention(retention(HOUR));
    let name = action("once");
    let put = async |seed| {
        let body = pattern(seed, 100);
        let meta = EntryMeta::default();
        stores
            .put_entry(&name, &body, 100, meta, Precondition::Absent, None)
            .await
    };
    put(1).await.unwrap();
    assert!(put(2).await.is_err());
    stores.clock.advance(HOUR);
    put(3).await.unwrap();
    let found = stores.value(&name, ByteRange::Full).await.unwrap();
    assert_eq!(found, Some(pattern(3, 100)));
}

async fn a_leased_blob_is_served_although_its_time_is_over(stores: &Stores) {
    let team = room("team");
    stores.admin.set_retention(retention(HOUR));
    let digests = fill(stores, &team, 1).await;
    let leased = stores.blobs.missing(&team, &digests, Touch::Lease).await;
    assert_eq!(leased.unwrap(), [false; 4]);
    stores.clock.advance(3 * HOUR);
    for digest in &digests {
        let found = stores.blob(&team, digest, ByteRange::Full).await.unwrap();
        assert!(found.is_some(), "present was a promise for four hours");
    }
    let missing = stores.blobs.missing(&team, &digests, Touch::No).await;
    assert_eq!(missing.unwrap(), [false; 4]);
    stores.clock.advance(12 * HOUR);
    let missing = stores.blobs.missing(&team, &digests, Touch::Lease).await;
    assert_eq!(missing.unwrap(), [true; 4], "a lease ends");
    let found = stores.blob(&team, &digests[1], ByteRange::Full).await;
    assert_eq!(found.unwrap(), None);
}

fn older_than(age: Duration) -> GcOptions {
    GcOptions {
        older_than: Some(age),
        ..GcOptions::default()
    }
}

async fn collecting_by_age_takes_the_old_and_leaves_the_new(stores: &Stores) {
    let team = room("team");
    fill(stores, &team, 1).await;
    stores.clock.advance(2 * HOUR);
    fill(stores, &team, 11).await;
    let report = stores.admin.gc(older_than(HOUR)).await.unwrap();
    assert!(report.expired_records >= 8, "{report:?}");
    assert_eq!(report.evicted_records, 0, "{report:?}");
    assert!(report.after_bytes < report.before_bytes, "{report:?}");
    assert_eq!(held(stores, &team, 1).await, (0, 0));
    assert_eq!(held(stores, &team, 11).await, (4, 4));
}

async fn collecting_in_a_namespace_leaves_the_others(stores: &Stores) {
    let (team, other) = (room("team"), room("other"));
    fill(stores, &team, 1).await;
    fill(stores, &other, 1).await;
    stores.clock.advance(2 * HOUR);
    let by_age = GcOptions {
        namespace: Some(other.clone()),
        ..older_than(HOUR)
    };
    stores.admin.gc(by_age).await.unwrap();
    assert_eq!(held(stores, &other, 1).await, (0, 0));
    assert_eq!(held(stores, &team, 1).await, (4, 4));
    fill(stores, &other, 1).await;
    let to_nothing = GcOptions {
        namespace: Some(team.clone()),
        target_bytes: Some(0),
        ..GcOptions::default()
    };
    let report = stores.admin.gc(to_nothing).await.unwrap();
    assert!(report.evicted_records >= 8, "{report:?}");
    assert_eq!(held(stores, &team, 1).await, (0, 0));
    assert_eq!(held(stores, &other, 1).await, (4, 4));
    let unknown = GcOptions {
        namespace: Some(room("unknown")),
        target_bytes: Some(0),
        ..older_than(Duration::ZERO)
    };
    let report = stores.admin.gc(unknown).await.unwrap();
    assert_eq!((report.evicted_records, report.expired_records), (0, 0));
    assert_eq!(held(stores, &other, 1).await, (4, 4));
}

async fn a_dry_run_says_what_would_go_and_changes_nothing(stores: &Stores) {
    let team = room("team");
    fill(stores, &team, 1).await;
    stores.clock.advance(2 * HOUR);
    let live = stores.admin.stats().live_bytes;
    for options in [
        older_than(HOUR),
        GcOptions {
            target_bytes: Some(live / 2),
            ..GcOptions::default()
        },
    ] {
        let dry = GcOptions {
            dry_run: true,
            ..options
        };
        let report: GcReport = stores.admin.gc(dry).await.unwrap();
        assert!(report.dry_run);
        let records = report.expired_records + report.evicted_records;
        assert!(records > 0, "{report:?}");
        assert!(report.after_bytes <= live / 2, "{report:?}");
        assert_eq!(stores.admin.stats().live_bytes, live);
    }
    assert_eq!(held(stores, &team, 1).await, (4, 4));
}
