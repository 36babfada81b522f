//! Gradle's HTTP build cache (<https://docs.gradle.org/current/userguide/build_cache.html>, "HTTP build cache").
//!
//! Tried with Gradle 4.4.1. Quirks: `docs/protocols/gradle.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/cache/{key}` | GET, HEAD, PUT, DELETE | a build cache entry, opaque |
//!
//! A key is 32 to 64 hex digits. Any status but 404 to a GET, and any but 2xx to a PUT, switches the remote cache off
//! for the rest of the build, reads too; newer versions make one exception, 413. So a PUT that cannot be stored is
//! answered 413, and a GET that cannot be served 404.

use http::{Method, Response, StatusCode, request::Parts};
use zimcache_store::EntryMeta;
use zimcache_types::{Code, EntryKind};

use crate::{Error, body::Body, call::Call, error::Result, respond, status};

const METHODS: &str = "GET, HEAD, PUT, DELETE";

/// The key, as in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let key = path.strip_prefix("/cache/")?;
    (!key.contains('/')).then_some(Route(key))
}

/// Reads the key.
///
/// # Errors
/// [`Error::Key`] when it is none.
pub(crate) fn parse_key(Route(key): Route<'_>) -> Result<&str> {
    let hex = key.bytes().all(|c| c.is_ascii_hexdigit());
    if hex && (32..=64).contains(&key.len()) {
        Ok(key)
    } else {
        Err(Error::Key("expected 32 to 64 hex digits"))
    }
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    let key = parse_key(route)?;
    match call.head.method {
        Method::PUT => {
            let stored = room.put_entry(EntryKind::Gradle, key, EntryMeta::default(), call.upload);
            stored.await.map(|_| respond::done())
        }
        Method::DELETE => {
            let found = room.delete_entry(EntryKind::Gradle, key).await?;
            Ok(respond::deleted(found))
        }
        Method::GET | Method::HEAD => {
            let found = room
                .open_entry(EntryKind::Gradle, key, call.range())
                .await?;
            Ok(found.map_or_else(respond::miss, |entry| respond::entry(&call, entry)))
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// Says no without switching the cache off where that is possible. Wrong credentials are told as such: somebody has
/// to mend them.
pub(crate) fn refuse(error: &Error, head: &Parts) -> Response<Body> {
    match (&head.method, error.code()) {
        (_, Code::Unauthenticated | Code::Invalid | Code::RangeInvalid) => status::refuse(error),
        (&Method::PUT, _) => status::refuse_as(StatusCode::PAYLOAD_TOO_LARGE, error),
        (&Method::GET | &Method::HEAD, _) => status::refuse_as(StatusCode::NOT_FOUND, error),
        _ => status::refuse(error),
    }
}
