//! FindMissing, and the cluster for its keeper.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use zimcache_store::{GcOptions, Touch, UsageKind};
use zimcache_types::{Code, Digest, EntryKind, Function};

use super::{
    fake::Fault,
    harness::{Gateway, Rig, blob_key, body, eventually, sha, team},
};

const NODES: [&str; 3] = ["a", "b", "c"];

async fn missing(gateway: &Gateway, bodies: &[Bytes]) -> zimcache_store::Result<Vec<bool>> {
    let digests: Vec<Digest> = bodies.iter().map(|body| sha(body)).collect();
    gateway.blobs.missing(&team(), &digests, Touch::Lease).await
}

fn bodies(count: u64) -> Vec<Bytes> {
    (0..count).map(|seed| body(50, seed)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_there_takes_one_question_to_each_node_and_what_is_not_two() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let bodies = bodies(300);
    for body in &bodies[..200] {
        gateway.put(body).await.unwrap();
    }
    let finds = || {
        rig.nodes()
            .iter()
            .map(|node| node.finds.load(Ordering::Relaxed))
            .sum::<u64>()
    };
    assert_eq!(
        missing(&gateway, &bodies[..200]).await.unwrap(),
        [false; 200]
    );
    assert!(finds() <= 3, "{}", finds());
    let both = missing(&gateway, &bodies).await.unwrap();
    assert!(
        both[..200].iter().all(|missing| !missing) && both[200..].iter().all(|missing| *missing)
    );
    assert!(finds() <= 3 + 3 + 6, "{}", finds());
    assert_eq!(gateway.cluster.figures().unproven_misses, 0);
}

#[tokio::test(start_paused = true)]
async fn the_empty_blob_is_never_missing_and_a_wrong_size_always_is() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(50, 1));
    gateway.put(&body).await.unwrap();
    let digests = [
        Digest::of(Function::Sha256, b""),
        sha(&body),
        Digest::unsized_(sha(&body).hash),
        Digest::sized(sha(&body).hash, 51),
    ];
    let missing = gateway
        .blobs
        .missing(&team(), &digests, Touch::Use)
        .await
        .unwrap();
    assert_eq!(missing, [false, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn blobs_of_a_missing_owner_are_found_on_the_other_one_or_its_stand_in() {
    for fault in [Fault::Down, Fault::Hang] {
        let rig = Rig::new(2, &NODES);
        let gateway = rig.gateway();
        let bodies = bodies(60);
        rig.node("a").set(fault);
        for body in &bodies[..30] {
            gateway.put(body).await.unwrap();
        }
        rig.node("a").set(Fault::None);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        for body in &bodies[30..] {
            gateway.put(body).await.unwrap();
        }
        for down in NODES {
            rig.node(down).set(fault);
            assert_eq!(
                missing(&gateway, &bodies).await.unwrap(),
                [false; 60],
                "{down} {fault:?}"
            );
            rig.node(down).set(Fault::None);
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_without_any_owner_in_reach_is_an_error_and_not_missing() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway(), body(50, 2));
    let owners = rig.places(&blob_key(&body)).0;
    owners[0].set(Fault::Down);
    owners[1].lose_disk();
    let refusal = missing(&gateway, std::slice::from_ref(&body))
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    owners[0].set(Fault::None);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(missing(&gateway, &[body]).await.unwrap(), [true]);
}

#[tokio::test(start_paused = true)]
async fn either_owner_that_lacks_what_the_other_has_is_repaired() {
    for lacking in 0..2 {
        let rig = Rig::new(2, &NODES);
        let (gateway, body) = (rig.gateway(), body(50, 3));
        gateway.put(&body).await.unwrap();
        let key = blob_key(&body);
        let owner = rig.places(&key).0.remove(lacking);
        owner.state.lock().records.held.clear();
        let missing = missing(&gateway, std::slice::from_ref(&body)).await;
        assert_eq!(missing.unwrap(), [false]);
        eventually(|| owner.has(&key)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_slow_is_not_waited_for_when_the_other_one_has_it() {
    for slow in 0..2 {
        let rig = Rig::new(2, &NODES);
        let (gateway, body) = (rig.gateway(), body(50, 3));
        gateway.put(&body).await.unwrap();
        rig.places(&blob_key(&body)).0[slow].set(Fault::Hang);
        let asked = tokio::time::Instant::now();
        let missing = missing(&gateway, std::slice::from_ref(&body)).await;
        assert_eq!(missing.unwrap(), [false]);
        assert!(asked.elapsed() <= crate::Config::default().timing.hedge_find * 2);
    }
}

#[tokio::test(start_paused = true)]
async fn figures_usage_and_reports_are_sums_over_all_nodes() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    gateway.put(&body(300, 1)).await.unwrap();
    gateway.cluster.status(true).await;
    let admin = gateway.cluster.admin();
    assert_eq!((admin.stats().blobs, admin.stats().live_bytes), (2, 600));
    let usage = admin.usage().await.unwrap();
    let rows: Vec<_> = usage
        .iter()
        .map(|row| (row.kind, row.count, row.bytes))
        .collect();
    let entries = UsageKind::Entry(EntryKind::Nx);
    assert_eq!(rows, [(UsageKind::Blob, 6, 15), (entries, 3, 30)]);

    let options = GcOptions {
        target_bytes: Some(60),
        dry_run: true,
        ..GcOptions::default()
    };
    let report = admin.gc(options).await.unwrap();
    assert!(report.dry_run);
    assert_eq!(
        (
            report.before_bytes,
            report.after_bytes,
            report.evicted_records
        ),
        (300, 60, 9)
    );
    let done = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = Arc::clone(&done);
    let on_progress = Box::new(move |progress: zimcache_store::Progress| {
        seen.fetch_max(progress.done_bytes, Ordering::Relaxed);
    });
    let report = admin.verify(on_progress).await.unwrap();
    assert_eq!(
        (report.records, report.damaged, report.examples.len()),
        (6, 3, 3)
    );
    assert_eq!(done.load(Ordering::Relaxed), 30);
    rig.node("b").set(Fault::Down);
    assert_eq!(
        admin.gc(GcOptions::default()).await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test(start_paused = true)]
async fn blobs_are_listed_once_each_in_order_and_in_pages() {
    let rig = Rig::new(2, &NODES);
    let gateway = rig.gateway();
    let bodies = bodies(25);
    for body in &bodies {
        gateway.put(body).await.unwrap();
    }
    let admin = gateway.cluster.admin();
    let mut seen: Vec<Digest> = Vec::new();
    loop {
        let page = admin.list_blobs(&team(), seen.last(), 10).await.unwrap();
        seen.extend(page.iter().map(|row| row.digest));
        if page.len() < 10 {
            break;
        }
    }
    let mut expected: Vec<Digest> = bodies.iter().map(|body| sha(body)).collect();
    expected.sort_by(|a, b| a.hash.as_bytes().cmp(b.hash.as_bytes()));
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_purge_forgets_a_namespace_on_every_node_or_says_that_it_did_not() {
    let rig = Rig::new(2, &NODES);
    let (gateway, body) = (rig.gateway_with(1, crate::Config::default()), body(50, 4));
    gateway.put(&body).await.unwrap();
    gateway.get(&body).await.unwrap().unwrap();
    gateway.entries.purge(&team()).await.unwrap();
    assert_eq!(gateway.get(&body).await.unwrap(), None);
    rig.node("c").set(Fault::Down);
    let refusal = gateway.entries.purge(&team()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}
