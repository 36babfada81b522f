//! Turborepo's remote cache (<https://turborepo.dev/docs/openapi/artifacts>).
//!
//! Tried with turbo 2.11.11. Quirks: `docs/protocols/turborepo.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/v8/artifacts/{hash}` | GET, HEAD, PUT, DELETE | a task's outputs, opaque, with the headers `x-artifact-…` that came with them |
//! | `/v8/artifacts` | POST | sizes and durations of many artifacts at once |
//! | `/v8/artifacts/status` | GET | whether caching is enabled: always |
//! | `/v8/artifacts/events` | POST | what a run hit and missed; taken and let go |
//! | any of these | OPTIONS | turbo's preflight, without credentials |
//! | `/v2/user`, `/v2/teams`, `/v5/user/tokens/current` | GET | what `turbo login` and `turbo link` ask |
//!
//! The namespace is the team: `teamId`, `slug`, or `{teamId}/{slug}` when both are given; without a team, or with one
//! called `default`, the caller's own. turbo never fails a build, but stops asking: a 403 must be JSON whose code is `forbidden`, which stops uploads
//! and keeps reads; a preflight that does not allow `Authorization` makes it leave the token out. Signatures
//! (`x-artifact-tag`) are the client's: they are stored and given back.

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zimcache_auth::Scope;
use zimcache_store::{Entry, EntryMeta};
use zimcache_types::{EntryKind, Namespace};

use crate::{Error, body::Body, call::Call, error::Result, respond, room::Room, status};

const ARTIFACT_METHODS: &str = "GET, HEAD, PUT, DELETE, OPTIONS";
/// Longest hash of a task; turbo's have 16 characters.
const MAX_HASH_LEN: usize = 128;
/// Most hashes of one query.
const MAX_QUERY_HASHES: usize = 4096;
/// Largest body of a query or a report.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// Look-ups of one query that run at once.
const QUERY_LOOKUPS: usize = 16;

const TAG: HeaderName = HeaderName::from_static("x-artifact-tag");
const DURATION: HeaderName = HeaderName::from_static("x-artifact-duration");
/// What comes with an artifact and goes with it.
const ECHOED: [HeaderName; 4] = [
    TAG,
    DURATION,
    HeaderName::from_static("x-artifact-sha"),
    HeaderName::from_static("x-artifact-dirty-hash"),
];

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Artifact(&'a str),
    Query,
    Status,
    Events,
    User,
    Teams,
    Token,
}

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    match path {
        "/v8/artifacts" | "/v8/artifacts/" => Some(Route::Query),
        "/v8/artifacts/status" => Some(Route::Status),
        "/v8/artifacts/events" => Some(Route::Events),
        "/v2/user" => Some(Route::User),
        "/v2/teams" => Some(Route::Teams),
        "/v5/user/tokens/current" => Some(Route::Token),
        _ => {
            let hash = path.strip_prefix("/v8/artifacts/")?;
            (!hash.contains('/')).then_some(Route::Artifact(hash))
        }
    }
}

impl Route<'_> {
    const fn methods(self) -> &'static str {
        match self {
            Route::Artifact(_) => ARTIFACT_METHODS,
            Route::Query | Route::Events => "POST, OPTIONS",
            Route::Status | Route::User | Route::Teams | Route::Token => "GET, OPTIONS",
        }
    }

    fn allows(self, method: &Method) -> bool {
        let mut known = self.methods().split(", ");
        known.any(|known| known == method.as_str())
    }
}

/// Reads the namespace that a query string names.
///
/// # Errors
/// [`Error::Namespace`] when a team's name is none.
pub(crate) fn parse_team(query: &str) -> Result<Option<Namespace>> {
    let (mut id, mut slug) = (None, None);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((_, "")) => {}
            Some(("teamId", value)) => id = Some(value),
            Some(("slug", value)) => slug = Some(value),
            _ => {}
        }
    }
    let name = match (id, slug) {
        (None, None) => return Ok(None),
        (Some(one), None) | (None, Some(one)) => percent_decode_str(one).collect(),
        (Some(id), Some(slug)) => {
            let mut name: Vec<u8> = percent_decode_str(id).collect();
            name.push(b'/');
            name.extend(percent_decode_str(slug));
            name
        }
    };
    let team = Namespace::new(&String::from_utf8_lossy(&name))?;
    // turbo cannot leave the team out: who has none says `default`, and means its own.
    Ok((team != Namespace::default()).then_some(team))
}

/// Reads a hash.
///
/// # Errors
/// [`Error::Key`] when it is none.
pub(crate) fn parse_hash(hash: &str) -> Result<&str> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    if (1..=MAX_HASH_LEN).contains(&hash.len()) && hash.bytes().all(legal) {
        Ok(hash)
    } else {
        Err(Error::Key("expected 1 to 128 of A-Z a-z 0-9 _ -"))
    }
}

/// What turbo wants to know of many artifacts.
#[derive(Debug, Deserialize)]
pub(crate) struct Query {
    pub(crate) hashes: Vec<String>,
}

/// Reads the body of a query.
///
/// # Errors
/// [`Error::Request`] when it is none or asks for too much.
pub(crate) fn parse_query(body: &[u8]) -> Result<Query> {
    let query: Query = serde_json::from_slice(body)
        .map_err(|_| Error::Request("expected {\"hashes\": [text, …]}"))?;
    if query.hashes.len() > MAX_QUERY_HASHES {
        return Err(Error::Request("more than 4096 hashes at once"));
    }
    Ok(query)
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    if call.head.method == Method::OPTIONS {
        return Ok(preflight());
    }
    let team = parse_team(call.head.uri.query().unwrap_or_default());
    let room = call.room_of(team?).await?;
    if !route.allows(&call.head.method) {
        return Ok(status::method_not_allowed(route.methods()));
    }
    match route {
        Route::Artifact(hash) => artifact(call, &room, parse_hash(hash)?).await,
        Route::Query => query(call, &room).await,
        Route::Status => Ok(respond::json(&json!({ "status": "enabled" }))),
        Route::Events => events(call, &room).await,
        Route::User => user(&call).await,
        Route::Teams => Ok(respond::json(&json!({ "teams": [] }))),
        Route::Token => token(&call).await,
    }
}

async fn artifact(call: Call<'_>, room: &Room<'_>, hash: &str) -> Result<Response<Body>> {
    match call.head.method {
        Method::PUT => {
            let meta = meta_of(call.head)?;
            room.put_entry(EntryKind::Turborepo, hash, meta, call.upload)
                .await?;
            Ok(respond::json(&json!({ "urls": [call.head.uri.path()] })))
        }
        Method::DELETE => {
            let found = room.delete_entry(EntryKind::Turborepo, hash).await?;
            Ok(respond::deleted(found))
        }
        _ => {
            let found = room.open_entry(EntryKind::Turborepo, hash, call.range());
            let found = found.await?;
            Ok(found.map_or_else(respond::miss, |entry| with_meta(&call, entry)))
        }
    }
}

/// What is kept of a PUT's headers.
fn meta_of(head: &Parts) -> Result<EntryMeta> {
    let mut client = Vec::new();
    for name in ECHOED {
        let Some(value) = head.headers.get(&name) else {
            continue;
        };
        let value = value.to_str();
        let value = value.map_err(|_| Error::Request("a header x-artifact-… is no text"))?;
        if name == DURATION && value.parse::<u64>().is_err() {
            let refused = "x-artifact-duration is no number of milliseconds";
            return Err(Error::Request(refused));
        }
        client.push((name.as_str().into(), value.into()));
    }
    Ok(EntryMeta {
        content_type: None,
        client,
    })
}

/// An artifact with the headers that came with it.
fn with_meta(call: &Call<'_>, mut entry: Entry) -> Response<Body> {
    let kept = std::mem::take(&mut entry.meta.client);
    let mut response = respond::entry(call, entry);
    for (name, value) in kept {
        let name = HeaderName::try_from(&*name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(&*value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// What a query says of one artifact.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    size: u64,
    task_duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<Box<str>>,
}

async fn query(call: Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    room.require(Scope::Read)?;
    let body = call.upload.read_within(MAX_REQUEST_BYTES).await?;
    let Query { hashes } = parse_query(&body)?;
    let mut answers = Map::with_capacity(hashes.len());
    for some in hashes.chunks(QUERY_LOOKUPS) {
        let found = join_all(some.iter().map(|hash| look_up(room, hash))).await;
        for (hash, found) in some.iter().zip(found) {
            answers.insert(hash.clone(), json!(found?));
        }
    }
    Ok(respond::json(&Value::Object(answers)))
}

/// What is known of one artifact; `None` when it is absent, and for what is no hash.
async fn look_up(room: &Room<'_>, hash: &str) -> Result<Option<Found>> {
    let Ok(hash) = parse_hash(hash) else {
        return Ok(None);
    };
    let Some(entry) = room.peek_entry(EntryKind::Turborepo, hash).await? else {
        return Ok(None);
    };
    let kept = |name: HeaderName| {
        let mut pairs = entry.meta.client.iter();
        pairs.find_map(|(known, value)| (**known == *name.as_str()).then_some(value))
    };
    Ok(Some(Found {
        size: entry.value.total_bytes(),
        task_duration_ms: kept(DURATION).map_or(0, |text| text.parse().unwrap_or(0)),
        tag: kept(TAG).cloned(),
    }))
}

async fn events(call: Call<'_>, room: &Room<'_>) -> Result<Response<Body>> {
    room.require(Scope::Read)?;
    call.upload.read_within(MAX_REQUEST_BYTES).await?;
    Ok(respond::json(&json!({})))
}

async fn user(call: &Call<'_>) -> Result<Response<Body>> {
    let principal = call.principal().await?;
    let name = &**principal.name();
    let user = json!({ "id": name, "username": name, "email": "", "name": name });
    Ok(respond::json(&json!({ "user": user })))
}

async fn token(call: &Call<'_>) -> Result<Response<Body>> {
    let principal = call.principal().await?;
    let name = &**principal.name();
    let scope = json!({ "type": "user", "origin": "manual", "createdAt": 0 });
    let token = json!({
        "id": name,
        "name": name,
        "type": "token",
        "origin": "manual",
        "scopes": [scope],
        "activeAt": 0,
        "createdAt": 0,
    });
    Ok(respond::json(&json!({ "token": token })))
}

/// turbo sends its token only where this names `Authorization`.
fn preflight() -> Response<Body> {
    const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE, OPTIONS");
    const HEADERS: HeaderValue = HeaderValue::from_static(
        "Authorization, Content-Type, User-Agent, x-artifact-duration, x-artifact-tag, \
         x-artifact-sha, x-artifact-dirty-hash, x-artifact-client-ci",
    );
    let mut response = status::empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    response
}

/// Says no as JSON: turbo reads the code of a 403.
pub(crate) fn refuse(error: &Error, _head: &Parts) -> Response<Body> {
    let told = status::refuse(error);
    if told.status() == StatusCode::NOT_FOUND {
        return told;
    }
    let error = json!({ "code": error.code().as_str(), "message": status::message(error).trim() });
    let (parts, body) = respond::json(&json!({ "error": error })).into_parts();
    let mut response = told.map(|_| body);
    response.headers_mut().extend(parts.headers);
    response
}
