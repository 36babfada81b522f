//! Maven's build cache extension (<https://maven.apache.org/extensions/maven-build-cache-extension/>), "remote cache".
//!
//! Tried with Maven 3.9.11 and the extension 1.2.3 and 1.3.0. Quirks: `docs/protocols/maven.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/maven/{path}` | GET, HEAD, PUT, DELETE | a file: `buildinfo.xml`, an artifact, a report; the newest put wins |
//! | `/maven/{path}` | OPTIONS, MKCOL | what Maven does in front of PUT when it takes the server for WebDAV |
//!
//! The path is `{version}/{groupId}/{artifactId}/{checksum}/{file}`, but no part of it is assumed: the version differs
//! between releases of the extension. Maven waits half a minute per module when a GET is answered 429 or 503, so a GET
//! that cannot be served is 404, and no PUT is answered so either. It shows Basic credentials on a GET only after a 401
//! with a challenge, and goes on reading from where it was cut off with `Range` and `If-Unmodified-Since`.

use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use zimcache_auth::Scope;
use zimcache_store::EntryMeta;
use zimcache_types::{Code, EntryKind};

use crate::{Error, body::Body, call::Call, error::Result, files, respond, status};

const METHODS: &str = "GET, HEAD, PUT, DELETE, OPTIONS, MKCOL";

/// The path below `/maven/`, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    match path.strip_prefix("/maven")? {
        "" => Some(Route("")),
        below => below.strip_prefix('/').map(Route),
    }
}

/// Answers a request.
pub(crate) async fn answer(Route(below): Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let method = call.head.method.as_str();
    if method == "OPTIONS" {
        return Ok(options());
    }
    let room = call.room().await?;
    match method {
        // Folders are there as soon as something lies in them.
        "MKCOL" => {
            room.require(Scope::Write)?;
            Ok(status::empty(StatusCode::CREATED))
        }
        "PUT" => {
            let path = files::parse_path(below)?;
            let stored = room.put_entry(EntryKind::Maven, &path, EntryMeta::default(), call.upload);
            stored.await.map(|_| respond::done())
        }
        "DELETE" => {
            let path = files::parse_path(below)?;
            let found = room.delete_entry(EntryKind::Maven, &path).await?;
            Ok(respond::deleted(found))
        }
        "GET" | "HEAD" => {
            let path = files::parse_path(below)?;
            files::open(&call, &room, EntryKind::Maven, &path).await
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// Maven looks for `DAV` before it makes folders.
fn options() -> Response<Body> {
    const DAV: HeaderName = HeaderName::from_static("dav");
    let mut response = respond::done();
    let headers = response.headers_mut();
    headers.insert(DAV, HeaderValue::from_static("1"));
    headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// Says no in a way that Maven does not wait for a better answer.
pub(crate) fn refuse(error: &Error, head: &Parts) -> Response<Body> {
    let reads = head.method == http::Method::GET || head.method == http::Method::HEAD;
    match error.code() {
        Code::Unauthenticated | Code::Forbidden | Code::Invalid | Code::RangeInvalid => {
            status::refuse(error)
        }
        _ if reads => status::refuse_as(StatusCode::NOT_FOUND, error),
        Code::Unavailable | Code::Corrupt | Code::RateLimited => {
            status::refuse_as(StatusCode::INTERNAL_SERVER_ERROR, error)
        }
        _ => status::refuse(error),
    }
}
