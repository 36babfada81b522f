//! Bazel's HTTP cache (<https://bazel.build/remote/caching>); moon's `api: http` uses the same paths.
//!
//! Tried with Bazel 4.2.3. Quirks per client: `docs/protocols/bazel-http.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/[{instance}/]ac/{hash}` | GET, HEAD, PUT, DELETE | action result, checked when it comes and when it goes |
//! | `/[{instance}/]cas/{hash}` | GET, HEAD, PUT, DELETE | blob, always verified |
//! | `/status` | GET, HEAD | a little JSON |
//!
//! The instance is the namespace; without one it is `default`. Nothing in a path tells the hash function: its length
//! does, and 64 digits may be SHA-256 or BLAKE3.
//!
//! Action results are stored in their binary form. moon sends and wants them as JSON, told by `Content-Type` and
//! `Accept`; they are converted, so that all clients share them. What the binary form holds in fields that we do not
//! know has no form in JSON and is left out of it.

use http::{HeaderName, HeaderValue, Method, Response, header, request::Parts};
use serde::Serialize;
use zimcache_proto::json;
use zimcache_store::Reader;
use zimcache_types::{Hash, Namespace};

use super::RESERVED;
use crate::{
    Error,
    action_results::{ActionResult, Form},
    body::Body,
    cache::{Chunks as _, Named},
    call::Call,
    error::Result,
    respond,
    room::Room,
    status,
    uploads::Put,
};

const METHODS: &str = "GET, HEAD, PUT, DELETE";
const JSON: &str = "application/json";

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/status`.
    Status,
    /// A value.
    Value {
        /// As in the path; empty when there is none.
        instance: &'a str,
        /// Blob or action result.
        kind: Kind,
        /// As in the path.
        key: &'a str,
    },
}

/// Which of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `ac`.
    ActionResult,
    /// `cas`.
    Blob,
}

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let path = path.strip_prefix('/')?;
    if path == "status" {
        return Some(Route::Status);
    }
    let (rest, key) = path.rsplit_once('/')?;
    let (instance, kind) = rest.rsplit_once('/').unwrap_or(("", rest));
    let kind = match kind {
        "ac" => Kind::ActionResult,
        "cas" => Kind::Blob,
        _ => return None,
    };
    let first = instance.split('/').next().unwrap_or(instance);
    (!RESERVED.contains(&first)).then_some(Route::Value {
        instance,
        kind,
        key,
    })
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let Route::Value {
        instance,
        kind,
        key,
    } = route
    else {
        // moon asks here whether to use the cache at all: whoever may not has to hear it now.
        call.principal().await?;
        return Ok(server_status(&call));
    };
    let named = (!instance.is_empty()).then(|| Namespace::new(instance));
    let room = call.room_of(named.transpose()?).await?;
    let hash = Hash::parse_untyped(key)?;
    match kind {
        Kind::Blob => blob(call, &room, &hash, key).await,
        Kind::ActionResult => action_result(call, &room, &hash).await,
    }
}

async fn blob(call: Call<'_>, room: &Room<'_>, hash: &Hash, key: &str) -> Result<Response<Body>> {
    match call.head.method {
        Method::PUT => {
            let named = Named::bare(*hash, call.upload.announced_bytes());
            let stored = room.put_blob(&named, Put::default(), call.upload);
            stored.await.map(|()| respond::done())
        }
        Method::DELETE => Ok(respond::deleted(room.delete_blob(hash).await?)),
        Method::GET | Method::HEAD => {
            let opened = room
                .open_blob(&Named::bare(*hash, None), call.range())
                .await?;
            Ok(opened.map_or_else(respond::miss, |reader| respond::value(&call, reader, key)))
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

async fn action_result(call: Call<'_>, room: &Room<'_>, action: &Hash) -> Result<Response<Body>> {
    match call.head.method {
        Method::PUT => {
            let form = form_of(&call, header::CONTENT_TYPE);
            let stored = room.put_action_result(action, form, call.upload);
            stored.await.map(|()| respond::done())
        }
        Method::DELETE => {
            let found = room.delete_action_result(action).await?;
            Ok(respond::deleted(found))
        }
        Method::GET | Method::HEAD => {
            let found = room.action_result(&Named::bare(*action, None)).await?;
            found.map_or_else(|| Ok(respond::miss()), |result| hit(&call, result))
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// Says no: Bazel warns and goes on without the cache. Over a limit, a look-up is a miss, because Bazel would warn about
/// each; an upload is told 429, because newer versions try again at once after a 5xx.
pub(crate) fn refuse(error: &Error, head: &Parts) -> Response<Body> {
    status::refuse_quietly(error, &head.method)
}

/// How the action result is written in the request, or is wanted in the answer.
fn form_of(call: &Call<'_>, told_by: HeaderName) -> Form {
    let told = call.head.headers.get(told_by);
    match told.and_then(|value| value.as_bytes().get(..JSON.len())) {
        Some(told) if told.eq_ignore_ascii_case(JSON.as_bytes()) => Form::Json,
        _ => Form::Binary,
    }
}

fn hit(call: &Call<'_>, result: ActionResult) -> Result<Response<Body>> {
    let ActionResult { bytes, version, .. } = result;
    let form = form_of(call, header::ACCEPT);
    let (bytes, etag) = match form {
        Form::Binary => (bytes, format!("{version:x}")),
        Form::Json => match json::write_action_result(&bytes) {
            Ok(text) => (text.into(), format!("{version:x}-json")),
            // It holds a time that JSON cannot write, so there is nothing for this client.
            Err(_) => return Ok(respond::miss()),
        },
    };
    let range = call.range().resolve(bytes.len() as u64)?;
    let reader = Reader::from_bytes_range(&bytes, range);
    let mut response = respond::value(call, reader, &etag);
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if form == Form::Json && headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    }
    Ok(response)
}

/// What tools that know bazel-remote's page look for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServerStatus {
    curr_size: u64,
    max_size: u64,
    num_files: u64,
    server_version: &'static str,
}

fn server_status(call: &Call<'_>) -> Response<Body> {
    if !matches!(call.head.method, Method::GET | Method::HEAD) {
        return status::method_not_allowed("GET, HEAD");
    }
    let stats = call.shared.admin.stats();
    respond::json(&ServerStatus {
        curr_size: stats.live_bytes,
        max_size: stats.capacity_bytes,
        num_files: stats.blobs + stats.entries,
        server_version: env!("CARGO_PKG_VERSION"),
    })
}
