//! What storage clients do with signed URLs: the part of Azure's block blobs that they need.
//!
//! An upload comes whole, or as blocks in any order and at once, and then the list of them; a download may be of a
//! part. Not here: who gets such a URL (`twirp`, `v1`), when an upload becomes an entry (`assemble`).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use zimcache_auth::Scope;
use zimcache_store::{EntryMeta, Precondition, Reader};
use zimcache_types::{EntryKind, Timestamp};

use super::{
    assemble::{self, MAX_LIST_BYTES, MAX_PIECES},
    http_date,
    names::{self, Name, UploadId},
    signed_url,
};
use crate::{Error, body::Body, call::Call, error::Result, respond, room::Room, status};

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const BLOCK_BLOB: HeaderValue = HeaderValue::from_static("BlockBlob");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const RANGE: HeaderName = HeaderName::from_static("x-ms-range");
/// The version of Azure's interface that is told to clients that name none.
const OUR_VERSION: HeaderValue = HeaderValue::from_static("2021-12-02");

/// Answers a request to an upload's URL.
pub(super) async fn upload(id: &UploadId, call: Call<'_>) -> Result<Response<Body>> {
    let room = signed_url::room(&call, Scope::Write, id.as_str())?;
    match call.head.method {
        Method::PUT => put(id, &room, call).await,
        Method::HEAD => {
            let whole = assemble::open(&room, &id.whole()).await?;
            Ok(whole.map_or_else(respond::miss, |whole| sized(&whole)))
        }
        _ => Ok(status::method_not_allowed("PUT, HEAD")),
    }
}

async fn put(id: &UploadId, room: &Room<'_>, call: Call<'_>) -> Result<Response<Body>> {
    let head = call.head;
    let (kind, meta) = (EntryKind::ActionsBlock, EntryMeta::default());
    let comp = signed_url::parameter(&call, "comp");
    let version = match comp.as_deref() {
        None => {
            let blob_type = head.headers.get(BLOB_TYPE);
            if blob_type.is_some_and(|kind| kind != BLOCK_BLOB) {
                return Err(Error::Request("only block blobs are known"));
            }
            let version = room.put_entry(kind, &id.whole(), meta, call.upload).await?;
            room.delete_entry(kind, &id.list()).await?;
            version
        }
        Some("block") => {
            let block = signed_url::parameter(&call, "blockid");
            let block = block.ok_or(Error::Request("a block needs a blockid"))?;
            names::check_block(&block)?;
            room.put_entry(kind, &id.block(&block), meta, call.upload)
                .await?
        }
        Some("blocklist") => put_list(id, room, call).await?,
        Some(_) => return Err(Error::Request("only block and blocklist are known")),
    };
    Ok(created(&head.headers, version))
}

/// Keeps the order of the blocks, all of which must have come.
async fn put_list(id: &UploadId, room: &Room<'_>, call: Call<'_>) -> Result<u64> {
    let body = call.upload.read_within(MAX_LIST_BYTES).await?;
    let text =
        std::str::from_utf8(&body).map_err(|_| Error::Request("the block list is no text"))?;
    let blocks = names::parse_block_list(text, MAX_PIECES)?;
    for block in &blocks {
        if assemble::open(room, &id.block(block)).await?.is_none() {
            return Err(Error::Request("the list names a block that was not sent"));
        }
    }
    let list = blocks.join("\n");
    assemble::note(room, &id.list(), list, Precondition::None).await?;
    room.delete_entry(EntryKind::ActionsBlock, &id.whole())
        .await?;
    Ok(blocks.len() as u64)
}

/// Answers a request to a download's URL.
pub(super) async fn download(call: Call<'_>) -> Result<Response<Body>> {
    let key = signed_url::parameter(&call, "key").ok_or(Error::BadSignature)?;
    let room = signed_url::room(&call, Scope::Read, &key)?;
    let name = Name::parse(&key)?;
    if !matches!(call.head.method, Method::GET | Method::HEAD) {
        return Ok(status::method_not_allowed("GET, HEAD"));
    }
    // Azure's clients name the range in a header of their own.
    let mut head = call.head.clone();
    if let Some(range) = head.headers.remove(RANGE) {
        head.headers.insert(header::RANGE, range);
    }
    let call = Call {
        head: &head,
        ..call
    };
    let found = room
        .open_entry(EntryKind::ActionsCache, &name.text(), call.range())
        .await?;
    let Some(entry) = found else {
        return Ok(respond::miss());
    };
    let (version, put_at) = (entry.version, entry.created);
    let mut response = respond::entry(&call, entry);
    describe(&head.headers, response.headers_mut(), version, put_at);
    Ok(response)
}

/// 201: a block, a list or a whole is stored.
fn created(asked: &HeaderMap, version: u64) -> Response<Body> {
    let mut response = status::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::try_from(format!("\"{version:x}\"")) {
        headers.insert(header::ETAG, etag);
    }
    describe(asked, headers, version, super::now());
    response
}

fn sized(whole: &Reader) -> Response<Body> {
    let mut response = respond::done();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_LENGTH,
        HeaderValue::from(whole.total_bytes()),
    );
    headers.insert(BLOB_TYPE, BLOCK_BLOB);
    response
}

/// What Azure's clients expect to be told.
fn describe(asked: &HeaderMap, headers: &mut HeaderMap, version: u64, put_at: Timestamp) {
    headers.insert(BLOB_TYPE, BLOCK_BLOB);
    if let Some(date) = http_date(put_at) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    if let Ok(id) = HeaderValue::try_from(format!("{version:032x}")) {
        headers.insert(REQUEST_ID, id);
    }
    let spoken = asked.get(VERSION).cloned();
    headers.insert(VERSION, spoken.unwrap_or(OUR_VERSION));
}
