//! Sends a value: the first message has its head and first bytes, so that a small value is one message.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use zimcache_proto::node::{ReadReply, ReadRequest};

use crate::{
    Body, Found, Peer, Result,
    wire::{MOST_DATA_BYTES, Outgoing, Pieces, convert, field, rows},
};

pub(super) async fn answer(peer: &Arc<dyn Peer>, request: ReadRequest) -> Result<Outgoing> {
    let read = convert::read_in(request)?;
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
        Found::No(presence) => {
            let reply = ReadReply {
                presence: rows::presence_out(presence).into(),
                ..ReadReply::default()
            };
            return Ok(Outgoing::answer(Pieces::of(&reply)));
        }
    };
    let length = if head.deleted {
        0
    } else {
        range
            .resolve(total_bytes)
            .map(|range| range.end - range.start)?
    };
    let first = match length {
        0 => Bytes::new(),
        // A value that cannot be read at all is refused: the caller asks another node.
        _ => body.next().await.transpose()?.unwrap_or_default(),
    };
    let reply = ReadReply {
        presence: rows::presence_out(crate::Presence::Present).into(),
        head: Some(convert::head_out(head)),
        created_millis: created.0,
        total_bytes,
        is_unsure,
        pins: Some(convert::pins_out(pins)),
        ..ReadReply::default()
    };
    let mut rest = Rest {
        body,
        at_hand: first,
    };
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
