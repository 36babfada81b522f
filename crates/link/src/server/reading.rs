//! Sends a value: the first message has its head and first bytes, so that a small value is one message.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use zimcache_proto::node::{ReadReply, ReadRequest};

use crate::{
    Body, Found, Peer, Presence, Read, Result,
    wire::{MOST_DATA_BYTES, Outgoing, Pieces, convert, field, invalid, rows},
};

/// Answers a read.
pub(super) async fn answer(peer: &Arc<dyn Peer>, request: ReadRequest) -> Result<Outgoing> {
    let read = convert::read_in(request)?;
    let Begun {
        reply,
        length,
        mut rest,
    } = begin(peer, read).await?;
    let data = rest.take();
    let is_all = data.len() as u64 == length;
    let first = Pieces::with_data(&reply, field::READ_DATA, data);
    if is_all {
        return Ok(Outgoing::answer(first));
    }
    let more = stream::unfold(rest, async |mut rest| {
        let next = rest.next().await?;
        Some((next, rest))
    });
    Ok(Outgoing::answers(first, more.boxed()))
}

/// Answers a read of at most so many bytes: what stands before the value, and all bytes that were asked for.
///
/// # Errors
/// `Invalid` when they are more.
pub(super) async fn small(
    peer: &Arc<dyn Peer>,
    read: Read,
    most_bytes: u64,
) -> Result<(ReadReply, Bytes)> {
    let Begun {
        reply,
        length,
        mut rest,
    } = begin(peer, read).await?;
    if length > most_bytes {
        return Err(invalid("this is more than a small read may ask for"));
    }
    if rest.at_hand.len() as u64 == length {
        return Ok((reply, rest.at_hand));
    }
    let mut all = BytesMut::from(&*rest.at_hand);
    while (all.len() as u64) < length {
        let more = rest.body.next().await.transpose()?;
        all.extend_from_slice(&more.ok_or_else(|| invalid("the value is cut short"))?);
    }
    Ok((reply, all.freeze()))
}

/// The beginning of an answer.
struct Begun {
    /// Without data.
    reply: ReadReply,
    /// How many bytes were asked for.
    length: u64,
    /// These bytes, the first of them at hand.
    rest: Rest,
}

async fn begin(peer: &Arc<dyn Peer>, read: Read) -> Result<Begun> {
    let range = read.range;
    let (head, created, pins, total_bytes, is_unsure, mut body) = match peer.read(read).await? {
        Found::Yes {
            head,
            created,
            pins,
            total_bytes,
            is_unsure,
            body,
        } => (head, created, pins, total_bytes, is_unsure, body),
        Found::No(presence) => return Ok(Begun::nothing(presence)),
    };
    let length = if head.deleted {
        0
    } else {
        range
            .resolve(total_bytes)
            .map(|range| range.end - range.start)?
    };
    let at_hand = match length {
        0 => Bytes::new(),
        // A value that cannot be read at all is refused: the caller asks another node.
        _ => body.next().await.transpose()?.unwrap_or_default(),
    };
    let reply = ReadReply {
        presence: rows::presence_out(Presence::Present).into(),
        head: Some(convert::head_out(head)),
        created_millis: created.0,
        total_bytes,
        is_unsure,
        pins: Some(convert::pins_out(pins)),
        ..ReadReply::default()
    };
    Ok(Begun {
        reply,
        length,
        rest: Rest { body, at_hand },
    })
}

impl Begun {
    fn nothing(presence: Presence) -> Begun {
        Begun {
            reply: ReadReply {
                presence: rows::presence_out(presence).into(),
                ..ReadReply::default()
            },
            length: 0,
            rest: Rest {
                body: Box::new(NoBody),
                at_hand: Bytes::new(),
            },
        }
    }
}

/// The bytes of what is not there.
#[derive(Debug)]
struct NoBody;

#[async_trait]
impl Body for NoBody {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        None
    }
}

/// What of a value is still to be sent.
struct Rest {
    body: Box<dyn Body>,
    at_hand: Bytes,
}

impl Rest {
    fn take(&mut self) -> Bytes {
        let most = self.at_hand.len().min(MOST_DATA_BYTES);
        self.at_hand.split_to(most)
    }

    async fn next(&mut self) -> Option<Result<Pieces>> {
        if self.at_hand.is_empty() {
            match self.body.next().await? {
                Ok(chunk) => self.at_hand = chunk,
                Err(error) => return Some(Err(error)),
            }
        }
        let data = self.take();
        Some(Ok(Pieces::with_data(
            &ReadReply::default(),
            field::READ_DATA,
            data,
        )))
    }
}
