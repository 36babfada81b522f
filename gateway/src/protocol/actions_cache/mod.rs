//! GitHub Actions' cache service: sccache, BuildKit, `actions/cache` and what else runs in a job.
//!
//! Tried with sccache 0.19.0. Quirks: `docs/protocols/actions-cache.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry` | POST | v2: where to upload; 409 when the entry exists |
//! | `…/FinalizeCacheEntryUpload` | POST | v2: the upload becomes an entry |
//! | `…/GetCacheEntryDownloadURL` | POST | v2: where to download; `ok` is false when there is nothing |
//! | `/twirp/upload/{id}/blob?…` | PUT, HEAD | signed: the whole, or with `comp=` blocks and their list |
//! | `/twirp/download/blob?…` | GET, HEAD | signed: an entry, or a range of it |
//! | `/_apis/artifactcache/cache?keys=&version=` | GET | v1: where to download; 204 when there is nothing |
//! | `/_apis/artifactcache/caches` | POST | v1: a number to upload under; 409 when the entry exists |
//! | `/_apis/artifactcache/caches/{number}` | PATCH, POST | v1: a range of bytes; commit |
//!
//! An entry is never replaced: a key that exists is 409, which clients know as "already there". With `key` an entry is
//! found by its whole name, with `restore_keys` by how its name begins, the newest first; an entry of another
//! `version` never. URLs are signed for an hour and stand for the right to do one thing: storage clients send them no
//! credential. Behind `/ns/{namespace}` all of it is another namespace's, and the signed URLs name theirs.

mod assemble;
mod blob;
mod find;
pub(crate) mod names;
mod signed_url;
mod twirp;
mod v1;

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Response, request::Parts};
use quick_cache::sync::Cache;
use zimcache_store as store;
use zimcache_types::{Clock, Namespace, SystemClock, Timestamp};

pub(crate) use self::{
    names::UploadId,
    twirp::Procedure,
    v1::{Page, parse_content_range},
};
use crate::{
    Error, body::Body, call::Call, error::Result, request, room::Room, signing::SigningKey,
};

/// How long one sweep for unfinished uploads is enough in a namespace.
const SWEPT_FOR: Duration = Duration::from_hours(1);
/// Namespaces whose last sweep is remembered.
const SWEEPS: usize = 1_024;

/// What the requests of a gateway share.
#[derive(Debug)]
pub(crate) struct State {
    signing_key: ArcSwapOption<SigningKey>,
    swept: Cache<Namespace, Timestamp>,
}

impl Default for State {
    fn default() -> State {
        State {
            signing_key: ArcSwapOption::new(SigningKey::random().map(Arc::new)),
            swept: Cache::new(SWEEPS),
        }
    }
}

impl State {
    /// Signs with this key from now on; what another one signed holds no longer.
    pub(crate) fn set_signing_key(&self, key: SigningKey) {
        self.signing_key.store(Some(Arc::new(key)));
    }

    fn signing_key(&self) -> Result<Arc<SigningKey>> {
        let missing = store::Error::Retry("there is no key to sign URLs with");
        self.signing_key.load_full().ok_or(missing.into())
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A call of v2.
    Call(Procedure),
    /// An upload's signed URL.
    Upload(&'a str),
    /// A download's signed URL.
    Download,
    /// A page of v1.
    V1(Page),
}

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    if let Some(name) = path.strip_prefix(twirp::SERVICE) {
        return Procedure::named(name).map(Route::Call);
    }
    if let Some(below) = path.strip_prefix(v1::SERVICE) {
        return Page::named(below).map(Route::V1);
    }
    if path == signed_url::DOWNLOAD {
        return Some(Route::Download);
    }
    let id = path
        .strip_prefix(signed_url::UPLOAD)?
        .strip_suffix("/blob")?;
    (!id.contains('/')).then_some(Route::Upload(id))
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    match route {
        Route::Call(procedure) => twirp::answer(procedure, call).await,
        Route::Upload(id) => blob::upload(&UploadId::parse(id)?, call).await,
        Route::Download => blob::download(call).await,
        Route::V1(page) => v1::answer(page, call).await,
    }
}

/// Says no in the words of whoever is asked.
pub(crate) fn refuse(error: &Error, head: &Parts) -> Response<Body> {
    let path = request::collapse_slashes(head.uri.path());
    let below = request::split_namespace(&path).map_or("", |(_, below)| below);
    match routes(below) {
        Some(Route::Call(_)) => twirp::refuse(error),
        Some(Route::V1(_)) => v1::refuse(error),
        _ => crate::status::refuse(error),
    }
}

/// Drops unfinished uploads of a namespace, when that was not done lately.
async fn sweep_sometimes(call: &Call<'_>, room: &Room<'_>) -> Result<()> {
    let (swept, now) = (&call.shared.actions.swept, now());
    let last = swept.get(room.namespace());
    if last.is_some_and(|last| now.since(last) < SWEPT_FOR) {
        return Ok(());
    }
    swept.insert(room.namespace().clone(), now);
    assemble::sweep(room, now).await
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// The time as HTTP writes it.
fn http_date(time: Timestamp) -> Option<HeaderValue> {
    let time = UNIX_EPOCH + Duration::from_millis(time.0);
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}
