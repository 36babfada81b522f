//! Nx's self-hosted remote cache (<https://nx.dev/recipes/running-tasks/self-hosted-caching>, "OpenAPI Specification").
//!
//! Tried with Nx 24.0.6. Quirks: `docs/protocols/nx.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/v1/cache/{hash}` | GET, HEAD, PUT, DELETE | a task's outputs, opaque; the first writer wins |
//!
//! A hash is a decimal number by default and whatever a custom hasher makes it: 1 to 128 of `A–Z a–z 0–9 _ -`. Nx ends
//! the whole run when a GET is answered by anything but 200 and 404, and fails the task when a PUT is answered by
//! anything but 200, 409 (there is one already) and 403 (not for you). So whatever goes wrong is 404 or 403 here; only
//! wrong credentials are told, because somebody has to mend them. PUT is never answered 201 or 202, which the
//! published description asks for and the client refuses.

use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use zimcache_auth::Scope;
use zimcache_store::{EntryMeta, Precondition};
use zimcache_types::{Code, EntryKind};

use crate::{Error, body::Body, call::Call, error::Result, respond, status};

const METHODS: &str = "GET, HEAD, PUT, DELETE";
/// The text of a 401 is shown to people only under this very content type, without a character set.
const SHOWN: HeaderValue = HeaderValue::from_static("text/plain");
/// Longest hash of a custom hasher.
const MAX_HASH_LEN: usize = 128;

/// The hash, as in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let hash = path.strip_prefix("/v1/cache/")?;
    (!hash.contains('/')).then_some(Route(hash))
}

/// Reads the hash.
///
/// # Errors
/// [`Error::Key`] when it is none.
pub(crate) fn parse_hash(Route(hash): Route<'_>) -> Result<&str> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    if (1..=MAX_HASH_LEN).contains(&hash.len()) && hash.bytes().all(legal) {
        Ok(hash)
    } else {
        Err(Error::Key("expected 1 to 128 of A-Z a-z 0-9 _ -"))
    }
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    let hash = parse_hash(route)?;
    match call.head.method {
        Method::PUT => {
            let (meta, absent) = (EntryMeta::default(), Precondition::Absent);
            let stored = room.put_entry_if(EntryKind::Nx, hash, meta, absent, call.upload);
            stored.await.map(|_| respond::done())
        }
        Method::DELETE => {
            // The first writer wins, so whoever may delete could replace what another one wrote.
            room.require(Scope::Admin)?;
            let found = room.delete_entry(EntryKind::Nx, hash).await?;
            Ok(respond::deleted(found))
        }
        Method::GET | Method::HEAD => {
            let found = room.open_entry(EntryKind::Nx, hash, call.range()).await?;
            Ok(found.map_or_else(respond::miss, |entry| respond::entry(&call, entry)))
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// Says no in a way that no run of Nx fails of, except where somebody has to mend the credentials.
pub(crate) fn refuse(error: &Error, head: &Parts) -> Response<Body> {
    match (&head.method, error.code()) {
        (_, Code::Unauthenticated) => {
            let mut response = status::refuse(error);
            response.headers_mut().insert(header::CONTENT_TYPE, SHOWN);
            response
        }
        (_, Code::RangeInvalid | Code::Conflict) => status::refuse(error),
        (&Method::PUT, _) => status::refuse_as(StatusCode::FORBIDDEN, error),
        (&Method::GET | &Method::HEAD, _) => status::refuse_as(StatusCode::NOT_FOUND, error),
        _ => status::refuse(error),
    }
}
