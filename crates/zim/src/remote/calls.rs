//! gRPC calls to a server: whole messages out, whole messages in, and how the call ended.
//!
//! For the few small calls of `zim setup --check`; blobs of files go over HTTP. A call that the server refuses is no
//! failure here: what it means depends on the call. Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;
use zimcache_proto::status::GrpcCode;

use super::{ANSWER_BYTES, Answer, Outgoing, STALL, Server};
use crate::error::{Error, Result};

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// A byte that says whether it is compressed, and the length.
const PREFIX_BYTES: usize = 5;

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Called {
    code: i32,
    text: String,
    pub(crate) messages: Vec<Bytes>,
}

impl Called {
    /// Whether it ended with this code.
    pub(crate) fn ended(&self, code: GrpcCode) -> bool {
        self.code == code.number()
    }
}

impl Server {
    /// Calls a method, such as `/package.Service/Method`, with one message.
    pub(crate) fn call(&self, method: &str, message: &[u8]) -> Result<Called> {
        let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        body.put_u8(0);
        let length = u32::try_from(message.len());
        body.put_u32(length.map_err(|_| Error::Answer("too large a message".to_owned()))?);
        body.put_slice(message);
        let mut request = self.request(Method::POST, method, Outgoing::bytes(body))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            let (head, body) = response.into_parts();
            let collected = timeout(STALL, Limited::new(body, ANSWER_BYTES).collect()).await;
            let collected = collected.map_err(|_| Error::Silent(self.url.clone()))?;
            let collected = collected.map_err(|error| self.broken_off(error))?;
            let trailers = collected.trailers().cloned();
            let body = collected.to_bytes();
            if head.status != StatusCode::OK {
                let status = head.status;
                return Err(self.refusal(&Answer { status, body }));
            }
            called(&trailers.unwrap_or(head.headers), body)
        })
    }

    /// A call that did not end as it had to; wrong credentials are told as such.
    pub(crate) fn ended_badly(&self, method: &str, called: Called) -> Error {
        if called.ended(GrpcCode::Unauthenticated) {
            let body = Bytes::from(called.text);
            let status = StatusCode::UNAUTHORIZED;
            return self.refusal(&Answer { status, body });
        }
        let Called { code, text, .. } = called;
        Error::Check(format!("{method} ended with code {code}: {text}"))
    }
}

/// Reads the status from the trailers, or from the headers where there is nothing else, and cuts the messages.
fn called(trailers: &HeaderMap, mut body: Bytes) -> Result<Called> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status").and_then(|code| code.parse().ok());
    let not_grpc = || Error::Answer("it is not gRPC".to_owned());
    let mut messages = Vec::new();
    while !body.is_empty() {
        if body.len() < PREFIX_BYTES || body.get_u8() != 0 {
            return Err(not_grpc());
        }
        let length = usize::try_from(body.get_u32()).map_err(|_| not_grpc())?;
        if body.len() < length {
            return Err(not_grpc());
        }
        messages.push(body.split_to(length));
    }
    Ok(Called {
        code: code.ok_or_else(not_grpc)?,
        text: text("grpc-message").unwrap_or_default().to_owned(),
        messages,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(code: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static(code),
        )])
    }

    #[test]
    fn messages_are_cut_at_their_lengths() {
        let body = Bytes::from_static(b"\0\0\0\0\x02ab\0\0\0\0\0");
        let called = called(&trailers("0"), body).unwrap();
        assert!(called.ended(GrpcCode::Ok));
        assert_eq!(called.messages, ["ab", ""]);
    }

    #[test]
    fn what_is_cut_off_compressed_or_without_a_status_is_not_understood() {
        for body in [&b"\0\0\0\0\x02a"[..], b"\0\0", b"\x01\0\0\0\0"] {
            assert!(called(&trailers("0"), Bytes::from_static(body)).is_err());
        }
        assert!(called(&HeaderMap::new(), Bytes::new()).is_err());
        assert!(called(&trailers("7"), Bytes::new()).is_ok());
    }
}
