//! The messages in a request or an answer, in the pieces in which they arrive.
//!
//! Fields of bytes share the buffer they arrived in, unless they span pieces.

use bytes::{Buf as _, Bytes};
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use std::{future::poll_fn, pin::Pin};
use zimcache_proto::{Message, rope::Rope};
use zimcache_types::Code;

use super::{MOST_MESSAGE_BYTES, checked};
use crate::{Error, Result};

/// What stands before every message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Where messages come from.
#[derive(Debug)]
enum Source {
    Request(Incoming),
    Answer(RecvStream),
}

impl Source {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes>> {
        match self {
            Source::Request(body) => loop {
                let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
                match frame.map(Frame::into_data) {
                    Ok(Ok(data)) => return Some(Ok(data)),
                    // Nobody asks with trailers.
                    Ok(Err(_)) => {}
                    Err(error) => return Some(Err(broken(&error.to_string()))),
                }
            },
            Source::Answer(stream) => {
                let data = stream.data().await?;
                let taken = data.and_then(|data| {
                    stream.flow_control().release_capacity(data.len())?;
                    Ok(data)
                });
                Some(taken.map_err(|error| broken(&error.to_string())))
            }
        }
    }

    /// What stands behind the last bytes of an answer.
    async fn trailers(&mut self) -> Option<HeaderMap> {
        match self {
            Source::Request(_) => None,
            Source::Answer(stream) => stream.trailers().await.ok().flatten(),
        }
    }
}

/// The messages of one body.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Source,
    held: Rope,
    /// Length of the message that has begun, once it is known.
    begun: Option<usize>,
    trailers: Option<HeaderMap>,
    /// Whether every message has its checksum.
    is_checked: bool,
}

impl Messages {
    /// Those of a gateway or a node that asks something.
    pub(crate) fn request(body: Incoming) -> Messages {
        Messages::new(Source::Request(body))
    }

    /// Those of a node that answers.
    pub(crate) fn answer(body: RecvStream) -> Messages {
        Messages::new(Source::Answer(body))
    }

    fn new(body: Source) -> Messages {
        Messages {
            body,
            held: Rope::default(),
            begun: None,
            trailers: None,
            is_checked: true,
        }
    }

    /// Those of anybody who speaks gRPC.
    pub(crate) fn of_anybody(body: Incoming) -> Messages {
        Messages {
            is_checked: false,
            ..Messages::request(body)
        }
    }

    /// The next message; `None` at the end. Nothing is lost when this future is dropped.
    ///
    /// # Errors
    /// `Unavailable` when the stream breaks off or was damaged, `Invalid` when it is not what was agreed.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        let Some(length) = self.begin().await? else {
            return Ok(None);
        };
        if !self.hold(length).await? {
            return Err(broken("the stream ends in the middle of a message"));
        }
        self.begun = None;
        let decoded = M::decode(self.take(length)?);
        decoded
            .map(Some)
            .map_err(|_| invalid("a message does not decode"))
    }

    /// Takes the prefix of the next message: its length; `None` at the end.
    async fn begin(&mut self) -> Result<Option<usize>> {
        if self.begun.is_some() {
            return Ok(self.begun);
        }
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
        self.begun = Some(length);
        Ok(self.begun)
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
            let Some(data) = self.body.next().await.transpose()? else {
                self.trailers = self.body.trailers().await;
                return Ok(false);
            };
            self.held.push(data);
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
