//! Codes as HTTP statuses: the only place where a failure becomes an answer.
//!
//! The body of an error is one line of text for people. Internal, corrupt and disk texts never leave the process; they
//! are logged here, once. Invariant: a 404 has an empty body and `Content-Length: 0`, which every client needs.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use zimcache_store as store;
use zimcache_types::Code;

use crate::{Error, body::Body, limits};

/// What a client is told to wait before it tries again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// Basic, because that is what every HTTP client can send; a token is its password.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"ZimCache\", charset=\"UTF-8\"");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The status that says the same.
pub(crate) const fn of(code: Code) -> StatusCode {
    match code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::Conflict => StatusCode::CONFLICT,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
        Code::OutOfSpace => StatusCode::INSUFFICIENT_STORAGE,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        // Reading a damaged value is a miss (`cache::alarm`); what gets here is a write that the disk spoilt.
        Code::Unavailable | Code::Corrupt => StatusCode::SERVICE_UNAVAILABLE,
        Code::Timeout => StatusCode::REQUEST_TIMEOUT,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer to a request that failed.
pub(crate) fn refuse(error: &Error) -> Response<Body> {
    let code = error.code();
    log(error, code);
    let status = of(code);
    if status == StatusCode::NOT_FOUND {
        return empty(status);
    }
    let mut response = text(status, message(error));
    let headers = response.headers_mut();
    match error {
        Error::Store(store::Error::RangeInvalid { size }) => {
            if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
                headers.insert(header::CONTENT_RANGE, range);
            }
        }
        Error::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        Error::RateLimited { retry_after } => limits::tell_to_wait(headers, *retry_after),
        _ if status == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        _ => {}
    }
    response
}

/// The answer to a request that failed, in a dialect whose client takes the status that says so for something else.
pub(crate) fn refuse_as(status: StatusCode, error: &Error) -> Response<Body> {
    log(error, error.code());
    if status == StatusCode::NOT_FOUND {
        return empty(status);
    }
    text(status, message(error))
}

/// The answer to a request that failed; a look-up over a limit is a miss, which costs the client nothing but the work.
pub(crate) fn refuse_quietly(error: &Error, method: &Method) -> Response<Body> {
    let looks_up = matches!(*method, Method::GET | Method::HEAD);
    if looks_up && error.code() == Code::RateLimited {
        return refuse_as(StatusCode::NOT_FOUND, error);
    }
    refuse(error)
}

/// 405 with the methods that are allowed.
pub(crate) fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An answer of one line.
pub(crate) fn text(status: StatusCode, line: String) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from(line)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}

/// What a client may read: one line.
pub(crate) fn message(error: &Error) -> String {
    let public = match error.code() {
        Code::Internal => "internal error",
        Code::Unavailable | Code::Corrupt => "the store cannot do this now",
        Code::OutOfSpace => "no space left in the store",
        _ => return format!("{error}\n"),
    };
    format!("{public}\n")
}

/// Tells us, not the client, of a failure that is ours.
pub(crate) fn log(error: &Error, code: Code) {
    match code {
        Code::Internal | Code::Corrupt | Code::Unavailable | Code::OutOfSpace => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(code = code.as_str(), %error, cause, "request failed");
        }
        _ => tracing::debug!(code = code.as_str(), %error, "request refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_failure_tells_the_client_nothing_but_to_come_again() {
        let source = std::io::Error::other("/var/lib/secret: input/output error");
        let error = Error::Store(store::Error::disk("read a segment", source));
        let response = refuse(&error);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert_eq!(message(&error), "the store cannot do this now\n");
    }

    #[test]
    fn a_range_behind_the_end_names_the_size() {
        let response = refuse(&Error::Store(store::Error::RangeInvalid { size: 7 }));
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes */7");
    }
}
