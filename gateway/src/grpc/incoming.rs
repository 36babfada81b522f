//! The messages in a request's body.
//!
//! A message is either taken whole ([`Messages::next`]) or walked field by field while it arrives
//! ([`Messages::begin`]), so that a large `data` field passes through in the pieces in which it comes. Invariants: a
//! message longer than [`MOST_MESSAGE_BYTES`] is refused by its prefix alone; whole messages longer than
//! [`FREE_BYTES`] take their size from a [`Budget`] that all requests share, before they are read.
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message"; protocol buffers, "Encoding".

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zimcache_proto::{Message, status::GrpcCode};

use super::{
    Rope,
    status::{Outcome, Status},
};
use crate::{body::Upload, cache::Chunks as _};

/// Longest message accepted: some clients put up to 16 MiB into one, whatever is advertised.
const MOST_MESSAGE_BYTES: usize = (16 << 20) + (64 << 10);
/// Whole messages up to this size are not counted.
const FREE_BYTES: usize = 256 << 10;
/// What whole messages may take together, in KiB.
const BUDGET_KIB: usize = 64 << 10;
/// Length of a message's prefix: compressed or not, and how many bytes.
const PREFIX_BYTES: usize = 5;
/// Longest key or number of a field.
const VARINT_BYTES: usize = 10;

/// Memory for whole messages, over all requests. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Arc::new(Semaphore::new(BUDGET_KIB)))
    }
}

impl Budget {
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= FREE_BYTES {
            return None;
        }
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(&self.0).acquire_many_owned(kib).await.ok()
    }
}

/// The value of a field of a message that is still arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number; of four or eight bytes, too, none of which has a meaning here.
    Number(u64),
    /// So many bytes follow: to be taken by [`Messages::take`] or [`Messages::piece`].
    Bytes(usize),
}

/// The messages of one call.
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    upload: &'a mut Upload,
    budget: &'a Budget,
    progress: Progress,
}

/// How far the messages of a call were read, to be taken up again with the same body.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    held: Rope,
    /// Bytes of the message begun that have not been taken.
    left: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl<'a> Messages<'a> {
    /// The messages in this body.
    pub(crate) fn new(upload: &'a mut Upload, budget: &'a Budget) -> Messages<'a> {
        Messages::resume(upload, budget, Progress::default())
    }

    /// Lets go of the body for a while.
    pub(crate) fn pause(self) -> Progress {
        self.progress
    }

    /// Goes on where [`Messages::pause`] was.
    pub(crate) fn resume(
        upload: &'a mut Upload,
        budget: &'a Budget,
        progress: Progress,
    ) -> Messages<'a> {
        Messages {
            upload,
            budget,
            progress,
        }
    }

    /// The one message of a call that takes one.
    pub(crate) async fn only(&mut self) -> Outcome<Bytes> {
        let Some(mut message) = self.next().await? else {
            return Err(Status::invalid("the call has no message"));
        };
        if !self.progress.held.is_empty() || self.next().await?.is_some() {
            return Err(Status::invalid("the call takes one message"));
        }
        Ok(message.take_bytes(message.len()))
    }

    /// The one message of a call that takes one, decoded.
    pub(crate) async fn decode<M: Message + Default>(&mut self) -> Outcome<M> {
        let message = self.only().await?;
        M::decode(message).map_err(|_| Status::invalid("the message does not decode"))
    }

    /// The next message, whole; `None` at the end. It counts against the budget until the next one is asked for.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Rope>> {
        let Some(length) = self.begin().await? else {
            return Ok(None);
        };
        self.take_whole(length).await.map(Some)
    }

    /// Takes so many bytes of the message begun, whole. They count against the budget until this is done again.
    pub(crate) async fn take_whole(&mut self, length: usize) -> Outcome<Rope> {
        drop(self.progress.permit.take());
        self.progress.permit = self.budget.take(length).await;
        let mut taken = Rope::default();
        while taken.len() < length {
            taken.push(self.piece(length - taken.len()).await?);
        }
        Ok(taken)
    }

    /// Begins the next message; gives its length, `None` at the end. What is left of the one before is skipped.
    pub(crate) async fn begin(&mut self) -> Outcome<Option<usize>> {
        self.skip(self.progress.left).await?;
        if !self.hold(PREFIX_BYTES).await? {
            if !self.progress.held.is_empty() {
                return Err(Status::invalid("the body ends in the middle of a prefix"));
            }
            return Ok(None);
        }
        if self.progress.held.get_u8() != 0 {
            return Err(Status::new(
                GrpcCode::Unimplemented,
                "compressed messages are not taken; blobs may be compressed",
            ));
        }
        let length = self.progress.held.get_u32() as usize;
        if length > MOST_MESSAGE_BYTES {
            return Err(Status::new(
                GrpcCode::ResourceExhausted,
                format!("a message has more than the {MOST_MESSAGE_BYTES} bytes accepted"),
            ));
        }
        self.progress.left = length;
        Ok(Some(length))
    }

    /// Begins the next field of the message begun: its number and value; `None` at the message's end.
    pub(crate) async fn field(&mut self) -> Outcome<Option<(u32, Value)>> {
        if self.progress.left == 0 {
            return Ok(None);
        }
        let (number, wire_type) = self.varint(decode_key).await?;
        let value = match wire_type {
            WireType::Varint => Value::Number(self.varint(decode_varint).await?),
            WireType::LengthDelimited => {
                let length = self.varint(decode_varint).await?;
                if length > self.progress.left as u64 {
                    return Err(malformed());
                }
                Value::Bytes(length as usize)
            }
            WireType::SixtyFourBit => self.skip_fixed(8).await?,
            WireType::ThirtyTwoBit => self.skip_fixed(4).await?,
            WireType::StartGroup | WireType::EndGroup => return Err(malformed()),
        };
        Ok(Some((number, value)))
    }

    /// Takes so many bytes of the message begun, in one piece. For short fields.
    pub(crate) async fn take(&mut self, length: usize) -> Outcome<Bytes> {
        if length > self.progress.left || !self.hold(length).await? {
            return Err(malformed());
        }
        self.progress.left -= length;
        Ok(self.progress.held.take_bytes(length))
    }

    /// Takes what has arrived of the message begun, at most so many bytes; waits for the first one.
    pub(crate) async fn piece(&mut self, most: usize) -> Outcome<Bytes> {
        let most = most.min(self.progress.left);
        if most > 0 && !self.hold(1).await? {
            return Err(Status::invalid("the body ends in the middle of a message"));
        }
        let piece = self.progress.held.take_piece(most);
        self.progress.left -= piece.len();
        Ok(piece)
    }

    /// Passes over so many bytes of the message begun.
    pub(crate) async fn skip(&mut self, length: usize) -> Outcome<()> {
        let end = self.progress.left - length.min(self.progress.left);
        while self.progress.left > end {
            self.piece(self.progress.left - end).await?;
        }
        Ok(())
    }

    async fn skip_fixed(&mut self, length: usize) -> Outcome<Value> {
        if length > self.progress.left {
            return Err(malformed());
        }
        self.skip(length).await?;
        Ok(Value::Number(0))
    }

    async fn varint<T>(
        &mut self,
        decode: impl FnOnce(&mut Rope) -> Result<T, prost::DecodeError>,
    ) -> Outcome<T> {
        self.hold(VARINT_BYTES.min(self.progress.left)).await?;
        let before = self.progress.held.len();
        let decoded = decode(&mut self.progress.held).map_err(|_| malformed())?;
        let taken = before - self.progress.held.len();
        self.progress.left = self
            .progress
            .left
            .checked_sub(taken)
            .ok_or_else(malformed)?;
        Ok(decoded)
    }

    /// Waits until so many bytes are held; false when the body ends before.
    async fn hold(&mut self, wanted: usize) -> Outcome<bool> {
        while self.progress.held.len() < wanted {
            match self.upload.next().await {
                Some(chunk) => self.progress.held.push(chunk?),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn malformed() -> Status {
    Status::invalid("the message is not a protocol buffer message")
}
