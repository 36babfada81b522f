//! ccache's HTTP storage (<https://ccache.dev/manual/latest.html>, "HTTP storage backend").
//!
//! Tried with ccache 4.7.5. Quirks per version: `docs/protocols/ccache.md`.
//!
//! | path below `/ccache` | layout | what |
//! | --- | --- | --- |
//! | `/{2 characters}/{rest of the key}` | `subdirs`, the default | GET, HEAD, PUT, DELETE of an object |
//! | `/{key}` | `flat` | the same |
//! | `/ac/{40 hex}{the first 24 of them again}` | `bazel` | the same |
//!
//! A key is 33 characters (`[0-9a-f]{4}[0-9a-v]{29}`, up to 4.12) or 40 hex digits (from 4.13). All layouts of one key
//! name one object. Values are opaque, also in the `bazel` layout. Never answer 204 to a GET: it counts as a hit.

use http::{Method, Response, request::Parts};
use zimcache_store::EntryMeta;
use zimcache_types::EntryKind;

use crate::{Error, body::Body, call::Call, error::Result, respond, status};

const METHODS: &str = "GET, HEAD, PUT, DELETE";
const MALFORMED: &str = "expected 33 characters or 40 hex digits in one of ccache's layouts";

/// The path below `/ccache/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let below = path.strip_prefix("/ccache/")?;
    let one_of_the_layouts = match below.split_once('/') {
        None => true,
        Some((start, rest)) => start.len() == 2 && !rest.contains('/'),
    };
    one_of_the_layouts.then_some(Route(below))
}

/// Reads the path in any layout: the key text.
///
/// # Errors
/// [`Error::Key`] when it is none.
pub(crate) fn parse_key(Route(path): Route<'_>) -> Result<String> {
    let key = match path.split_once('/') {
        None => path.to_owned(),
        Some(("ac", filled)) if filled.len() == 64 && is_hex(filled) => {
            return Ok(unfilled(filled).to_owned());
        }
        Some((start, rest)) => [start, rest].concat(),
    };
    if is_key(&key) {
        Ok(key)
    } else {
        Err(Error::Key(MALFORMED))
    }
}

/// The key of the `bazel` layout, which ccache fills up to the length of a SHA-256 hash with the key's own beginning.
/// Other 64 digits are a key of their own.
fn unfilled(filled: &str) -> &str {
    match filled.split_at_checked(40) {
        Some((key, filler)) if key.starts_with(filler) => key,
        _ => filled,
    }
}

fn is_key(text: &str) -> bool {
    let base32 = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'v');
    match text.split_at_checked(4) {
        Some((start, rest)) if text.len() == 33 => is_hex(start) && rest.bytes().all(base32),
        _ => text.len() == 40 && is_hex(text),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    let key = parse_key(route)?;
    match call.head.method {
        Method::PUT => {
            let stored = room.put_entry(EntryKind::Ccache, &key, EntryMeta::default(), call.upload);
            stored.await.map(|_| respond::done())
        }
        Method::DELETE => {
            let found = room.delete_entry(EntryKind::Ccache, &key).await?;
            Ok(respond::deleted(found))
        }
        Method::GET | Method::HEAD => {
            let found = room
                .open_entry(EntryKind::Ccache, &key, call.range())
                .await?;
            Ok(found.map_or_else(respond::miss, |entry| respond::entry(&call, entry)))
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// Says no: any status but 2xx is a miss or a failed write to ccache.
pub(crate) fn refuse(error: &Error, head: &Parts) -> Response<Body> {
    status::refuse_quietly(error, &head.method)
}
