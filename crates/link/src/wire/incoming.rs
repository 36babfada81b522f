//! The messages in a request or an answer, in the pieces in which they arrive.
//!
//! Fields of bytes share the buffer they arrived in, unless they span pieces.

use bytes::Buf as _;
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;
use std::pin::Pin;
use zimcache_proto::{Message, rope::Rope};
use zimcache_types::Code;

use super::{MOST_MESSAGE_BYTES, checked};
use crate::{Error, Result};

/// What stands before every message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The messages of one body.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Incoming,
    held: Rope,
    trailers: Option<HeaderMap>,
    /// Whether every message has its checksum.
    is_checked: bool,
}

impl Messages {
    /// Those of a gateway or a node.
    pub(crate) fn new(body: Incoming) -> Messages {
        Messages {
            body,
            held: Rope::default(),
            trailers: None,
            is_checked: true,
        }
    }

    /// Those of anybody who speaks gRPC.
    pub(crate) fn of_anybody(body: Incoming) -> Messages {
        Messages {
            is_checked: false,
            ..Messages::new(body)
        }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// `Unavailable` when the stream breaks off or was damaged, `Invalid` when it is not what was agreed.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        if !self.hold(PREFIX_BYTES).await? {
            return match self.held.len() {
                0 => Ok(None),
                _ => Err(broken("the stream ends in the middle of a message")),
            };
        }
        let compressed = self.held.get_u8() != 0;
        let length = self.held.get_u32() as usize;
        if compressed || length > MOST_MESSAGE_BYTES {
            return Err(invalid("a message is compressed or too long"));
        }
        if !self.hold(length).await? {
            return Err(broken("the stream ends in the middle of a message"));
        }
        let decoded = M::decode(self.take(length)?);
        decoded
            .map(Some)
            .map_err(|_| invalid("a message does not decode"))
    }

    /// The one message there is.
    ///
    /// # Errors
    /// As [`Messages::next`].
    pub(crate) async fn only<M: Message + Default>(&mut self) -> Result<M> {
        let message = self.next().await?;
        message.ok_or_else(|| broken("the stream has no message"))
    }

    /// What stood behind the last message.
    pub(crate) const fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// A message that is here, without its checksum.
    fn take(&mut self, length: usize) -> Result<Rope> {
        let mut message = Rope::default();
        while message.len() < length {
            message.push(self.held.take_piece(length - message.len()));
        }
        if self.is_checked {
            let expected = checked::take(&mut message);
            if expected != Some(checked::sum(message.pieces())) {
                return Err(broken("a message was damaged on its way"));
            }
        }
        Ok(message)
    }

    async fn hold(&mut self, wanted: usize) -> Result<bool> {
        while self.held.len() < wanted {
            let body = &mut self.body;
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            let Some(frame) = frame else {
                return Ok(false);
            };
            match frame
                .map_err(|error| broken(&error.to_string()))?
                .into_data()
            {
                Ok(data) => self.held.push(data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(true)
    }
}

fn broken(message: &str) -> Error {
    Error::Refused {
        code: Code::Unavailable,
        message: message.into(),
    }
}

pub(crate) fn invalid(message: &str) -> Error {
    Error::Refused {
        code: Code::Invalid,
        message: message.into(),
    }
}
