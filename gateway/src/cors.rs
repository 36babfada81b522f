//! Letting pages of other origins use the cache from a browser, where the configuration lists them.
//!
//! Without a listed origin a browser is told nothing, so that no page somebody happens to visit can read or fill a
//! cache on their machine. A preflight is answered before authentication: it never carries credentials.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{body::Body, status};

const METHODS: HeaderValue = HeaderValue::from_static("GET, PUT, HEAD, DELETE, POST");
const HEADERS: HeaderValue = HeaderValue::from_static("Authorization, Content-Type");
const EXPOSED: HeaderValue = HeaderValue::from_static("ETag, Content-Length");
/// How long a browser may remember the answer, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// Stands for every origin in the configuration.
const ANY: &str = "*";

/// The answer to a browser's preflight; `None` when the request is none.
pub(crate) fn preflight(head: &Parts, allowed: &[String]) -> Option<Response<Body>> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(header::ORIGIN) {
        return None;
    }
    let mut response = status::empty(StatusCode::NO_CONTENT);
    if allow(head, allowed, response.headers_mut()) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }
    Some(response)
}

/// The answer to an OPTIONS that its dialect does not know: which methods there are is no secret, and nobody need show
/// credentials to ask. What the dialect allows, where it said so, stays.
pub(crate) fn options(mut answered: Response<Body>) -> Response<Body> {
    let unknown = matches!(
        answered.status(),
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    );
    if !unknown {
        return answered;
    }
    let allowed = answered.headers_mut().remove(header::ALLOW);
    let mut response = status::empty(StatusCode::NO_CONTENT);
    let methods = allowed.unwrap_or(METHODS);
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

/// Adds to any answer what lets the page read it; false when its origin is not listed.
pub(crate) fn allow(head: &Parts, allowed: &[String], answer: &mut HeaderMap) -> bool {
    let Some(origin) = head.headers.get(header::ORIGIN) else {
        return false;
    };
    let listed = |one: &String| one == ANY || one.as_bytes() == origin.as_bytes();
    if !allowed.iter().any(listed) {
        return false;
    }
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    answer.append(header::VARY, ORIGIN);
    true
}
