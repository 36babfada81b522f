//! Messages on their way out: of a request, or of an answer with its trailers.
//!
//! The bytes of a value go out as they are; short ones are copied behind their head, so that a small value is one frame.
//! Cancellation: dropping a body at any point is safe.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream as _};
use http::HeaderMap;
use http_body::{Body, Frame};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::sync::mpsc;
use zimcache_proto::Message;

use super::{
    checked::{self, CHECK_BYTES},
    status,
};
use crate::Result;

/// Data from this size on is a piece of its own.
const SHARED_FROM: usize = 8 << 10;
/// What stands before every message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A message with its prefix: its head, and its data where that is not in the head.
#[derive(Debug)]
pub(crate) struct Pieces {
    head: Bytes,
    data: Bytes,
}

impl Pieces {
    pub(crate) fn of(message: &impl Message) -> Pieces {
        Pieces::with_data(message, 0, Bytes::new())
    }

    /// A message, and behind it the field of this number.
    pub(crate) fn with_data(message: &impl Message, field: u32, data: Bytes) -> Pieces {
        let mut head = BytesMut::new();
        let data = put(&mut head, message, field, data);
        Pieces::of_parts(head, data)
    }

    /// Messages that stand in `head` already; the last one goes on with `data`.
    pub(crate) fn of_parts(head: BytesMut, data: Bytes) -> Pieces {
        Pieces {
            head: head.freeze(),
            data,
        }
    }
}

/// Puts a message behind others, with the field of this number; returns the data if it is too long to be copied: then it
/// has to follow at once.
pub(crate) fn put(
    messages: &mut BytesMut,
    message: &impl Message,
    field: u32,
    data: Bytes,
) -> Bytes {
    let field_head = match data.len() {
        0 => 0,
        length => key_len(field) + encoded_len_varint(length as u64),
    };
    let head_bytes = CHECK_BYTES + message.encoded_len() + field_head;
    let copied = data.len() < SHARED_FROM;
    messages.reserve(PREFIX_BYTES + head_bytes + if copied { data.len() } else { 0 });
    messages.put_u8(0);
    messages.put_u32(u32::try_from(head_bytes + data.len()).unwrap_or(u32::MAX));
    let check_at = messages.len();
    checked::reserve(messages);
    // There is room for it: the buffer grows.
    message.encode(messages).ok();
    if !data.is_empty() {
        encode_key(field, WireType::LengthDelimited, messages);
        encode_varint(data.len() as u64, messages);
    }
    let data = if copied {
        messages.extend_from_slice(&data);
        Bytes::new()
    } else {
        data
    };
    checked::fill(messages, check_at, &data);
    data
}

/// A body of messages.
pub(crate) struct Outgoing {
    head: Bytes,
    data: Bytes,
    more: More,
}

/// What comes behind the pieces at hand.
enum More {
    /// Nothing, not even trailers: the end of a request.
    Nothing,
    /// The trailers of an answer.
    End(HeaderMap),
    /// More messages of an answer, then trailers that say how it went.
    Answers(BoxStream<'static, Result<Pieces>>),
    /// More messages of a request.
    Asked(mpsc::Receiver<Pieces>),
}

impl Outgoing {
    fn new(pieces: Pieces, more: More) -> Outgoing {
        Outgoing {
            head: pieces.head,
            data: pieces.data,
            more,
        }
    }

    /// A request of one message.
    pub(crate) fn request(message: &impl Message) -> Outgoing {
        Outgoing::new(Pieces::of(message), More::Nothing)
    }

    /// A request of the messages that come.
    pub(crate) const fn requests(messages: mpsc::Receiver<Pieces>) -> Outgoing {
        Outgoing {
            head: Bytes::new(),
            data: Bytes::new(),
            more: More::Asked(messages),
        }
    }

    /// No message: the headers say it all.
    pub(crate) const fn nothing() -> Outgoing {
        Outgoing {
            head: Bytes::new(),
            data: Bytes::new(),
            more: More::Nothing,
        }
    }

    /// An answer of one message.
    pub(crate) fn answer(message: Pieces) -> Outgoing {
        Outgoing::new(message, More::End(status::trailers(None)))
    }

    /// An answer of this message and more.
    pub(crate) fn answers(first: Pieces, more: BoxStream<'static, Result<Pieces>>) -> Outgoing {
        Outgoing::new(first, More::Answers(more))
    }

    /// An answer of the messages that come.
    pub(crate) const fn answers_to_come(messages: BoxStream<'static, Result<Pieces>>) -> Outgoing {
        Outgoing {
            head: Bytes::new(),
            data: Bytes::new(),
            more: More::Answers(messages),
        }
    }

    /// Head and data of a request of one message; itself where more may come.
    pub(crate) fn whole(self) -> Result<(Bytes, Bytes), Outgoing> {
        match self.more {
            More::Nothing => Ok((self.head, self.data)),
            _ => Err(self),
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let pieces = match &mut self.more {
            More::Nothing => None,
            More::End(trailers) => {
                let trailers = std::mem::take(trailers);
                self.more = More::Nothing;
                return Poll::Ready(Some(Frame::trailers(trailers)));
            }
            More::Asked(messages) => ready!(messages.poll_recv(cx)),
            More::Answers(messages) => {
                let ended = match ready!(Pin::new(messages).poll_next(cx)) {
                    Some(Ok(pieces)) => return Poll::Ready(Some(self.begin(pieces))),
                    Some(Err(error)) => status::trailers(Some(&error)),
                    None => status::trailers(None),
                };
                self.more = More::Nothing;
                return Poll::Ready(Some(Frame::trailers(ended)));
            }
        };
        Poll::Ready(pieces.map(|pieces| self.begin(pieces)))
    }

    fn begin(&mut self, pieces: Pieces) -> Frame<Bytes> {
        self.data = pieces.data;
        Frame::data(pieces.head)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        for piece in [&mut this.head, &mut this.data] {
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(piece)))));
            }
        }
        this.poll_more(cx).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.data.is_empty() && matches!(self.more, More::Nothing)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}
