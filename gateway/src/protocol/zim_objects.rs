//! ZIM's objects: content under its own hash (<https://github.com/GhostKellz/zim>, `CLOUD_IDEAS.md`, "Cache API").
//!
//! Tried with `zim cache put` and `zim cache get`: no other client of it is published. Quirks: none.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/api/v1/objects/{hash}` | GET, HEAD, PUT, DELETE | an object, verified when it comes |
//!
//! A hash is 64 lower-case hex digits: the object's SHA-256. Objects are the namespace's blobs, so what Bazel stored
//! under `/cas/` is found here and the other way round, and like there BLAKE3 is understood too. A PUT answers 200,
//! new or not: the store does not tell the two apart, because a body is verified either way. What a hash names never
//! changes, so answers say `immutable`. `/api/v1/stats` and `/api/v1/gc` are the operator's (`admin`).

use http::{Method, Response, request::Parts};
use zimcache_types::{Function, Hash};

use crate::{
    Error,
    body::Body,
    cache::{Chunks as _, Named},
    call::Call,
    error::Result,
    respond, status,
    uploads::Put,
};

const METHODS: &str = "GET, HEAD, PUT, DELETE";

/// The hash, as in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let hash = path.strip_prefix("/api/v1/objects/")?;
    (!hash.contains('/')).then_some(Route(hash))
}

/// Reads the hash.
///
/// # Errors
/// [`Error::Hash`] when it is none.
pub(crate) fn parse_hash(Route(hash): Route<'_>) -> Result<Hash> {
    Ok(Hash::parse(Function::Sha256, hash)?)
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    let hash = parse_hash(route)?;
    match call.head.method {
        Method::PUT => {
            let named = Named::bare(hash, call.upload.announced_bytes());
            let stored = room.put_blob(&named, Put::default(), call.upload);
            stored.await.map(|()| respond::done())
        }
        Method::DELETE => Ok(respond::deleted(room.delete_blob(&hash).await?)),
        Method::GET | Method::HEAD => {
            let Some(reader) = room
                .open_blob(&Named::bare(hash, None), call.range())
                .await?
            else {
                return Ok(respond::miss());
            };
            let mut response = respond::value(&call, reader, route.0);
            respond::never_changes(&call, response.headers_mut());
            Ok(response)
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// Says no.
pub(crate) fn refuse(error: &Error, _head: &Parts) -> Response<Body> {
    status::refuse(error)
}
