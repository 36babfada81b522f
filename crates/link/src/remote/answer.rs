//! The answer to a call: its messages, and the status behind them.
//!
//! Invariant: an answer that ends without a status is a failure of the way.

use std::time::Duration;

use h2::RecvStream;
use http::{Response, StatusCode};
use tokio::time::timeout;
use zimcache_proto::Message;

use super::channel::Channel;
use crate::{
    Error, Result,
    wire::{Call, Messages, Outgoing, status},
};

/// An answer being read.
#[derive(Debug)]
pub(super) struct Answer {
    channel: Channel,
    messages: Messages,
    patience: Duration,
}

impl Answer {
    /// Sends a request of one message; its answer.
    pub(super) async fn to(
        channel: &Channel,
        call: Call,
        request: &impl Message,
        patience: Duration,
    ) -> Result<Answer> {
        let sent = channel.send(call, Outgoing::request(request));
        let response = timeout(patience, sent).await;
        let response = response.map_err(|_| too_slow(channel, patience))??;
        Answer::new(channel, response, patience)
    }

    /// The answer that these headers begin.
    pub(super) fn new(
        channel: &Channel,
        response: Response<RecvStream>,
        patience: Duration,
    ) -> Result<Answer> {
        if response.status() != StatusCode::OK {
            return Err(channel.unreachable(format!("it answers with HTTP {}", response.status())));
        }
        // Without a message the status stands in the headers.
        if let Some(Err(error)) = status::read(response.headers()) {
            return Err(error);
        }
        Ok(Answer {
            channel: channel.clone(),
            messages: Messages::answer(response.into_body()),
            patience,
        })
    }

    /// The next message; `None` when all came and the call went well.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        let next = timeout(self.patience, self.messages.next()).await;
        let next = next.map_err(|_| too_slow(&self.channel, self.patience))?;
        match next {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => match self.messages.trailers().and_then(status::read) {
                Some(status) => status.map(|()| None),
                None => Err(self.channel.unreachable("the answer breaks off")),
            },
            // Not what a node said: it was damaged on its way, or is none of ours.
            Err(error) => Err(self.channel.unreachable(error.to_string())),
        }
    }

    /// The one message of an answer.
    pub(super) async fn only<M: Message + Default>(mut self) -> Result<M> {
        let message = self.next().await?;
        let message = message.ok_or_else(|| self.channel.unreachable("the answer is empty"))?;
        // A status may follow a message.
        match self.next::<M>().await? {
            None => Ok(message),
            Some(_) => Err(self.channel.unreachable("the answer has two messages")),
        }
    }
}

pub(super) fn too_slow(channel: &Channel, patience: Duration) -> Error {
    channel.unreachable(format!("no answer within {patience:?}"))
}
