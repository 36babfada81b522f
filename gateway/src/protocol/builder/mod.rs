//! Builder's remote cache (Builder, also known as bldr; its client has no public specification).
//!
//! Tried with an emulation of client 1.0. Quirks: `docs/protocols/builder.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/artifacts/{key}` | GET, HEAD, PUT, DELETE | an artifact, opaque but for its compression |
//!
//! A key is up to 256 letters, digits, dots, hyphens and underscores; its case is kept. The client compares header
//! names letter by letter, reads a body after HEAD when it is told a length, knows neither chunks nor redirects, and
//! never opens another connection when one was closed. So header names are written in Title-Case on its connections
//! ([`is_its_client`]), HEAD says length 0, GET always says its length, and connections are kept.
//!
//! A PUT answers 201, new or not: that is what its own server does, and telling the two apart would cost a look-up.
//! Keys are made from contents, so answers say `immutable`; but a key can be put again, so the entity tag names what
//! was put and not the key: else a client that asks "is it still this?" would keep what was replaced.
//!
//! The client compresses artifacts with zstd and fails to notice when it gets them back. To it they are given
//! unpacked; everybody else gets the bytes that were put.

mod unpacked;

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use zimcache_store::{ByteRange, Entry, EntryMeta};
use zimcache_types::{Clock, EntryKind, SystemClock};

use crate::{Error, body::Body, call::Call, error::Result, respond, room::Room, status};

const METHODS: &str = "GET, HEAD, PUT, DELETE";
/// Longest key in bytes.
const MAX_KEY: usize = 256;
/// How its client names itself, before the version.
const CLIENT: &[u8] = b"Builder/";
const VARY: HeaderValue = HeaderValue::from_static("Accept-Encoding, User-Agent");
const YEAR: Duration = Duration::from_hours(365 * 24);

/// The key, as in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let key = path.strip_prefix("/artifacts/")?;
    (!key.contains('/')).then_some(Route(key))
}

/// Reads the key.
///
/// # Errors
/// [`Error::Key`] when it is none.
pub(crate) fn parse_key(Route(key): Route<'_>) -> Result<&str> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    if (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(legal) {
        Ok(key)
    } else {
        Err(Error::Key(
            "expected up to 256 letters, digits, '.', '_' and '-'",
        ))
    }
}

/// Whether a connection that begins with these bytes is one of its client, or of somebody who asks for artifacts.
pub(crate) fn is_its_client(first: &[u8]) -> bool {
    let mut lines = first.split(|c| *c == b'\n');
    let target = lines
        .next()
        .and_then(|line| line.split(|c| *c == b' ').nth(1));
    let asks_for_artifacts = target.is_some_and(|target| {
        let below = target.strip_prefix(b"/ns/").map(|rest| {
            let end = rest.iter().position(|c| *c == b'/');
            &rest[end.unwrap_or(rest.len())..]
        });
        below.unwrap_or(target).starts_with(b"/artifacts/")
    });
    asks_for_artifacts || lines.any(names_its_client)
}

fn names_its_client(line: &[u8]) -> bool {
    const NAME: &[u8] = b"user-agent:";
    let Some((name, value)) = line.split_at_checked(NAME.len()) else {
        return false;
    };
    name.eq_ignore_ascii_case(NAME) && value.trim_ascii_start().starts_with(CLIENT)
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    let key = parse_key(route)?;
    match call.head.method {
        Method::PUT => {
            let meta = EntryMeta::default();
            room.put_entry(EntryKind::Builder, key, meta, call.upload)
                .await?;
            Ok(status::empty(StatusCode::CREATED))
        }
        Method::DELETE => {
            let found = room.delete_entry(EntryKind::Builder, key).await?;
            Ok(respond::deleted(found))
        }
        Method::HEAD => {
            let found = room
                .open_entry(EntryKind::Builder, key, ByteRange::Full)
                .await?;
            Ok(found.map_or_else(respond::miss, |entry| present(&call, entry)))
        }
        Method::GET if comes_from_its_client(call.head) => unpacked(&call, &room, key).await,
        Method::GET => {
            let found = room
                .open_entry(EntryKind::Builder, key, call.range())
                .await?;
            Ok(found.map_or_else(respond::miss, |entry| {
                described(&call, respond::entry(&call, entry))
            }))
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// Says no. Its client takes everything below 400 for success, and nothing here is.
pub(crate) fn refuse(error: &Error, _head: &Parts) -> Response<Body> {
    status::refuse(error)
}

fn comes_from_its_client(head: &Parts) -> bool {
    let agent = head.headers.get(header::USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(CLIENT))
}

/// What its client gets: the artifact as it was before the client compressed it.
async fn unpacked(call: &Call<'_>, room: &Room<'_>, key: &str) -> Result<Response<Body>> {
    let found = room
        .open_entry(EntryKind::Builder, key, ByteRange::Full)
        .await?;
    let Some(entry) = found else {
        return Ok(respond::miss());
    };
    let packed = unpacked::Packed { room, key, entry };
    let shared = call.shared;
    let limit = shared.config.max_blob_size.as_u64();
    let Some(entry) = packed.unpack(&shared.unpackings, limit).await? else {
        return Ok(respond::miss());
    };
    let etag = format!("{:x}-unpacked", entry.version);
    Ok(described(call, respond::value(call, entry.value, &etag)))
}

/// The answer to a HEAD: its client would wait for a body of any length that is told.
fn present(call: &Call<'_>, entry: Entry) -> Response<Body> {
    const NOTHING: HeaderValue = HeaderValue::from_static("0");
    let mut response = described(call, respond::entry(call, entry));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, NOTHING);
    response
}

/// Adds what caches in between should know.
fn described(call: &Call<'_>, mut response: Response<Body>) -> Response<Body> {
    let headers: &mut HeaderMap = response.headers_mut();
    respond::never_changes(call, headers);
    headers.insert(header::VARY, VARY);
    let until = UNIX_EPOCH + Duration::from_millis(SystemClock.now().plus(YEAR).0);
    if let Ok(until) = HeaderValue::try_from(httpdate::fmt_http_date(until)) {
        headers.insert(header::EXPIRES, until);
    }
    response
}
