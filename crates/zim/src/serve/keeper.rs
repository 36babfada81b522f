//! The page of a node or a gateway for those who run the system, on a port of its own: health, readiness, metrics, how
//! it stands.
//!
//! | path | methods | answer |
//! | --- | --- | --- |
//! | `/health` | GET | 200 while the process answers |
//! | `/ready` | GET | 200 when the node knows all that it missed, or the gateway takes requests; else 503 and why |
//! | `/metrics` | GET | Prometheus' text format |
//! | `/admin/v1/status` | GET | what the node holds and waits for, in JSON; nodes alone |
//!
//! Nobody is asked who he is: the port is for the inside of a cluster. Not here: changing anything.

use std::{future::Future, net::TcpListener, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use zimcache_gateway::Gateway;
use zimcache_link::{Peer, Status, StatusQuestion};
use zimcache_member::Member;
use zimcache_telemetry::{metrics::Registry, task};

use crate::error::{Error, Result};

/// Type and text of the metrics page, for a reader with these headers.
type Page = Arc<dyn Fn(&HeaderMap) -> (HeaderValue, String) + Send + Sync>;
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// Why the process is not ready; `None` when it is.
type Why = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// A node's page, until `stopped` says so. Call it on the runtime.
pub(super) fn of_node(
    listener: TcpListener,
    member: Member,
    registry: Registry,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let status = Router::new()
        .route("/admin/v1/status", get(status))
        .with_state(member.clone());
    let why: Why = Arc::new(move || member.standing().catching_up.then_some("catching up\n"));
    let page: Page = Arc::new(move |_| (TEXT, registry.render()));
    let stop = async move {
        stopped.wait_for(|stopped| *stopped).await.ok();
    };
    start(listener, pages(page, why).merge(status), stop)
}

/// A gateway's page, until the process ends. Call it on the runtime.
pub(super) fn of_gateway(listener: TcpListener, gateway: &Gateway) -> Result<()> {
    let (shown, gateway) = (gateway.clone(), gateway.clone());
    let page: Page = Arc::new(move |headers| shown.metrics(headers));
    let why: Why = Arc::new(move || gateway.is_draining().then_some("stopping\n"));
    start(listener, pages(page, why), std::future::pending())
}

/// What nodes and gateways have in common.
fn pages(page: Page, why: Why) -> Router {
    let ready = move || {
        let why = why();
        async move {
            match why {
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
                None => (StatusCode::OK, "ready\n"),
            }
        }
    };
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(page)
}

fn start(
    listener: TcpListener,
    pages: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Runtime)?;
    task::spawn("keeper", async move {
        let served = axum::serve(listener, pages).with_graceful_shutdown(stop);
        if let Err(error) = served.await {
            tracing::error!(%error, "the page for those who run the system has ended");
        }
    });
    Ok(())
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

async fn metrics(State(page): State<Page>, headers: HeaderMap) -> impl IntoResponse {
    let (format, text) = page(&headers);
    ([(header::CONTENT_TYPE, format)], text)
}

async fn status(State(member): State<Member>) -> Response {
    let question = StatusQuestion {
        with_figures: true,
        ..StatusQuestion::default()
    };
    match member.status(question).await {
        Ok(status) => Json(document(&status)).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

fn document(status: &Status) -> Value {
    json!({
        "id": status.id,
        "version": status.version,
        "epoch": status.epoch,
        "syncedEpoch": status.synced_epoch,
        "catchingUp": status.catching_up,
        "draining": status.draining,
        "dirty": status.pinned.dirty,
        "dirtyBytes": status.pinned.dirty_bytes,
        "hints": status.pinned.hints,
        "hintBytes": status.pinned.hint_bytes,
        "calls": status.in_flight,
        "tierReachable": status.tier_reachable,
        "stats": status.stats,
    })
}
