//! Values as HTTP answers: 200 and 206, 304, HEAD, and the small ones.
//!
//! Shared by all dialects that serve stored values. Headers are built without formatting where they can be. Not here:
//! errors (`status`). Invariant: a HEAD answer has the headers of the GET answer and no body.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use zimcache_auth::Identity;
use zimcache_store::{Encoding, Entry, Reader};

use crate::{body::Body, call::Call, request, status};

const BYTES: HeaderValue = HeaderValue::from_static("bytes");
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
const ZSTD: HeaderValue = HeaderValue::from_static("zstd");
const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("Accept-Encoding");
const FOR_EVERYBODY: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const FOR_THE_CALLER: HeaderValue =
    HeaderValue::from_static("private, max-age=31536000, immutable");

/// The answer to a GET or HEAD that found this value. `etag` comes without quotes. A client that takes zstd gets the
/// form that is stored, where that is zstd, with a tag of its own.
pub(crate) fn value(call: &Call<'_>, reader: Reader, etag: &str) -> Response<Body> {
    let partial = call.asks_for_range();
    let (range, total) = (reader.range(), reader.total_bytes());
    let (encoding, reader) = if !partial && request::takes_zstd(&call.head.headers) {
        reader.into_stored()
    } else {
        (Encoding::Identity, reader)
    };
    let Some((quoted, etag)) = quote(etag, encoding) else {
        return status::empty(StatusCode::NOT_FOUND);
    };
    if request::client_has(&call.head.headers, &quoted) {
        let mut response = status::empty(StatusCode::NOT_MODIFIED);
        response.headers_mut().insert(header::ETAG, etag);
        return response;
    }
    let length = reader.remaining_bytes();
    let body = if call.head.method == Method::HEAD {
        Body::empty()
    } else {
        Body::value(reader)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.reserve(6);
    headers.insert(header::CONTENT_TYPE, OCTET_STREAM);
    headers.insert(header::ETAG, etag);
    headers.insert(header::ACCEPT_RANGES, BYTES);
    if encoding == Encoding::Zstd {
        headers.insert(header::CONTENT_ENCODING, ZSTD);
        headers.append(header::VARY, ACCEPT_ENCODING);
    }
    if call.head.method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if partial {
        let last = range.end.saturating_sub(1);
        if let Ok(text) = HeaderValue::try_from(format!("bytes {}-{last}/{total}", range.start)) {
            headers.insert(header::CONTENT_RANGE, text);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// The answer to a GET or HEAD that found this entry.
pub(crate) fn entry(call: &Call<'_>, entry: Entry) -> Response<Body> {
    let etag = format!("{:x}", entry.version);
    value(call, entry.value, &etag)
}

/// Says that what this name names never changes, so that nobody need ask again. A value that was read with a credential
/// is not for caches in between, which would hand it to callers without one.
pub(crate) fn never_changes(call: &Call<'_>, headers: &mut HeaderMap) {
    let caller = call.noted.principal.get();
    let everybody =
        caller.is_some_and(|who| matches!(who.identity(), Identity::Open | Identity::Anonymous));
    let value = if everybody {
        FOR_EVERYBODY
    } else {
        FOR_THE_CALLER
    };
    headers.insert(header::CACHE_CONTROL, value);
}

/// The tag with its quotes, as text and as header. Another encoding is another representation, with another tag.
fn quote(etag: &str, encoding: Encoding) -> Option<(String, HeaderValue)> {
    let mut quoted = String::with_capacity(etag.len() + 7);
    quoted.push('"');
    quoted.push_str(etag);
    quoted.push_str(match encoding {
        Encoding::Identity => "\"",
        Encoding::Zstd => "-zstd\"",
    });
    let value = HeaderValue::from_str(&quoted).ok()?;
    Some((quoted, value))
}

/// 200 without a body: a write that is done.
pub(crate) fn done() -> Response<Body> {
    Response::new(Body::empty())
}

/// 204 or 404: a deletion.
pub(crate) fn deleted(found: bool) -> Response<Body> {
    status::empty(if found {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    })
}

/// 404: a miss.
pub(crate) fn miss() -> Response<Body> {
    status::empty(StatusCode::NOT_FOUND)
}

/// 200 with a JSON document.
pub(crate) fn json(document: &impl serde::Serialize) -> Response<Body> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let Ok(mut text) = serde_json::to_vec(document) else {
        return status::empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    text.push(b'\n');
    let mut response = Response::new(Body::full(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
