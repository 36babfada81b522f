//! How a call ended, and the trailers that say so.
//!
//! The text of a status is for people. Internal, corrupt and disk texts never leave the process; they are logged here,
//! once. Details travel as an encoded `google.rpc.Status` in `grpc-status-details-bin`. Not here: which code a failure
//! has (`zimcache_proto::status`). Source: gRPC over HTTP/2, "Responses" (PROTOCOL-HTTP2.md).

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, HeaderValue, StatusCode, header::HeaderName};
use zimcache_proto::{
    Any, Message as _,
    rpc::Status as Details,
    status::{GrpcCode, retry_info},
};
use zimcache_types::Code;

use crate::{Error, status};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// What a client is told to wait before it tries again, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The outcome of a call.
pub(crate) type Outcome<T> = Result<T, Status>;

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    code: GrpcCode,
    message: Cow<'static, str>,
    details: Vec<Any>,
}

impl Status {
    /// A status without details.
    pub(crate) fn new(code: GrpcCode, message: impl Into<Cow<'static, str>>) -> Status {
        Status {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// The request can never succeed as it is.
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Status {
        Status::new(GrpcCode::InvalidArgument, message)
    }

    /// The thing is not there.
    pub(crate) fn not_found(message: impl Into<Cow<'static, str>>) -> Status {
        Status::new(GrpcCode::NotFound, message)
    }

    /// The same with one more detail.
    pub(crate) fn with(mut self, detail: Any) -> Status {
        self.details.push(detail);
        self
    }

    #[cfg(test)]
    pub(crate) const fn code(&self) -> GrpcCode {
        self.code
    }

    /// The same as a message, for the statuses of single blobs in a batch.
    pub(crate) fn to_message(&self) -> Details {
        Details {
            code: self.code.number(),
            message: self.message.clone().into_owned(),
            details: self.details.clone(),
        }
    }

    /// The trailers that say so.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(3);
        trailers.insert(GRPC_STATUS, HeaderValue::from(self.code.number()));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::try_from(percent_encoded(&self.message))
        {
            trailers.insert(GRPC_MESSAGE, message);
        }
        if !self.details.is_empty() {
            let encoded = STANDARD_NO_PAD.encode(self.to_message().encode_to_vec());
            if let Ok(details) = HeaderValue::try_from(encoded) {
                trailers.insert(GRPC_DETAILS, details);
            }
        }
        trailers
    }

    /// The HTTP status that counts the same, for figures and the access log: over HTTP every call is a 200.
    pub(crate) const fn counted_as(&self) -> StatusCode {
        match self.code {
            GrpcCode::Ok => StatusCode::OK,
            GrpcCode::NotFound => StatusCode::NOT_FOUND,
            GrpcCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            GrpcCode::PermissionDenied => StatusCode::FORBIDDEN,
            GrpcCode::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            GrpcCode::Internal | GrpcCode::Unknown | GrpcCode::DataLoss => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            GrpcCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            GrpcCode::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Status {
        let code = error.code();
        status::log(error, code);
        let mut message = status::message(error);
        message.truncate(message.trim_end().len());
        let status = Status::new(GrpcCode::of(code), message);
        match error {
            Error::RateLimited { retry_after } => status.with(retry_info(*retry_after)),
            _ if matches!(code, Code::Unavailable | Code::Corrupt | Code::OutOfSpace) => {
                status.with(retry_info(RETRY_AFTER))
            }
            _ => status,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        Status::from(&error)
    }
}

impl From<zimcache_store::Error> for Status {
    fn from(error: zimcache_store::Error) -> Status {
        Status::from(&Error::Store(error))
    }
}

/// Everything but printable ASCII, and the percent sign, as the specification of `grpc-message` has it.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_any_character_fits_into_a_header() {
        let trailers = Status::invalid("100 % größer\n").trailers();
        assert_eq!(trailers[GRPC_STATUS], "3");
        assert_eq!(trailers[GRPC_MESSAGE], "100 %25 gr%C3%B6%C3%9Fer%0A");
        assert!(!trailers.contains_key(GRPC_DETAILS));
    }

    #[test]
    fn a_refusal_that_passes_tells_when_to_come_again() {
        let retry_after = Duration::from_millis(1500);
        let status = Status::from(Error::RateLimited { retry_after });
        assert_eq!(status.code(), GrpcCode::ResourceExhausted);
        let details = status.trailers()[GRPC_DETAILS].clone();
        let encoded = STANDARD_NO_PAD.decode(details.as_bytes()).unwrap();
        let decoded = Details::decode(encoded.as_slice()).unwrap();
        assert_eq!(
            decoded.details[0].type_url,
            "type.googleapis.com/google.rpc.RetryInfo"
        );
    }
}
