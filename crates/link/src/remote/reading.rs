//! A value on its way from a node: small ones, and the beginnings of others, by way of the stream that small reads share,
//! the rest by a call.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;
use zimcache_proto::node::{ReadReply, SmallReply};
use zimcache_store::{ByteRange, Version};
use zimcache_types::{Code, Timestamp};

use super::{
    answer::{Answer, too_slow},
    channel::Channel,
};
use crate::{
    Body, Error, Found, Presence, Read, Result,
    wire::{Call, SMALL_BYTES, convert, rows},
};

/// Reads a value; whether or not it is small is seen when it is there.
pub(super) async fn read(channel: &Channel, read: Read) -> Result<Found> {
    if let Some(part) = small_part(&read) {
        let patience = channel.settings().answer_timeout;
        let request = convert::read_out(&Read {
            range: part,
            ..read.clone()
        });
        let asked = timeout(patience, channel.ask_small(request)).await;
        if let Some(answer) = asked.map_err(|_| too_slow(channel, patience))?? {
            return begun(channel, read, answer);
        }
    }
    call(channel, &read).await
}

/// What of a value to ask for where small reads are asked.
fn small_part(read: &Read) -> Option<ByteRange> {
    match read.range {
        // That waits for the durable tier.
        _ if read.fill => None,
        ByteRange::Full => Some(ByteRange::From {
            first: 0,
            last: Some(SMALL_BYTES - 1),
        }),
        ByteRange::From {
            first,
            last: Some(last),
        } if last >= first && last - first < SMALL_BYTES => Some(read.range),
        ByteRange::Suffix(length) if length <= SMALL_BYTES => Some(read.range),
        ByteRange::From { .. } | ByteRange::Suffix(_) => None,
    }
}

/// What a small read brought: all that was asked for, or the beginning of it.
fn begun(channel: &Channel, read: Read, answer: SmallReply) -> Result<Found> {
    let first = answer.reply.unwrap_or_default();
    let (at_hand, total) = (answer.data, first.total_bytes);
    found(first, read.range, |asked, version| {
        let length = asked.end - asked.start;
        if at_hand.len() as u64 != length.min(SMALL_BYTES) {
            return Err(channel.unreachable("it answers with another number of bytes"));
        }
        let rest = if at_hand.len() as u64 == length {
            Rest::Nothing
        } else {
            Rest::ToAsk(Box::new(ToAsk {
                channel: channel.clone(),
                read: Read {
                    range: ByteRange::From {
                        first: at_hand.len() as u64,
                        last: None,
                    },
                    ..read
                },
                version,
                total,
            }))
        };
        Ok(Box::new(Begun { at_hand, rest }))
    })
}

/// Reads by a call.
async fn call(channel: &Channel, read: &Read) -> Result<Found> {
    let waits = channel.settings();
    // A fill waits for the durable tier.
    let patience = if read.fill {
        waits.idle_timeout
    } else {
        waits.answer_timeout
    };
    let request = convert::read_out(read);
    let mut answer = Answer::to(channel, Call::Read, &request, patience).await?;
    let Some(mut first) = answer.next::<ReadReply>().await? else {
        return Ok(Found::No(Presence::Unknown));
    };
    let at_hand = std::mem::take(&mut first.data);
    found(first, read.range, |asked, _| {
        Ok(Box::new(Stream {
            answer: Some(answer),
            at_hand,
            left: asked.end - asked.start,
        }))
    })
}

/// What an answer says before its data.
fn found(
    first: ReadReply,
    range: ByteRange,
    body: impl FnOnce(Range<u64>, Version) -> Result<Box<dyn Body>>,
) -> Result<Found> {
    let presence = rows::presence_in(first.presence);
    if presence != Presence::Present {
        return Ok(Found::No(presence));
    }
    let head = convert::head_in(first.head);
    let asked = if head.deleted {
        Range::default()
    } else {
        range.resolve(first.total_bytes).map_err(Error::from)?
    };
    let body = body(asked, head.version)?;
    Ok(Found::Yes {
        head,
        created: Timestamp(first.created_millis),
        pins: convert::pins_in(first.pins),
        total_bytes: first.total_bytes,
        is_unsure: first.is_unsure,
        body,
    })
}

/// A value whose beginning is here.
#[derive(Debug)]
struct Begun {
    at_hand: Bytes,
    rest: Rest,
}

/// What follows the beginning of a value.
#[derive(Debug)]
enum Rest {
    Nothing,
    ToAsk(Box<ToAsk>),
    Coming(Box<dyn Body>),
}

#[async_trait]
impl Body for Begun {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if !self.at_hand.is_empty() {
            return Some(Ok(std::mem::take(&mut self.at_hand)));
        }
        if let Rest::ToAsk(rest) = &self.rest {
            match rest.ask().await {
                Ok(body) => self.rest = Rest::Coming(body),
                Err(error) => {
                    self.rest = Rest::Nothing;
                    return Some(Err(error));
                }
            }
        }
        match &mut self.rest {
            Rest::Coming(body) => body.next().await,
            Rest::Nothing | Rest::ToAsk(_) => None,
        }
    }
}

/// The rest of a value that was begun.
#[derive(Debug)]
struct ToAsk {
    channel: Channel,
    read: Read,
    version: Version,
    total: u64,
}

impl ToAsk {
    async fn ask(&self) -> Result<Box<dyn Body>> {
        match call(&self.channel, &self.read).await? {
            Found::Yes {
                head,
                total_bytes,
                body,
                ..
            } if head.version == self.version && total_bytes == self.total => Ok(body),
            _ => Err(Error::Refused {
                code: Code::Unavailable,
                message: "the value changed while it was read".into(),
            }),
        }
    }
}

/// The bytes that a call brings.
#[derive(Debug)]
struct Stream {
    /// `None` when it failed.
    answer: Option<Answer>,
    at_hand: Bytes,
    left: u64,
}

#[async_trait]
impl Body for Stream {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let next = self.chunk().await;
        if matches!(next, Some(Err(_)) | None) {
            self.answer = None;
        }
        next
    }
}

impl Stream {
    async fn chunk(&mut self) -> Option<Result<Bytes>> {
        if self.left == 0 && self.at_hand.is_empty() {
            return None;
        }
        if self.at_hand.is_empty() {
            match self.answer.as_mut()?.next::<ReadReply>().await {
                Ok(Some(message)) => self.at_hand = message.data,
                Ok(None) => return Some(Err(wrong_length())),
                Err(error) => return Some(Err(error)),
            }
        }
        let chunk = std::mem::take(&mut self.at_hand);
        match self.left.checked_sub(chunk.len() as u64) {
            Some(left) if !chunk.is_empty() => self.left = left,
            _ => return Some(Err(wrong_length())),
        }
        Some(Ok(chunk))
    }
}

fn wrong_length() -> Error {
    Error::Refused {
        code: Code::Corrupt,
        message: "the value does not have the length that was announced".into(),
    }
}
