//! Row 10: many threads put, get, delete, evict, collect and verify at once; every byte read is right, and nothing
//! hangs. Entries are written by one task each, so what a task wrote last is what it must read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use zimcache_node::testing::SimRng;
use zimcache_store::{
    ByteRange, CreateOptions, EntryMeta, Error, GcOptions, Precondition, Touch,
    testing::conformance::{Stores, pattern},
};
use zimcache_types::{Code, Digest, EntryKey, EntryKind, Function};

use crate::{
    harness::{Rig, stores},
    ops::team,
    volume::scaled,
};

const TASKS: u64 = 12;

struct Shared {
    stores: Stores,
    blobs: Vec<(Digest, Bytes)>,
    until: Instant,
    calls: AtomicU64,
    hits: AtomicU64,
}

fn blobs() -> Vec<(Digest, Bytes)> {
    let sizes = [
        10, 200, 3000, 5000, 40_000, 66_000, 130_000, 300_000, 1_500_000,
    ];
    let body = |number: usize| pattern(number as u64, sizes[number % sizes.len()] + number);
    (0..300)
        .map(body)
        .map(|body| (Digest::of(Function::Sha256, &body), body))
        .collect()
}

/// One task: random calls on shared blobs and on entries of its own.
async fn task(shared: Arc<Shared>, number: u64) {
    let mut rng = SimRng::new(number);
    let mut newest: Vec<Option<Bytes>> = vec![None; 8];
    while Instant::now() < shared.until {
        shared.calls.fetch_add(1, Relaxed);
        let (digest, body) = rng.pick(&shared.blobs).clone();
        match rng.below(20) {
            0..5 => put(&shared, &digest, &body).await,
            5..11 => get(&shared, &digest, &body, &mut rng).await,
            11 => drop(shared.stores.blobs.delete(team(), &digest).await.unwrap()),
            12 => {
                let digests: Vec<Digest> = shared.blobs.iter().map(|(digest, _)| *digest).collect();
                let touch = *rng.pick(&[Touch::Use, Touch::Lease]);
                shared
                    .stores
                    .blobs
                    .missing(team(), &digests, touch)
                    .await
                    .unwrap();
            }
            13 if rng.permille(30) => shared
                .stores
                .admin
                .gc(GcOptions::default())
                .await
                .map(drop)
                .unwrap(),
            14 if rng.permille(30) => {
                let report = shared.stores.admin.verify(Box::new(|_| {})).await.unwrap();
                assert_eq!(report.damaged, 0, "{report:?}");
            }
            _ => entry(&shared, number, &mut newest, &mut rng).await,
        }
    }
}

async fn put(shared: &Shared, digest: &Digest, body: &Bytes) {
    let options = CreateOptions::default();
    match shared
        .stores
        .put_blob(team(), digest, body, 100_000, options)
        .await
    {
        Ok(size) => assert_eq!(size, body.len() as u64),
        // Evicted between the look for it and the commit: the client sends it again.
        Err(Error::Retry(_)) => {}
        Err(error) => assert_eq!(error.code(), Code::OutOfSpace, "{error:?}"),
    }
}

async fn get(shared: &Shared, digest: &Digest, body: &Bytes, rng: &mut SimRng) {
    let first = rng.below(body.len() as u64);
    let range = ByteRange::From { first, last: None };
    match shared.stores.blob(team(), digest, range).await {
        Ok(Some(bytes)) => {
            assert!(bytes == body.slice(first as usize..), "WRONG BYTES");
            shared.hits.fetch_add(1, Relaxed);
        }
        Ok(None) => {}
        // A value deleted or evicted in the middle of being read is read to its end.
        Err(error) => panic!("{error:?}"),
    }
}

async fn entry(shared: &Shared, task: u64, newest: &mut [Option<Bytes>], rng: &mut SimRng) {
    let number = rng.index(newest.len());
    let key = EntryKey::new(
        team().clone(),
        EntryKind::Ccache,
        format!("task-{task}/{number}"),
    )
    .unwrap();
    if rng.permille(300) {
        let body = pattern(rng.next_u64(), *rng.pick(&[0, 5, 500, 70_000, 200_000]));
        let (meta, rule) = (EntryMeta::default(), Precondition::None);
        let put = shared
            .stores
            .put_entry(&key, &body, 50_000, meta, rule, None)
            .await;
        if put.is_ok() {
            newest[number] = Some(body);
        }
    } else if rng.permille(100) {
        shared.stores.entries.delete(&key).await.unwrap();
        newest[number] = None;
    } else {
        let found = shared.stores.value(&key, ByteRange::Full).await.unwrap();
        let fine = found.is_none() || found == newest[number];
        assert!(fine, "an entry is not what its only writer wrote last");
        shared.hits.fetch_add(1, Relaxed);
    }
}

#[test]
fn many_tasks_at_once_read_only_what_was_written() {
    let rig = Rig::fresh(1);
    let seconds = scaled(10);
    let shared = Arc::new(Shared {
        stores: stores(rig.node(), &rig.clock),
        blobs: blobs(),
        until: Instant::now() + Duration::from_secs(seconds),
        calls: AtomicU64::new(0),
        hits: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let everybody = futures_util::future::join_all((0..TASKS).map(|number| {
        let work = task(Arc::clone(&shared), number);
        runtime.handle().spawn(work)
    }));
    let ended = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(seconds + 60), everybody).await
    });
    for outcome in ended.expect("nobody hangs") {
        outcome.unwrap();
    }
    let stats = rig.stats();
    println!(
        "row 10: {} calls, {} hits, {} evicted records, {seconds} s",
        shared.calls.load(Relaxed),
        shared.hits.load(Relaxed),
        stats.evicted_records
    );
    assert_eq!(stats.corrupt_records, 0, "{stats:?}");
    assert!(stats.evicted_records > 0, "the store was full: {stats:?}");
}
