//! `grpc.health.v1.Health`: what load balancers, Kubernetes and grpcreadclient hear.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use prost::Message;
use tonic::{Code, Streaming};
use zimcache_gateway::{Policy, Stores};
use zimcache_store::{
    BlobInfo, GcOptions, GcReport, Result, Retention, StoreAdmin, StoreStats, Usage, VerifyReport,
    admin::OnProgress, memory::MemoryStore,
};
use zimcache_types::{Digest, Namespace};

use crate::{
    calls::{answers, unary},
    support::{Outcome, Server, code, within},
    wire::guarded,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/grpc.health.v1.Health/List";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

/// As the specification numbers its fields.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct Statuses {
    #[prost(map = "string, message", tag = "1")]
    statuses: std::collections::HashMap<String, Answer>,
}

fn about(service: &str) -> Question {
    Question {
        service: service.to_owned(),
    }
}

async fn check(server: &Server, service: &str) -> Outcome<i32> {
    let answer: Answer = unary(server, CHECK, about(service)).await?;
    Ok(answer.status)
}

async fn watch(server: &Server, service: &str) -> Streaming<Answer> {
    answers(server, WATCH, about(service)).await.unwrap()
}

async fn next(answers: &mut Streaming<Answer>) -> Outcome<i32> {
    let answer = within(answers.message()).await?;
    Ok(answer.expect("the watch goes on").status)
}

/// A store that stops taking writes when told.
#[derive(Debug, Clone)]
struct Frail {
    store: MemoryStore,
    read_only: Arc<AtomicBool>,
}

#[async_trait]
impl StoreAdmin for Frail {
    fn stats(&self) -> StoreStats {
        let read_only = self.read_only.load(Ordering::SeqCst);
        StoreStats {
            read_only: read_only.then(|| "a sync failed".to_owned()),
            ..self.store.stats()
        }
    }

    async fn gc(&self, options: GcOptions) -> Result<GcReport> {
        self.store.gc(options).await
    }

    fn set_retention(&self, retention: Retention) {
        self.store.set_retention(retention);
    }

    async fn usage(&self) -> Result<Vec<Usage>> {
        self.store.usage().await
    }

    async fn list_blobs(
        &self,
        namespace: &Namespace,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        self.store.list_blobs(namespace, after, limit).await
    }

    async fn verify(&self, on_progress: OnProgress) -> Result<VerifyReport> {
        self.store.verify(on_progress).await
    }
}

/// A gateway over such a store, and the switch.
async fn frail() -> (Server, Arc<AtomicBool>) {
    let store = MemoryStore::default();
    let read_only = Arc::new(AtomicBool::new(false));
    let shared = Arc::new(store.clone());
    let stores = Stores {
        blobs: shared.clone(),
        entries: shared,
        admin: Arc::new(Frail {
            store: store.clone(),
            read_only: Arc::clone(&read_only),
        }),
    };
    let server = Server::of(stores, store, Policy::default(), |_| {}).await;
    (server, read_only)
}

#[tokio::test]
async fn health_is_told_without_credentials() {
    let (policy, _) = guarded("default");
    let server = Server::with_policy(policy).await;
    for service in [
        "",
        "build.bazel.remote.execution.v2.ActionCache",
        "build.bazel.remote.execution.v2.Capabilities",
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
        "google.bytestream.ByteStream",
        "grpc.health.v1.Health",
    ] {
        assert_eq!(check(&server, service).await.unwrap(), SERVING, "{service}");
    }
    server.finish().await;
}

#[tokio::test]
async fn a_service_may_be_named_by_the_path_of_a_call() {
    let server = Server::start().await;
    assert_eq!(check(&server, CHECK).await.unwrap(), SERVING);
    server.finish().await;
}

#[tokio::test]
async fn an_unknown_service_is_not_found() {
    let server = Server::start().await;
    for service in [
        "build.bazel.remote.execution.v2.Execution",
        "nobody",
        "/grpc.health.v1.Health/Nothing",
        "/health",
    ] {
        let refused = check(&server, service).await;
        assert_eq!(code(refused), Code::NotFound, "{service}");
    }
    server.finish().await;
}

#[tokio::test]
async fn the_list_has_every_service() {
    let server = Server::start().await;
    let list: Statuses = unary(&server, LIST, Nothing {}).await.unwrap();
    for service in ["", "grpc.health.v1.Health", "google.bytestream.ByteStream"] {
        assert_eq!(list.statuses[service].status, SERVING, "{service}");
    }
    server.finish().await;
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_not_serving() {
    let (server, read_only) = frail().await;
    assert_eq!(check(&server, "").await.unwrap(), SERVING);
    read_only.store(true, Ordering::SeqCst);
    assert_eq!(check(&server, "").await.unwrap(), NOT_SERVING);
    assert!(server.get("/health").await.text().contains("read-only"));
    server.finish().await;
}

#[tokio::test]
async fn a_watch_tells_the_state_at_once_and_every_change() {
    let (server, read_only) = frail().await;
    let mut watched = watch(&server, "google.bytestream.ByteStream").await;
    assert_eq!(next(&mut watched).await.unwrap(), SERVING);
    read_only.store(true, Ordering::SeqCst);
    assert_eq!(next(&mut watched).await.unwrap(), NOT_SERVING);
    read_only.store(false, Ordering::SeqCst);
    assert_eq!(next(&mut watched).await.unwrap(), SERVING);
    drop(watched);
    server.finish().await;
}

#[tokio::test]
async fn a_watch_tells_of_the_drain_and_never_holds_it_up() {
    let mut server = Server::start().await;
    let mut watched = watch(&server, "").await;
    assert_eq!(next(&mut watched).await.unwrap(), SERVING);
    server.stop();
    assert_eq!(next(&mut watched).await.unwrap(), NOT_SERVING);
    assert_eq!(code(next(&mut watched).await), Code::Unavailable);
    drop(watched);
    assert_eq!(server.finish().await.cut, 0);
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_says_so() {
    let server = Server::start().await;
    let mut watched = watch(&server, "nobody").await;
    assert_eq!(next(&mut watched).await.unwrap(), SERVICE_UNKNOWN);
    drop(watched);
    server.finish().await;
}
