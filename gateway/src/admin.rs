//! The operator's pages on the clients' port: health, metrics, figures, what is held, garbage collection, verification.
//!
//! | path | methods | who |
//! | --- | --- | --- |
//! | `/` | GET, HEAD | everybody: the page for people (`page`) in a browser, else which pages there are |
//! | `/health` | GET, HEAD | everybody |
//! | `/metrics` | GET, HEAD | everybody |
//! | `/api/v1/openapi.json` | GET, HEAD | everybody |
//! | `/api/v1/stats`, `/api/v1/usage`, `/api/v1/top` | GET, HEAD | who may read (`figures`) |
//! | `/api/v1/cluster` | GET, HEAD | who may read; 404 where there is no cluster |
//! | `/api/v1/entries` | GET, HEAD, DELETE | who may read, who may write (`entries`) |
//! | `/api/v1/namespaces/{namespace}` | DELETE | admins |
//! | `/api/v1/gc` | POST | admins |
//! | `/api/v1/verify` | POST | admins |
//!
//! Where no access is configured, every caller on this machine is an admin, and nobody else; one that speaks for
//! someone else (a browser's page, a proxy) counts as remote. Cancellation: a verification whose caller went away ends.

mod entries;
mod figures;
mod query;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde::Serialize;
use tokio::sync::mpsc;
use zimcache_auth::{Identity, NamespacePattern, Principal, Scope};
use zimcache_store::{GcOptions, Progress, StoreAdmin, VerifyReport};
use zimcache_telemetry::task;
use zimcache_types::Namespace;

use crate::{Error, body::Body, cache::Chunks, call::Call, error::Result, page, respond, status};

/// Largest JSON body of a request.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Lines of progress that may wait for a slow reader; more are left out.
const WAITING_LINES: usize = 16;
const OPENAPI: &str = include_str!("openapi.json");

/// One of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page<'a> {
    Index,
    Health,
    Metrics,
    OpenApi,
    Stats,
    Usage,
    Top,
    Cluster,
    Entries,
    Namespace(&'a str),
    Gc,
    Verify,
}

/// Whether the path is one of the pages.
pub(crate) fn routes(path: &str) -> Option<Page<'_>> {
    match path {
        "/" => Some(Page::Index),
        "/health" => Some(Page::Health),
        "/metrics" => Some(Page::Metrics),
        "/api/v1/openapi.json" => Some(Page::OpenApi),
        "/api/v1/stats" => Some(Page::Stats),
        "/api/v1/usage" => Some(Page::Usage),
        "/api/v1/top" => Some(Page::Top),
        "/api/v1/cluster" => Some(Page::Cluster),
        "/api/v1/entries" => Some(Page::Entries),
        "/api/v1/gc" => Some(Page::Gc),
        "/api/v1/verify" => Some(Page::Verify),
        _ => {
            let name = path.strip_prefix("/api/v1/namespaces/")?;
            Some(Page::Namespace(name))
        }
    }
}

impl Page<'_> {
    const fn methods(self) -> &'static str {
        match self {
            Page::Gc | Page::Verify => "POST",
            Page::Entries => "GET, HEAD, DELETE",
            Page::Namespace(_) => "DELETE",
            _ => "GET, HEAD",
        }
    }
}

/// Answers a request.
pub(crate) async fn answer(page: Page<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let method = &call.head.method;
    let mut allowed = page.methods().split(", ");
    if !allowed.any(|one| one == method.as_str()) {
        return Ok(status::method_not_allowed(page.methods()));
    }
    let head_only = *method == Method::HEAD;
    let response = match page {
        Page::Index => page::answer(&call),
        Page::Health => figures::health(&call),
        Page::Metrics => metrics(&call),
        Page::OpenApi => document(OPENAPI),
        Page::Stats => figures::stats(&call).await?,
        Page::Usage => figures::usage(&call).await?,
        Page::Top => figures::top(&call).await?,
        Page::Cluster => figures::cluster(&call).await?,
        Page::Entries if *method == Method::DELETE => entries::delete(&call).await?,
        Page::Entries => entries::list(&call).await?,
        Page::Namespace(name) => entries::purge(&call, name).await?,
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

fn metrics(call: &Call<'_>) -> Response<Body> {
    if !call.shared.config.metrics {
        return respond::miss();
    }
    let (format, page) = call.shared.metrics.page_for(&call.head.headers);
    let mut response = Response::new(Body::full(Bytes::from(page)));
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

fn document(text: &'static str) -> Response<Body> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut response = Response::new(Body::full(Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
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
    call.shared.metrics.collections.done(&report);
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

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;
    use crate::protocol::{Dialect, whose};

    fn paths() -> Map<String, Value> {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        document["paths"].as_object().unwrap().clone()
    }

    /// The tags of the operations of a path.
    fn tags(item: &Value) -> Vec<String> {
        let operations = item.as_object().unwrap().values();
        let tags = operations.filter_map(|operation| operation["tags"][0].as_str());
        tags.map(str::to_owned).collect()
    }

    #[test]
    fn every_dialect_is_in_the_document() {
        let all: Vec<_> = paths().values().flat_map(tags).collect();
        // Remote procedure calls are described by gRPC's reflection.
        let of_http = Dialect::ALL.iter().filter(|it| **it != Dialect::Reapi);
        for dialect in of_http {
            let name = dialect.as_str();
            assert!(
                all.iter().any(|tag| tag == name),
                "describe {name} in openapi.json"
            );
        }
    }

    #[test]
    fn every_path_of_the_document_leads_where_it_says() {
        let hex = "0123456789abcdef".repeat(4);
        for (path, item) in paths() {
            let example = path
                .replace("{hash}", &hex)
                .replace("{key}", &hex[..40])
                .replace("{path}", "a/b")
                .replace("{namespace}", "team-a")
                .replace("{number}", "7")
                .replace("{id}", "1f")
                .replace("{method}", "CreateCacheEntry");
            let found = whose(&example).map(Dialect::as_str);
            for tag in tags(&item) {
                assert_eq!(found, Some(&*tag), "{path}");
            }
        }
    }

    #[test]
    fn the_pages_methods_are_those_of_the_document() {
        for (path, item) in paths() {
            let example = path.replace("{namespace}", "team-a");
            let Some(page) = routes(&example) else {
                continue;
            };
            let operations = item.as_object().unwrap().keys();
            let mut told: Vec<_> = operations.map(|name| name.to_uppercase()).collect();
            told.retain(|name| name != "PARAMETERS");
            told.sort();
            let mut own: Vec<_> = page.methods().split(", ").collect();
            own.sort_unstable();
            assert_eq!(told, own, "{path}");
        }
    }
}
