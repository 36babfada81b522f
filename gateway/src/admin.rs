//! The operator's pages on the clients' port: health, metrics, figures, garbage collection, verification.
//!
//! | path | methods | who |
//! | --- | --- | --- |
//! | `/` | GET, HEAD | everybody: which pages there are |
//! | `/health` | GET, HEAD | everybody |
//! | `/metrics` | GET, HEAD | everybody |
//! | `/api/v1/stats` | GET, HEAD | who may read |
//! | `/api/v1/gc` | POST | admins |
//! | `/api/v1/verify` | POST | admins |
//!
//! Where no access is configured, every caller on this machine is an admin, and nobody else; one that speaks for
//! someone else (a browser's page, a proxy) counts as remote. Cancellation: a verification whose caller went away ends.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use tokio::sync::mpsc;
use zimcache_auth::{Identity, NamespacePattern, Principal, Scope};
use zimcache_store::{GcOptions, Progress, StoreAdmin, StoreStats, VerifyReport};
use zimcache_telemetry::task;
use zimcache_types::Namespace;

use crate::{Error, body::Body, cache::Chunks, call::Call, error::Result, respond, status};

/// Largest JSON body of a request.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Lines of progress that may wait for a slow reader; more are left out.
const WAITING_LINES: usize = 16;
const VERSION: &str = env!("CARGO_PKG_VERSION");
const INDEX: &str = concat!(
    "ZimCache ",
    env!("CARGO_PKG_VERSION"),
    "\n\n/health\n/metrics\n/api/v1/stats\n"
);

/// One of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Index,
    Health,
    Metrics,
    Stats,
    Gc,
    Verify,
}

/// Whether the path is one of the pages.
pub(crate) fn routes(path: &str) -> Option<Page> {
    match path {
        "/" => Some(Page::Index),
        "/health" => Some(Page::Health),
        "/metrics" => Some(Page::Metrics),
        "/api/v1/stats" => Some(Page::Stats),
        "/api/v1/gc" => Some(Page::Gc),
        "/api/v1/verify" => Some(Page::Verify),
        _ => None,
    }
}

/// Answers a request.
pub(crate) async fn answer(page: Page, call: Call<'_>) -> Result<Response<Body>> {
    let acts = matches!(page, Page::Gc | Page::Verify);
    let allowed = if acts { "POST" } else { "GET, HEAD" };
    let method = &call.head.method;
    if (*method == Method::POST) != acts || !(acts || [Method::GET, Method::HEAD].contains(method))
    {
        return Ok(status::method_not_allowed(allowed));
    }
    let head_only = *method == Method::HEAD;
    let response = match page {
        Page::Index => status::text(StatusCode::OK, INDEX.to_owned()),
        Page::Health => health(&call),
        Page::Metrics => metrics(&call),
        Page::Stats => stats(&call).await?,
        Page::Gc => gc(call).await?,
        Page::Verify => verify(&call).await?,
    };
    Ok(if head_only {
        without_body(response)
    } else {
        response
    })
}

/// The same headers, with the length the body would have.
fn without_body(response: Response<Body>) -> Response<Body> {
    let length = http_body::Body::size_hint(response.body()).lower();
    let mut response = response.map(|_| Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    capacity_bytes: u64,
    live_bytes: u64,
    read_only: Option<String>,
}

fn health(call: &Call<'_>) -> Response<Body> {
    let stats = call.shared.admin.stats();
    let status = if stats.read_only.is_some() {
        "read-only"
    } else {
        "ok"
    };
    respond::json(&Health {
        status,
        version: VERSION,
        capacity_bytes: stats.capacity_bytes,
        live_bytes: stats.live_bytes,
        read_only: stats.read_only,
    })
}

fn metrics(call: &Call<'_>) -> Response<Body> {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let page = call.shared.metrics.page();
    let mut response = Response::new(Body::full(Bytes::from(page)));
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}

#[derive(Debug, Serialize)]
struct Stats {
    version: &'static str,
    uptime_seconds: u64,
    connections: usize,
    requests: u64,
    hits: u64,
    misses: u64,
    hit_rate: Option<f64>,
    #[serde(flatten)]
    store: StoreStats,
}

async fn stats(call: &Call<'_>) -> Result<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let totals = shared.metrics.totals();
    Ok(respond::json(&Stats {
        version: VERSION,
        uptime_seconds: shared.started.elapsed().as_secs(),
        connections: shared.connections.count(),
        requests: totals.requests,
        hits: totals.counts.hits,
        misses: totals.counts.misses,
        hit_rate: totals.counts.hit_rate(),
        store: shared.admin.stats(),
    }))
}

async fn gc(call: Call<'_>) -> Result<Response<Body>> {
    let principal = call.principal().await?;
    let body = read_request(call.upload).await?;
    let options: GcOptions = if body.iter().all(u8::is_ascii_whitespace) {
        GcOptions::default()
    } else {
        serde_json::from_slice(&body).map_err(|_| {
            Error::Request(
                "expected nothing, or {\"target_bytes\": number, \"older_than_seconds\": number, \
                 \"namespace\": text, \"dry_run\": true}, each optional",
            )
        })?
    };
    require_admin(&call, &principal, options.namespace.as_ref())?;
    let report = call.shared.admin.gc(options).await?;
    Ok(respond::json(&report))
}

async fn read_request(body: &mut impl Chunks) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
        if all.len() > MAX_REQUEST_BYTES {
            let limit = MAX_REQUEST_BYTES as u64;
            return Err(Error::TooLarge { limit });
        }
    }
    Ok(all)
}

/// One line of a verification's answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Progress),
    Report(VerifyReport),
    Error(String),
}

impl Line {
    fn encode(&self) -> Bytes {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text.into()
    }
}

async fn verify(call: &Call<'_>) -> Result<Response<Body>> {
    const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
    let principal = call.principal().await?;
    require_admin(call, &principal, None)?;
    let (lines, received) = mpsc::channel(WAITING_LINES);
    task::spawn("verify", run_verify(Arc::clone(&call.shared.admin), lines));
    let mut response = Response::new(Body::lines(received));
    response.headers_mut().insert(header::CONTENT_TYPE, LINES);
    Ok(response)
}

async fn run_verify(admin: Arc<dyn StoreAdmin>, lines: mpsc::Sender<Bytes>) {
    let progress = lines.clone();
    // A line that finds no room is left out: the next one says more.
    let on_progress = Box::new(move |step| drop(progress.try_send(Line::Progress(step).encode())));
    let last = tokio::select! {
        verified = admin.verify(on_progress) => match verified {
            Ok(report) => Line::Report(report),
            Err(error) => {
                tracing::error!(%error, "verification failed");
                Line::Error("the store could not be verified; see the server's log".into())
            }
        },
        () = lines.closed() => return,
    };
    // Fails only when the caller went away.
    lines.send(last.encode()).await.ok();
}

/// Refuses callers who may not look after the namespace or, without one, after the whole store.
fn require_admin(
    call: &Call<'_>,
    principal: &Principal,
    namespace: Option<&Namespace>,
) -> Result<()> {
    if principal.identity() == Identity::Open && speaks_for_another_machine(call) {
        return Err(Error::RemoteCaller);
    }
    let allowed = match namespace {
        Some(namespace) => principal.may(Scope::Admin, namespace),
        None => principal.allows(Scope::Admin) && *principal.pattern() == NamespacePattern::All,
    };
    if allowed {
        Ok(())
    } else {
        Err(Error::Forbidden("looking after this"))
    }
}

fn speaks_for_another_machine(call: &Call<'_>) -> bool {
    let headers = &call.head.headers;
    let on_behalf = ["origin", "forwarded", "x-forwarded-for"]
        .into_iter()
        .any(|name| headers.contains_key(name));
    on_behalf || !call.peer.is_local()
}
