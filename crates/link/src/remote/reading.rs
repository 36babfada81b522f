//! A value on its way from a node.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_proto::node::ReadReply;
use zimcache_store::ByteRange;
use zimcache_types::Timestamp;

use super::answer::Answer;
use crate::{
    Body, Error, Found, Presence, Result,
    wire::{convert, rows},
};

/// What an answer to a read begins with.
pub(super) async fn found(mut answer: Answer, range: ByteRange) -> Result<Found> {
    let Some(first) = answer.next::<ReadReply>().await? else {
        return Ok(Found::No(Presence::Unknown));
    };
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
    Ok(Found::Yes {
        head,
        created: Timestamp(first.created_millis),
        pins: convert::pins_in(first.pins),
        total_bytes: first.total_bytes,
        is_unsure: first.is_unsure,
        body: Box::new(Stream {
            answer: Some(answer),
            at_hand: first.data,
            left: asked.end - asked.start,
        }),
    })
}

/// The bytes of a value.
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
        code: zimcache_types::Code::Corrupt,
        message: "the value does not have the length that was announced".into(),
    }
}
