//! Metro's remote cache, as Plasma serves it (<https://metrobundler.dev/docs/caching/>, "Remote caching").
//!
//! Tried with no version of Metro yet, only by wire tests of what its HTTP store sends. Quirks: none.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/api/v1/artifacts/{key}` | GET, HEAD, PUT, DELETE | an artifact, opaque |
//! | `/api/v1/artifacts?limit=&offset=` | GET | keys in order, a page at a time |
//!
//! A key is up to 128 hex digits, its case kept. A PUT answers 200 and replaces what was there.

use http::{Method, Response, request::Parts};
use serde::Serialize;
use zimcache_store::{EntryInfo, EntryMeta};
use zimcache_types::EntryKind;

use crate::{Error, body::Body, call::Call, error::Result, respond, room::Room, status};

const METHODS: &str = "GET, HEAD, PUT, DELETE";
/// Longest key in digits.
const MAX_KEY: usize = 128;
/// Artifacts on a page, unless asked for otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// How far into the list a page may begin: everything before it has to be gone through.
const MAX_OFFSET: usize = 100_000;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// The list.
    List,
    /// An artifact, by its key as in the path.
    Artifact(&'a str),
}

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let below = path.strip_prefix("/api/v1/artifacts")?;
    if below.is_empty() {
        return Some(Route::List);
    }
    let key = below.strip_prefix('/')?;
    (!key.contains('/')).then_some(Route::Artifact(key))
}

/// Reads a key.
///
/// # Errors
/// [`Error::Key`] when it is none.
pub(crate) fn parse_key(key: &str) -> Result<&str> {
    if (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_hexdigit()) {
        Ok(key)
    } else {
        Err(Error::Key("expected up to 128 hex digits"))
    }
}

/// Reads which part of the list is wanted: where it begins, and how long it is.
///
/// # Errors
/// [`Error::Request`] when a number is none or too large.
pub(crate) fn parse_page(query: &str) -> Result<(usize, usize)> {
    let (mut offset, mut limit) = (0, PAGE);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let digits = value.bytes().all(|c| c.is_ascii_digit());
        let number = || value.parse().ok().filter(|_| digits);
        match name {
            "offset" => {
                let known = number().filter(|offset| *offset <= MAX_OFFSET);
                offset = known.ok_or(Error::Request("offset goes from 0 to 100000"))?;
            }
            "limit" => {
                let known = number().filter(|limit| (1..=MAX_PAGE).contains(limit));
                limit = known.ok_or(Error::Request("limit goes from 1 to 1000"))?;
            }
            _ => {}
        }
    }
    Ok((offset, limit))
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    match route {
        Route::List if call.head.method == Method::GET => list(&call, &room).await,
        Route::List => Ok(status::method_not_allowed("GET")),
        Route::Artifact(key) => artifact(parse_key(key)?, call, &room).await,
    }
}

async fn artifact(key: &str, call: Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    match call.head.method {
        Method::PUT => {
            let stored = room.put_entry(EntryKind::Metro, key, EntryMeta::default(), call.upload);
            stored.await.map(|_| respond::done())
        }
        Method::DELETE => {
            let found = room.delete_entry(EntryKind::Metro, key).await?;
            Ok(respond::deleted(found))
        }
        Method::GET | Method::HEAD => {
            let found = room.open_entry(EntryKind::Metro, key, call.range()).await?;
            Ok(found.map_or_else(respond::miss, |entry| respond::entry(&call, entry)))
        }
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

/// A page of the list.
#[derive(Debug, Serialize)]
struct Page {
    artifacts: Vec<Row>,
    offset: usize,
    limit: usize,
}

#[derive(Debug, Serialize)]
struct Row {
    hash: Box<str>,
    size_bytes: u64,
    created_millis: u64,
}

impl From<EntryInfo> for Row {
    fn from(info: EntryInfo) -> Row {
        Row {
            hash: info.text,
            size_bytes: info.size_bytes,
            created_millis: info.created.0,
        }
    }
}

async fn list(call: &Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    let (offset, limit) = parse_page(call.head.uri.query().unwrap_or_default())?;
    let (mut skip, mut after): (usize, Option<Box<str>>) = (offset, None);
    while skip > 0 {
        let step = skip.min(MAX_PAGE);
        let rows = rows(room, after.as_deref(), step).await?;
        skip = if rows.len() < step { 0 } else { skip - step };
        after = rows.last().map(|row| row.text.clone()).or(after);
    }
    let artifacts = rows(room, after.as_deref(), limit).await?;
    Ok(respond::json(&Page {
        artifacts: artifacts.into_iter().map(Row::from).collect(),
        offset,
        limit,
    }))
}

async fn rows(room: &Room<'_>, after: Option<&str>, limit: usize) -> Result<Vec<EntryInfo>> {
    room.list_entries(EntryKind::Metro, "", after, limit).await
}

/// Says no: to Metro's store any status but 200 and 404 is a warning.
pub(crate) fn refuse(error: &Error, _head: &Parts) -> Response<Body> {
    status::refuse(error)
}
