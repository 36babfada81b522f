//! Protocol v1: reserve a number, send ranges of bytes, commit.
//!
//! The service that had it is gone; clients of older versions and of other forges still speak it. 204 for a miss is
//! its own contract. Not here: downloads, which are those of v2 (`blob`). Invariant: ranges must meet exactly; what
//! has a gap or an overlap is no entry.

use http::{Method, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zimcache_auth::Scope;
use zimcache_store::{self as store, EntryInfo, EntryMeta, Precondition};
use zimcache_types::{Code, EntryKind};

use super::{
    assemble::{self, MAX_PIECES},
    find,
    names::{Name, UploadId},
    now, signed_url,
};
use crate::{
    Error, body::Body, cache::Chunks, call::Call, error::Result, respond, room::Room, status,
};

/// How the paths begin.
pub(super) const SERVICE: &str = "/_apis/artifactcache/";
const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// Numbers tried before giving up; two uploads hardly ever get the same.
const TRIES: usize = 4;
const PAGE: usize = 1_000;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// `cache`: look-ups.
    Lookup,
    /// `caches`: reservations.
    Reservations,
    /// `caches/{number}`: an upload.
    Upload(u64),
}

impl Page {
    /// The page below [`SERVICE`].
    pub(super) fn named(below: &str) -> Option<Page> {
        match below {
            "cache" => Some(Page::Lookup),
            "caches" => Some(Page::Reservations),
            _ => below
                .strip_prefix("caches/")?
                .parse()
                .ok()
                .map(Page::Upload),
        }
    }
}

/// Answers a request.
pub(super) async fn answer(page: Page, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    match (page, &call.head.method) {
        (Page::Lookup, &Method::GET) => lookup(&call, &room).await,
        (Page::Lookup, _) => Ok(status::method_not_allowed("GET")),
        (Page::Reservations, &Method::POST) => reserve(call, &room).await,
        (Page::Reservations, _) => Ok(status::method_not_allowed("POST")),
        (Page::Upload(number), &Method::PATCH) => receive(number, call, &room).await,
        (Page::Upload(number), &Method::POST) => commit(number, call, &room).await,
        (Page::Upload(_), _) => Ok(status::method_not_allowed("PATCH, POST")),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    cache_key: String,
    archive_location: String,
}

/// Every key may be the beginning of a name; the first one is tried as a whole name before.
async fn lookup(call: &Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    room.require(Scope::Read)?;
    let value =
        |name| signed_url::parameter(call, name).ok_or(Error::Request("expected keys and version"));
    let (keys, version) = (value("keys")?, value("version")?);
    let keys: Vec<&str> = keys.split(',').map(str::trim).collect();
    let wanted = Name::new(&version, keys.first().copied().unwrap_or_default())?;
    let Some(cache_key) = find::find(room, wanted, keys.iter().copied()).await? else {
        return Ok(status::empty(StatusCode::NO_CONTENT));
    };
    let found = Name {
        key: &cache_key,
        ..wanted
    };
    let archive_location = signed_url::download(call, room.namespace(), found)?;
    Ok(respond::json(&Found {
        cache_key,
        archive_location,
    }))
}

#[derive(Debug, Deserialize)]
struct Reservation {
    key: String,
    version: String,
}

async fn reserve(call: Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    room.require(Scope::Write)?;
    let body = call.upload.read_within(MAX_REQUEST_BYTES).await?;
    let malformed = |_| Error::Request("expected a key and a version");
    let asked: Reservation = serde_json::from_slice(&body).map_err(malformed)?;
    let name = Name::new(&asked.version, &asked.key)?;
    if find::exists(room, name).await? {
        return Err(store::Error::Conflict.into());
    }
    super::sweep_sometimes(&call, room).await?;
    let number = take_number(room, name).await?;
    let mut response = respond::json(&json!({ "cacheId": number }));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// A number that no other upload has.
async fn take_number(room: &Room<'_>, name: Name<'_>) -> Result<u64> {
    for _ in 0..TRIES {
        let number = UploadId::new_number(now())?;
        let key = UploadId::of_number(number).name();
        match assemble::note(room, &key, name.text(), Precondition::Absent).await {
            Err(error) if error.code() == Code::Conflict => {}
            other => return other.map(|()| number),
        }
    }
    Err(store::Error::Retry("no number is free").into())
}

/// The name that was reserved under a number.
async fn reserved(room: &Room<'_>, id: &UploadId) -> Result<String> {
    let name = assemble::noted(room, &id.name()).await?;
    name.ok_or(Error::Request("no such upload is under way"))
}

async fn receive(number: u64, call: Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    room.require(Scope::Write)?;
    let id = UploadId::of_number(number);
    reserved(room, &id).await?;
    let range = call.head.headers.get(header::CONTENT_RANGE);
    let range = range
        .and_then(|range| range.to_str().ok())
        .and_then(parse_content_range);
    let (first, last) =
        range.ok_or(Error::Request("expected Content-Range: bytes first-last/*"))?;
    if call
        .upload
        .announced_bytes()
        .is_some_and(|length| length != last - first + 1)
    {
        return Err(Error::Request("Content-Range and Content-Length differ"));
    }
    let (kind, meta) = (EntryKind::ActionsBlock, EntryMeta::default());
    room.put_entry(kind, &id.block(&position(first)), meta, call.upload)
        .await?;
    Ok(status::empty(StatusCode::NO_CONTENT))
}

/// First and last position of a `Content-Range`; its total does not matter.
pub(crate) fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, _) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        text.bytes()
            .all(|c| c.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    let (first, last): (u64, u64) = (number(first)?, number(last)?);
    (first <= last && last < u64::MAX).then_some((first, last))
}

/// A position as text that sorts like the number.
fn position(first: u64) -> String {
    format!("{first:020}")
}

#[derive(Debug, Deserialize)]
struct Commit {
    size: u64,
}

async fn commit(number: u64, call: Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    room.require(Scope::Write)?;
    let body = call.upload.read_within(MAX_REQUEST_BYTES).await?;
    let malformed = |_| Error::Request("expected a size");
    let Commit { size } = serde_json::from_slice(&body).map_err(malformed)?;
    let id = UploadId::of_number(number);
    let text = reserved(room, &id).await?;
    let pieces = ranges(room, &id).await?;
    assemble::publish(room, Name::parse(&text)?, &pieces, Some(size)).await?;
    assemble::discard(room, &id, pieces).await?;
    Ok(status::empty(StatusCode::NO_CONTENT))
}

/// The keys of the ranges that came, in order.
async fn ranges(room: &Room<'_>, id: &UploadId) -> Result<Vec<String>> {
    let prefix = id.blocks();
    let (mut rows, mut end): (Vec<EntryInfo>, u64) = (Vec::new(), 0);
    loop {
        let after = rows.last().map(|row| row.text.clone());
        let page = room
            .list_entries(EntryKind::ActionsBlock, &prefix, after.as_deref(), PAGE)
            .await?;
        if page.is_empty() {
            break;
        }
        for row in &page {
            if row.text.strip_prefix(prefix.as_str()) != Some(&position(end)) {
                return Err(Error::Request("the ranges that came do not meet"));
            }
            end += row.size_bytes;
        }
        rows.extend(page);
        if rows.len() > MAX_PIECES {
            return Err(Error::Request("the upload has too many ranges"));
        }
    }
    Ok(rows.into_iter().map(|row| row.text.into()).collect())
}

/// Says no: the reason is a message in a JSON document.
pub(super) fn refuse(error: &Error) -> Response<Body> {
    let told = status::refuse(error);
    let text = status::message(error);
    let (parts, body) = respond::json(&json!({ "message": text.trim() })).into_parts();
    let mut response = told.map(|_| body);
    response.headers_mut().extend(parts.headers);
    response
}
