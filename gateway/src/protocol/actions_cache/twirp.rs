//! Protocol v2: three calls by Twirp, in protocol buffers or JSON.
//!
//! Create gives a URL to upload to, Finalize makes the upload an entry, Get gives a URL to download from. Not here: the
//! URLs (`signed_url`) and what is done with them (`blob`). Invariant: an entry is not found before its Finalize.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use zimcache_auth::Scope;
use zimcache_proto::{
    Message,
    actions::{
        CreateCacheEntryRequest, CreateCacheEntryResponse, FinalizeCacheEntryUploadRequest,
        FinalizeCacheEntryUploadResponse, GetCacheEntryDownloadUrlRequest,
        GetCacheEntryDownloadUrlResponse,
    },
};
use zimcache_store::{self as store, ByteRange, Precondition};
use zimcache_types::{Code, EntryKind};

use super::{
    assemble, find,
    names::{Name, UploadId},
    now, signed_url,
};
use crate::{Error, body::Body, call::Call, error::Result, respond, room::Room, status};

/// How the paths begin.
pub(super) const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
/// Largest request.
const MAX_REQUEST_BYTES: u64 = 64 << 10;
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Procedure {
    /// Asks where to upload.
    Create,
    /// Says that it is uploaded.
    Finalize,
    /// Asks where to download.
    Get,
}

impl Procedure {
    /// The call of this name.
    pub(super) fn named(name: &str) -> Option<Procedure> {
        match name {
            "CreateCacheEntry" => Some(Procedure::Create),
            "FinalizeCacheEntryUpload" => Some(Procedure::Finalize),
            "GetCacheEntryDownloadURL" => Some(Procedure::Get),
            _ => None,
        }
    }
}

/// How messages are written.
#[derive(Debug, Clone, Copy)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    fn of(head: &Parts) -> Result<Form> {
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let text = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        match text.split(';').next().unwrap_or_default().trim() {
            "application/json" => Ok(Form::Json),
            "application/protobuf" => Ok(Form::Protobuf),
            _ => Err(Error::Request(
                "expected application/json or application/protobuf",
            )),
        }
    }

    fn read<T: Message + Default + DeserializeOwned>(self, body: &[u8]) -> Result<T> {
        let malformed = Error::Request("it is no message of this call");
        match self {
            Form::Protobuf => T::decode(body).map_err(|_| malformed),
            // An array of the right values would be read as a message, too.
            Form::Json if !body.trim_ascii_start().starts_with(b"{") => Err(malformed),
            Form::Json => serde_json::from_slice(body).map_err(|_| malformed),
        }
    }

    fn write(self, message: &(impl Message + Serialize)) -> Response<Body> {
        match self {
            Form::Json => respond::json(message),
            Form::Protobuf => {
                let body = Bytes::from(message.encode_to_vec());
                let mut response = Response::new(Body::full(body));
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, PROTOBUF);
                response
            }
        }
    }
}

/// Answers a call.
pub(super) async fn answer(procedure: Procedure, call: Call<'_>) -> Result<Response<Body>> {
    if call.head.method != Method::POST {
        return Ok(status::method_not_allowed("POST"));
    }
    let room = call.room().await?;
    room.require(match procedure {
        Procedure::Create | Procedure::Finalize => Scope::Write,
        Procedure::Get => Scope::Read,
    })?;
    let form = Form::of(call.head)?;
    let body = call.upload.read_within(MAX_REQUEST_BYTES).await?;
    match procedure {
        Procedure::Create => Ok(form.write(&create(&call, &room, form.read(&body)?).await?)),
        Procedure::Finalize => Ok(form.write(&finalize(&room, form.read(&body)?).await?)),
        Procedure::Get => Ok(form.write(&get(&call, &room, form.read(&body)?).await?)),
    }
}

async fn create(
    call: &Call<'_>,
    room: &Room<'_>,
    asked: CreateCacheEntryRequest,
) -> Result<CreateCacheEntryResponse> {
    let name = Name::new(&asked.version, &asked.key)?;
    if find::exists(room, name).await? {
        return Err(store::Error::Conflict.into());
    }
    super::sweep_sometimes(call, room).await?;
    let id = UploadId::new(now())?;
    let signed_upload_url = signed_url::upload(call, room.namespace(), &id)?;
    // Who reserves last is waited for: an upload that was given up never stands in the way.
    let text = id.as_str().to_owned();
    assemble::note(room, &name.reservation(), text, Precondition::None).await?;
    Ok(CreateCacheEntryResponse {
        ok: true,
        signed_upload_url,
    })
}

async fn finalize(
    room: &Room<'_>,
    asked: FinalizeCacheEntryUploadRequest,
) -> Result<FinalizeCacheEntryUploadResponse> {
    let name = Name::new(&asked.version, &asked.key)?;
    let size = u64::try_from(asked.size_bytes)
        .ok()
        .filter(|size| *size > 0);
    let reserved = assemble::noted(room, &name.reservation()).await?;
    let version = match reserved {
        Some(id) => {
            let version = assemble::finish(room, &UploadId::parse(&id)?, name, size).await?;
            room.delete_entry(EntryKind::ActionsBlock, &name.reservation())
                .await?;
            version
        }
        None => finished_before(room, name, size).await?,
    };
    let entry_id = i64::try_from(version & i64::MAX as u64).unwrap_or_default();
    Ok(FinalizeCacheEntryUploadResponse { ok: true, entry_id })
}

/// A client that got no answer asks again; what it asks for is done.
async fn finished_before(room: &Room<'_>, name: Name<'_>, size: Option<u64>) -> Result<u64> {
    let kind = EntryKind::ActionsCache;
    let found = room.open_entry(kind, &name.text(), ByteRange::Full).await?;
    let same = |total| size.is_none_or(|size| size == total);
    match found {
        Some(entry) if same(entry.value.total_bytes()) => Ok(entry.version),
        _ => Err(Error::Request("no upload of this entry is under way")),
    }
}

async fn get(
    call: &Call<'_>,
    room: &Room<'_>,
    asked: GetCacheEntryDownloadUrlRequest,
) -> Result<GetCacheEntryDownloadUrlResponse> {
    let name = Name::new(&asked.version, &asked.key)?;
    let beginnings = asked.restore_keys.iter().map(String::as_str);
    let Some(key) = find::find(room, name, beginnings).await? else {
        return Ok(GetCacheEntryDownloadUrlResponse::default());
    };
    let found = Name { key: &key, ..name };
    Ok(GetCacheEntryDownloadUrlResponse {
        ok: true,
        signed_download_url: signed_url::download(call, room.namespace(), found)?,
        matched_key: key,
    })
}

/// Says no as Twirp does: the reason is a word in a JSON document, whatever the form of the call.
pub(super) fn refuse(error: &Error) -> Response<Body> {
    let code = word(error.code());
    let told = status::refuse(error);
    let text = status::message(error);
    let (parts, body) = respond::json(&json!({ "code": code, "msg": text.trim() })).into_parts();
    let mut response = told.map(|_| body);
    response.headers_mut().extend(parts.headers);
    response
}

/// Twirp's word for a kind of failure.
const fn word(code: Code) -> &'static str {
    match code {
        Code::NotFound => "not_found",
        Code::Invalid => "invalid_argument",
        Code::Conflict => "already_exists",
        Code::Unauthenticated => "unauthenticated",
        Code::Forbidden => "permission_denied",
        Code::TooLarge | Code::OutOfSpace | Code::RateLimited => "resource_exhausted",
        Code::RangeInvalid => "out_of_range",
        Code::Unavailable => "unavailable",
        Code::Timeout => "deadline_exceeded",
        Code::Corrupt | Code::Internal => "internal",
    }
}
