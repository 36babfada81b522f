//! A node's page for those who run the system, on a port of its own: health, readiness, metrics, how it stands.
//!
//! | path | methods | answer |
//! | --- | --- | --- |
//! | `/health` | GET | 200 while the process answers |
//! | `/ready` | GET | 200 when the node knows all that it missed, else 503 |
//! | `/metrics` | GET | Prometheus' text format |
//! | `/admin/v1/status` | GET | what the node holds and waits for, in JSON |
//!
//! Nobody is asked who he is: the port is for the inside of a cluster. Not here: changing anything.

use std::{net::TcpListener, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use zimcache_gateway::register_store;
use zimcache_link::{Peer, Status, StatusQuestion};
use zimcache_member::Member;
use zimcache_store::StoreAdmin;
use zimcache_telemetry::{metrics::Registry, task};

use super::member::Seat;
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
struct Keeper {
    member: Member,
    registry: Registry,
}

/// Answers on this address until `stopped` says so. Call it on the runtime.
pub(super) fn start(
    listener: TcpListener,
    seat: &Seat,
    admin: Arc<dyn StoreAdmin>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let registry = Registry::new();
    register_store(&registry, admin);
    seat.show(&registry);
    let member = seat.member.clone();
    let pages = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/admin/v1/status", get(status))
        .with_state(Keeper { member, registry });
    let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Runtime)?;
    task::spawn("keeper", async move {
        let stop = async move {
            stopped.wait_for(|stopped| *stopped).await.ok();
        };
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

async fn ready(State(keeper): State<Keeper>) -> (StatusCode, &'static str) {
    if keeper.member.standing().catching_up {
        return (StatusCode::SERVICE_UNAVAILABLE, "catching up\n");
    }
    (StatusCode::OK, "ready\n")
}

async fn metrics(State(keeper): State<Keeper>) -> impl IntoResponse {
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (text, keeper.registry.render())
}

async fn status(State(keeper): State<Keeper>) -> Response {
    let question = StatusQuestion {
        with_figures: true,
        ..StatusQuestion::default()
    };
    match keeper.member.status(question).await {
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
