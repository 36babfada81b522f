//! Answers: one message, many messages, or a value as messages of its chunks; then trailers with a status.
//!
//! Large pieces go out as they are; small ones are put together, so that a batch of small blobs is few frames.
//! Cancellation: dropping an answer at any point is safe. Source: gRPC over HTTP/2, "Responses".

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::sync::mpsc;
use zimcache_proto::{Message, status::GrpcCode};
use zimcache_store::{self as store, Reader};
use zimcache_types::Code;

use super::{
    CONTENT_TYPE,
    status::{Outcome, Status},
};
use crate::{body::Body, frames};

/// Pieces from this size on are not copied.
const SHARED_FROM: usize = 8 << 10;
const PREFIX_BYTES: usize = 5;
/// Most data in one message of a value. A frame of zstd has one block of it.
const MOST_DATA_BYTES: usize = 128 << 10;
/// Most of a value that is read at once: what is read is still in the core's cache when it is sent.
const PIECE_BYTES: u64 = 64 << 10;
/// Number of the field that carries the data in `google.bytestream.ReadResponse`.
const READ_DATA: u32 = 10;

/// One message in pieces, prefix included.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// The first small bytes; they begin with room for the prefix.
    head: BytesMut,
    shared: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Pieces {
    /// An empty message with room for so many small bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Pieces {
        let mut head = BytesMut::with_capacity(PREFIX_BYTES + bytes);
        head.put_bytes(0, PREFIX_BYTES);
        Pieces {
            head,
            shared: VecDeque::new(),
            tail: BytesMut::new(),
            length: 0,
        }
    }

    /// A message, encoded.
    pub(crate) fn of(message: &impl Message) -> Pieces {
        let mut pieces = Pieces::with_capacity(message.encoded_len());
        // There is room for it: the buffer grows.
        message.encode(&mut pieces.head).ok();
        pieces.length = pieces.head.len() - PREFIX_BYTES;
        pieces
    }

    /// Adds a field of few bytes: a string, or a message that is encoded already.
    pub(crate) fn small_field(&mut self, number: u32, value: &[u8]) {
        let small = self.small();
        let before = small.len();
        encode_key(number, WireType::LengthDelimited, small);
        encode_varint(value.len() as u64, small);
        small.extend_from_slice(value);
        self.length += self.small().len() - before;
    }

    /// Adds a field that is a message with a field of bytes in it: those are shared, the rest is encoded here.
    pub(crate) fn message_with_bytes(
        &mut self,
        number: u32,
        rest: &impl Message,
        bytes_number: u32,
        bytes: &Bytes,
    ) {
        let bytes_head = key_len(bytes_number) + encoded_len_varint(bytes.len() as u64);
        let inner = rest.encoded_len() + bytes_head + bytes.len();
        let small = self.small();
        let before = small.len();
        encode_key(number, WireType::LengthDelimited, small);
        encode_varint(inner as u64, small);
        // There is room for it: the buffer grows.
        rest.encode(small).ok();
        encode_key(bytes_number, WireType::LengthDelimited, small);
        encode_varint(bytes.len() as u64, small);
        self.length += self.small().len() - before;
        self.raw(bytes);
    }

    /// Adds bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &Bytes) {
        self.length += bytes.len();
        if bytes.len() < SHARED_FROM {
            self.small().extend_from_slice(bytes);
            return;
        }
        if !self.tail.is_empty() {
            self.shared.push_back(self.tail.split().freeze());
        }
        self.shared.push_back(bytes.clone());
    }

    fn small(&mut self) -> &mut BytesMut {
        if self.shared.is_empty() {
            &mut self.head
        } else {
            &mut self.tail
        }
    }

    fn finish(mut self) -> VecDeque<Bytes> {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        self.head[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        self.shared.push_front(self.head.freeze());
        if !self.tail.is_empty() {
            self.shared.push_back(self.tail.freeze());
        }
        self.shared
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Rpc {
    pieces: VecDeque<Bytes>,
    more: More,
}

/// What comes behind the pieces at hand.
#[derive(Debug)]
enum More {
    /// The status.
    End(Status),
    /// A value.
    Value(Value),
    /// Messages that are made while they are sent.
    Messages(mpsc::Receiver<Outcome<Pieces>>),
    /// Nothing: the status has been sent.
    Done,
}

impl Rpc {
    /// The next frame. A value that fails in the middle ends in a status that says so.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, store::Error>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let status = match &mut self.more {
                More::Done => return Poll::Ready(None),
                More::End(status) => status.clone(),
                More::Value(value) => match ready!(value.poll_message(cx)) {
                    Some(Ok(message)) => {
                        self.pieces = message;
                        continue;
                    }
                    Some(Err(status)) => status,
                    None => Status::ok(),
                },
                More::Messages(messages) => match ready!(messages.poll_recv(cx)) {
                    Some(Ok(message)) => {
                        self.pieces = message.finish();
                        continue;
                    }
                    Some(Err(status)) => status,
                    None => Status::ok(),
                },
            };
            self.more = More::Done;
            return Poll::Ready(Some(Ok(Frame::trailers(status.trailers()))));
        }
    }

    /// Whether everything was sent.
    pub(crate) fn is_done(&self) -> bool {
        self.pieces.is_empty() && matches!(self.more, More::Done)
    }
}

/// In which form a value goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the reader gives it.
    AsItIs,
    /// As zstd frames in which nothing is compressed.
    Framed,
}

/// A value on its way out, as messages `google.bytestream.ReadResponse`.
#[derive(Debug)]
struct Value {
    reader: Reader,
    form: Form,
    /// What is left of the last chunk.
    rest: Bytes,
    begun: bool,
}

impl Value {
    /// The next message. Nothing is copied but the few bytes in front of the data.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome<VecDeque<Bytes>>>> {
        if self.rest.is_empty() {
            self.rest = match ready!(self.reader.poll_chunk(cx)) {
                Some(Ok(chunk)) => chunk,
                // For the client it is gone; we were told when it was read.
                Some(Err(error)) if !self.begun && error.code() == Code::Corrupt => {
                    return Poll::Ready(Some(Err(Status::not_found("there is no such blob"))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                // No frame at all is not what every decoder takes for nothing.
                None if !self.begun && self.form == Form::Framed => Bytes::new(),
                None => return Poll::Ready(None),
            };
        }
        self.begun = true;
        let most = self.rest.len().min(MOST_DATA_BYTES);
        let data = self.rest.split_to(most);
        Poll::Ready(Some(Ok(data_message(data, self.form))))
    }
}

fn data_message(data: Bytes, form: Form) -> VecDeque<Bytes> {
    let frame = match form {
        Form::AsItIs => None,
        Form::Framed => Some(frames::head_of_raw(data.len())),
    };
    let frame = frame.as_ref().map_or(&[][..], |head| head.as_slice());
    let length = frame.len() + data.len();
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + 6 + frame.len());
    head.put_bytes(0, PREFIX_BYTES);
    encode_key(READ_DATA, WireType::LengthDelimited, &mut head);
    encode_varint(length as u64, &mut head);
    let length = u32::try_from(head.len() - PREFIX_BYTES + length).unwrap_or(u32::MAX);
    head[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    head.extend_from_slice(frame);
    VecDeque::from([head.freeze(), data])
}

/// An answer of one message.
pub(crate) fn unary(message: &impl Message) -> Response<Body> {
    unary_pieces(Pieces::of(message))
}

/// An answer of one message that is encoded already.
pub(crate) fn unary_pieces(message: Pieces) -> Response<Body> {
    answer(message.finish(), More::End(Status::ok()))
}

/// A value as the messages of `google.bytestream.ByteStream.Read`.
pub(crate) fn reading(reader: Reader, form: Form) -> Response<Body> {
    let value = Value {
        reader: reader.in_pieces_of(PIECE_BYTES),
        form,
        rest: Bytes::new(),
        begun: false,
    };
    answer(VecDeque::new(), More::Value(value))
}

/// Messages that are made while they are sent; the call ends with the last one, or with the first refusal.
pub(crate) fn streamed(messages: mpsc::Receiver<Outcome<Pieces>>) -> Response<Body> {
    answer(VecDeque::new(), More::Messages(messages))
}

fn answer(pieces: VecDeque<Bytes>, more: More) -> Response<Body> {
    let mut response = Response::new(Body::rpc(Rpc { pieces, more }));
    let grpc = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

impl Status {
    /// The call succeeded.
    pub(crate) fn ok() -> Status {
        Status::new(GrpcCode::Ok, "")
    }

    /// An answer without a message, all of it in one header.
    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = self.trailers();
        let grpc = HeaderValue::from_static(CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        response
    }
}
