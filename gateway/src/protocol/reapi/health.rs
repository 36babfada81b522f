//! Whether this server serves: `grpc.health.v1.Health`, for load balancers and Kubernetes.
//!
//! Needs no credentials and tells nobody more than `/health` does; it looks at the same two things: whether the store
//! takes writes, and whether the server drains. All services share one state. A service may also be named by the path of
//! one of its calls: a client of bazel-remote does so. Cancellation: a watch ends with its stream, and with the server.

use std::{sync::Arc, time::Duration};

use http::Response;
use tokio::sync::mpsc;
use zimcache_proto::{
    health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_check_response::ServingStatus,
    },
    status::GrpcCode,
};
use zimcache_store::StoreAdmin;
use zimcache_telemetry::task;

use super::{Route, SERVICES, routes};
use crate::{
    body::Body,
    call::Call,
    connections::Connections,
    grpc::{self, Messages, Outcome, Pieces, Status},
};

/// How often a watch looks again.
const PACE: Duration = Duration::from_millis(250);

/// Answers `Check`.
pub(super) async fn check(call: Call<'_>) -> Outcome<Response<Body>> {
    let state = State::of(&call);
    let mut messages = Messages::new(call.upload, &call.shared.messages);
    let request: HealthCheckRequest = messages.decode().await?;
    if !is_known(&request.service) {
        return Err(Status::not_found("this server has no such service"));
    }
    Ok(grpc::unary(&response(state.now())))
}

/// Answers `List`.
pub(super) async fn list(call: Call<'_>) -> Outcome<Response<Body>> {
    let state = State::of(&call);
    let mut messages = Messages::new(call.upload, &call.shared.messages);
    let _: HealthListRequest = messages.decode().await?;
    let response = response(state.now());
    let names = SERVICES.iter().chain(&[""]);
    let statuses = names.map(|name| ((*name).to_owned(), response)).collect();
    Ok(grpc::unary(&HealthListResponse { statuses }))
}

/// Answers `Watch`: the state now, and again whenever it changed.
pub(super) async fn watch(call: Call<'_>) -> Outcome<Response<Body>> {
    let state = State::of(&call);
    let mut messages = Messages::new(call.upload, &call.shared.messages);
    let request: HealthCheckRequest = messages.decode().await?;
    let (sender, told) = mpsc::channel(1);
    task::spawn("health", state.tell(is_known(&request.service), sender));
    Ok(grpc::streamed(told))
}

/// Whether a service is one of ours; no name stands for the whole server.
fn is_known(service: &str) -> bool {
    let by_path = routes(service).is_some_and(|route| route != Route::Unknown);
    service.is_empty() || SERVICES.contains(&service) || by_path
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// Where the state is seen.
#[derive(Debug)]
struct State {
    store: Arc<dyn StoreAdmin>,
    connections: Arc<Connections>,
}

impl State {
    fn of(call: &Call<'_>) -> State {
        State {
            store: Arc::clone(&call.shared.admin),
            connections: Arc::clone(&call.shared.connections),
        }
    }

    fn now(&self) -> ServingStatus {
        if self.connections.is_draining() || self.store.stats().read_only.is_some() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        }
    }

    /// Tells every change until the caller goes away or the server stops. A service that is not there stays so.
    async fn tell(self, known: bool, messages: mpsc::Sender<Outcome<Pieces>>) {
        let mut told = None;
        loop {
            let draining = self.connections.is_draining();
            let status = if known {
                self.now()
            } else {
                ServingStatus::ServiceUnknown
            };
            if told.replace(status) != Some(status) {
                let message = Pieces::of(&response(status));
                if messages.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            if draining {
                let stopping = Status::new(GrpcCode::Unavailable, "the server is stopping");
                // Fails only when the caller went away.
                messages.send(Err(stopping)).await.ok();
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                () = messages.closed() => return,
            }
        }
    }
}
