//! Electors on a real Lease: one leads, and another only when that one is gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::{sync::oneshot, time::Instant};
use zimcache_operator::{
    leader::{Elector, Ended, Settings},
    server::Health,
};
use zimcache_telemetry::task;
use zimcache_types::SystemClock;

use crate::server::{ApiServer, eventually};

/// Short, so that a test need not wait long; in proportion as they are.
fn elector(server: &ApiServer, namespace: &str, me: &str) -> Elector {
    let settings = Settings {
        duration: Duration::from_secs(6),
        renew_deadline: Duration::from_secs(4),
        retry: Duration::from_millis(300),
        ..Settings::new(namespace, "operator", me)
    };
    Elector::new(
        server.client(),
        settings,
        Arc::new(SystemClock),
        Health::default(),
    )
}

async fn holder(leases: &Api<Lease>) -> String {
    let spec = leases.get("operator").await.unwrap().spec.unwrap();
    spec.holder_identity.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_start_at_once_one_leads_and_a_dead_one_is_followed_after_its_time() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("leases").await;
    let leases: Api<Lease> = Api::namespaced(server.client(), &namespace);
    let leaders = Arc::new(AtomicUsize::new(0));
    let mut candidates = Vec::new();
    for number in 0..5 {
        let mut elector = elector(&server, &namespace, &format!("operator-{number}"));
        let leaders = Arc::clone(&leaders);
        candidates.push(task::spawn("candidate", async move {
            elector.acquire().await;
            leaders.fetch_add(1, Ordering::SeqCst);
            // Leads without renewing, as one that was killed.
            std::future::pending::<()>().await;
        }));
    }
    eventually("a leader", Duration::from_mins(1), || async {
        match leaders.load(Ordering::SeqCst) {
            0 => Err("nobody leads".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let first = holder(&leases).await;
    let elected = Instant::now();
    assert_eq!(
        leaders.load(Ordering::SeqCst),
        1,
        "more than one won the race"
    );
    eventually("a successor", Duration::from_mins(1), || async {
        let now = holder(&leases).await;
        if now == first { Err(now) } else { Ok(()) }
    })
    .await;
    let after = elected.elapsed();
    assert!(
        after > Duration::from_secs(5),
        "it was followed after {after:?}"
    );
    for candidate in candidates {
        candidate.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_gives_the_lease_back_and_one_that_was_overthrown_ends() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("leases").await;
    let leases: Api<Lease> = Api::namespaced(server.client(), &namespace);
    let mut first = elector(&server, &namespace, "first");
    first.acquire().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let kept = task::spawn("first", first.keep(async { stopped.await.unwrap() }));
    let mut second = elector(&server, &namespace, "second");
    let early = tokio::time::timeout(Duration::from_secs(10), second.acquire()).await;
    assert!(early.is_err(), "the second took a lease that is renewed");
    stop.send(()).unwrap();
    assert_eq!(kept.await.unwrap(), Ended::Released);
    let began = Instant::now();
    second.acquire().await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it waited for a lease that is free"
    );

    let kept = task::spawn("second", second.keep(std::future::pending()));
    let theft = serde_json::json!({ "spec": { "holderIdentity": "thief" } });
    let theft = kube::api::Patch::Merge(theft);
    leases
        .patch("operator", &kube::api::PatchParams::default(), &theft)
        .await
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), kept).await;
    assert_eq!(ended.expect("it goes on").unwrap(), Ended::Lost);
    let spec = leases.get("operator").await.unwrap().spec.unwrap();
    assert_eq!(
        spec.holder_identity.as_deref(),
        Some("thief"),
        "it wrote over the thief"
    );
}
