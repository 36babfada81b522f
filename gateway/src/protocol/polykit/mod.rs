//! Polykit's artifacts (crate `polykit-core`; the published server is `polykit-cache`).
//!
//! Tried with polykit-core 0.2.0. Quirks: `docs/protocols/polykit.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/v1/artifacts/{key}` | GET, HEAD | the artifact, `x-artifact-hash` is the SHA-256 of its bytes |
//! | | PUT | 201; 409 when there is one, 413 too large, 422 no artifact or made for another key |
//!
//! A key is 32 to 128 hex digits, its case kept. Artifacts never change and are verified while they come: a body is a
//! zstd of a tar archive that has exactly the files its manifest lists, and the key in its metadata. Errors are JSON
//! with one member, `error`. An artifact may be as large as any other value, and unpack to 16 times as much.
//!
//! The hash is known when the body ended, after the metadata of its entry was written. So it is a record of its own
//! beside the entry, `{key}.sha256`, which names the version it is of; when it is not there or of another version, the
//! artifact is hashed again.

pub(crate) mod tar;
pub(crate) mod verify;

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use serde_json::json;
use zimcache_auth::Scope;
use zimcache_store::{self as store, ByteRange, Entry, EntryMeta, Precondition};
use zimcache_types::{Code, EntryKind, Function, digest::Hasher};

use self::verify::Verified;
use crate::{
    Error,
    body::{Body, Held},
    call::Call,
    error::Result,
    respond,
    room::Room,
    status,
};

const METHODS: &str = "GET, HEAD, PUT";
const ZSTD: HeaderValue = HeaderValue::from_static("application/zstd");
const HASH: HeaderName = HeaderName::from_static("x-artifact-hash");
/// How much larger than the largest value what is inside may be.
const UNPACKED_RATIO: u64 = 16;
/// Longest record of a hash.
const MAX_NOTE_BYTES: u64 = 256;

/// The key, as in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    let key = path.strip_prefix("/v1/artifacts/")?;
    (!key.contains('/')).then_some(Route(key))
}

/// Reads the key.
///
/// # Errors
/// [`Error::Key`] when it is none.
pub(crate) fn parse_key(Route(key): Route<'_>) -> Result<&str> {
    if (32..=128).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_hexdigit()) {
        Ok(key)
    } else {
        Err(Error::Key("expected 32 to 128 hex digits"))
    }
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let room = call.room().await?;
    let key = parse_key(route)?;
    match call.head.method {
        Method::PUT => put(key, call, &room).await,
        Method::GET | Method::HEAD => get(key, &call, &room).await,
        _ => Ok(status::method_not_allowed(METHODS)),
    }
}

async fn put(key: &str, call: Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    let kind = EntryKind::Polykit;
    room.require(Scope::Write)?;
    if room.open_entry(kind, key, ByteRange::Full).await?.is_some() {
        return Err(store::Error::Conflict.into());
    }
    let shared = call.shared;
    let limit = shared
        .config
        .max_blob_size
        .as_u64()
        .saturating_mul(UNPACKED_RATIO);
    let mut artifact = Verified::begin(call.upload, key, limit, &shared.unpackings).await?;
    let (meta, absent) = (EntryMeta::default(), Precondition::Absent);
    let version = room
        .put_entry_if(kind, key, meta, absent, &mut artifact)
        .await?;
    if let Some(hash) = artifact.hash() {
        let mut note = Held::new(format!("{version:x} {hash}"));
        room.put_entry(kind, &note_key(key), EntryMeta::default(), &mut note)
            .await?;
    }
    Ok(status::empty(StatusCode::CREATED))
}

async fn get(key: &str, call: &Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    let found = room
        .open_entry(EntryKind::Polykit, key, call.range())
        .await?;
    let Some(entry) = found else {
        return Ok(miss(&call.head.method));
    };
    let hash = match noted_hash(room, key, entry.version).await? {
        Some(hash) => hash,
        None => hash_again(room, key, &entry).await?,
    };
    let mut response = respond::entry(call, entry);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, ZSTD);
    if let Ok(hash) = HeaderValue::try_from(hash) {
        headers.insert(HASH, hash);
    }
    Ok(response)
}

fn note_key(key: &str) -> String {
    format!("{key}.sha256")
}

/// The hash that was noted for this version.
async fn noted_hash(room: &Room<'_>, key: &str, version: u64) -> Result<Option<String>> {
    let note = room
        .open_entry(EntryKind::Polykit, &note_key(key), ByteRange::Full)
        .await?;
    let Some(note) = note else {
        return Ok(None);
    };
    let note = note.value.read_all(MAX_NOTE_BYTES).await?;
    let version = format!("{version:x} ");
    let hash = note.strip_prefix(version.as_bytes());
    Ok(hash.map(|hash| String::from_utf8_lossy(hash).into_owned()))
}

async fn hash_again(room: &Room<'_>, key: &str, entry: &Entry) -> Result<String> {
    let changed = || Error::Store(store::Error::Retry("the artifact was replaced meanwhile"));
    let again = room
        .open_entry(EntryKind::Polykit, key, ByteRange::Full)
        .await?;
    let again = again.filter(|again| again.version == entry.version);
    let mut value = again.ok_or_else(changed)?.value;
    let mut hasher = Hasher::new(Function::Sha256);
    while let Some(chunk) = value.next_chunk().await {
        hasher.update(&chunk?);
    }
    Ok(hasher.finish().to_hex())
}

fn miss(method: &Method) -> Response<Body> {
    let mut response = if *method == Method::HEAD {
        respond::done()
    } else {
        respond::json(&json!({ "error": "Artifact not found" }))
    };
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Says no: a JSON document with one member. A body that is no artifact is 422.
pub(crate) fn refuse(error: &Error, _head: &Parts) -> Response<Body> {
    let mut told = status::refuse(error);
    match (error, error.code()) {
        (_, Code::NotFound) => return told,
        (Error::Artifact(_), _) => *told.status_mut() = StatusCode::UNPROCESSABLE_ENTITY,
        _ => {}
    }
    let text = status::message(error);
    let (parts, body) = respond::json(&json!({ "error": text.trim() })).into_parts();
    let mut response = told.map(|_| body);
    response.headers_mut().extend(parts.headers);
    response
}
