//! How a call went, in trailers.
//!
//! gRPC's codes are fewer than ours, so the name of ours stands beside them. A ring goes along in the details, unless it
//! is so large that headers are no place for it: then the caller asks for it. Source: gRPC over HTTP/2, "Responses".

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::HeaderName};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use zimcache_proto::{Any, Message as _, rpc, status::GrpcCode};
use zimcache_types::Code;

use crate::{Error, Result};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// The name of our code.
const CODE: HeaderName = HeaderName::from_static("zimcache-code");
/// Type of the detail that is a ring document.
const RING: &str = "type.googleapis.com/zimcache.node.v1.Ring";
/// Largest ring that travels in trailers, in bytes.
const MOST_RING_BYTES: usize = 512 << 10;
/// Longest text for people, in bytes.
const MOST_TEXT_BYTES: usize = 1 << 10;
/// What a header cannot hold as it is.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The trailers of an answer.
pub(crate) fn trailers(error: Option<&Error>) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    let Some(error) = error else {
        trailers.insert(STATUS, HeaderValue::from(GrpcCode::Ok.number()));
        return trailers;
    };
    let mut code = GrpcCode::of(error.code());
    if let Error::StaleRing { ring } = error {
        code = GrpcCode::FailedPrecondition;
        if ring.len() <= MOST_RING_BYTES {
            trailers.insert(DETAILS, details(code, ring));
        }
    } else {
        trailers.insert(CODE, HeaderValue::from_static(error.code().as_str()));
    }
    trailers.insert(STATUS, HeaderValue::from(code.number()));
    let text: String = error.to_string().chars().take(MOST_TEXT_BYTES).collect();
    let text = utf8_percent_encode(&text, ENCODED).to_string();
    if let Ok(text) = HeaderValue::from_str(&text) {
        trailers.insert(MESSAGE, text);
    }
    trailers
}

fn details(code: GrpcCode, ring: &Bytes) -> HeaderValue {
    let ring = Any {
        type_url: RING.to_owned(),
        value: ring.to_vec(),
    };
    let status = rpc::Status {
        code: code.number(),
        message: String::new(),
        details: vec![ring],
    };
    let text = STANDARD_NO_PAD.encode(status.encode_to_vec());
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// What trailers, or the headers of an answer without messages, say; `None` when they say nothing.
pub(crate) fn read(trailers: &HeaderMap) -> Option<Result<()>> {
    let number = trailers.get(STATUS)?.to_str().ok()?.parse().ok()?;
    let code = GrpcCode::from_number(number);
    if code == GrpcCode::FailedPrecondition {
        let ring = ring_of(trailers).unwrap_or_default();
        return Some(Err(Error::StaleRing { ring }));
    }
    let Some(kind) = code.kind() else {
        return Some(Ok(()));
    };
    let text = |name: &HeaderName| trailers.get(name).and_then(|value| value.to_str().ok());
    let named = text(&CODE).and_then(Code::from_name);
    let message = percent_decode_str(text(&MESSAGE).unwrap_or_default()).decode_utf8_lossy();
    Some(Err(Error::Refused {
        code: named.unwrap_or(kind),
        message: message.into(),
    }))
}

fn ring_of(trailers: &HeaderMap) -> Option<Bytes> {
    let details = trailers.get(DETAILS)?.as_bytes();
    let status = rpc::Status::decode(&*STANDARD_NO_PAD.decode(details).ok()?).ok()?;
    let mut details = status.details.into_iter();
    let ring = details.find(|detail| detail.type_url == RING)?;
    Some(ring.value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(error: &Error) -> Error {
        read(&trailers(Some(error))).unwrap().unwrap_err()
    }

    #[test]
    fn every_kind_of_failure_comes_back_as_itself_with_its_text() {
        for code in Code::ALL {
            let message = "100 % of \u{e4}\n".into();
            match there_and_back(&Error::Refused { code, message }) {
                Error::Refused {
                    code: read,
                    message,
                } => {
                    assert_eq!((read, &*message), (code, "100 % of \u{e4}\n"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(read(&trailers(None)), Some(Ok(()))));
        assert!(read(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_ring_travels_in_the_details_unless_it_is_huge() {
        for (length, comes) in [(100, true), (MOST_RING_BYTES + 1, false)] {
            let ring = Bytes::from(vec![7; length]);
            match there_and_back(&Error::StaleRing { ring: ring.clone() }) {
                Error::StaleRing { ring: read } if comes => assert_eq!(read, ring),
                Error::StaleRing { ring: read } => assert!(read.is_empty()),
                other => panic!("{other:?}"),
            }
        }
    }
}
