//! Takes a value in. A stream that ends without its last message is an abort, and so is one that breaks.

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _};
use zimcache_proto::node::{WriteReply, WriteRequest};
use zimcache_types::Code;

use crate::{
    Error, Peer, Result, Writing,
    wire::{Messages, Outgoing, Pieces, convert},
};

pub(super) async fn answer(peer: &Arc<dyn Peer>, mut messages: Messages) -> Result<Outgoing> {
    let mut first: WriteRequest = messages.only().await?;
    let write = convert::write_in(&mut first)?;
    let resumes = write.options.resume_as.is_some();
    let writing = peer.write(write).await?;
    if !resumes {
        return take(writing, first, messages).await.map(Outgoing::answer);
    }
    let told = WriteReply {
        held_bytes: Some(writing.offset()),
        ..WriteReply::default()
    };
    let rest = async move {
        // The first message had no data: the caller did not know yet where to begin.
        let next = messages.next().await?.ok_or_else(aborted)?;
        take(writing, next, messages).await
    };
    Ok(Outgoing::answers(
        Pieces::of(&told),
        rest.into_stream().boxed(),
    ))
}

/// Takes a value from this message on; the answer when it is durable.
async fn take(
    mut writing: Box<dyn Writing>,
    mut message: WriteRequest,
    mut messages: Messages,
) -> Result<Pieces> {
    let mut offset = writing.offset();
    loop {
        if message.offset != offset && !message.data.is_empty() {
            return Err(Error::Refused {
                code: Code::Invalid,
                message: "the value has a gap".into(),
            });
        }
        offset += message.data.len() as u64;
        if !message.data.is_empty() {
            writing.write(std::mem::take(&mut message.data)).await?;
        }
        if message.commit {
            break;
        }
        message = messages.next().await?.ok_or_else(aborted)?;
    }
    let written = writing.commit(convert::pins_in(message.pins)).await?;
    Ok(Pieces::of(&WriteReply {
        held_bytes: None,
        size_bytes: written.size_bytes,
        version: Some(convert::version_out(written.version)),
        ..WriteReply::default()
    }))
}

fn aborted() -> Error {
    Error::Refused {
        code: Code::Unavailable,
        message: "the value was not sent to its end".into(),
    }
}
