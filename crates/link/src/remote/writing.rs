//! A value on its way to a node.
//!
//! The last message is held back until it is known whether it is the last, so that a small value is one message.

use std::{future::Future, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use h2::RecvStream;
use http::Response;
use tokio::{sync::mpsc, time::timeout};
use zimcache_proto::node::{WriteReply, WriteRequest};
use zimcache_store::{Pins, Written};

use super::{
    answer::{Answer, too_slow},
    channel::Channel,
};
use crate::{
    Result, Write, Writing,
    wire::{Call, MOST_DATA_BYTES, Outgoing, Pieces, convert, field},
};

/// How many messages wait for the connection.
const QUEUE: usize = 2;

type Headers = Pin<Box<dyn Future<Output = Result<Response<RecvStream>>> + Send>>;

/// A write that has begun.
pub(super) struct Stream {
    channel: Channel,
    messages: mpsc::Sender<Pieces>,
    /// The message held back, and its data.
    held: (WriteRequest, Bytes),
    begun_at: u64,
    sent: u64,
    answer: Coming,
}

/// The answer, as far as it came.
enum Coming {
    Headers(Headers),
    Answer(Box<Answer>),
}

impl Stream {
    pub(super) async fn begin(channel: &Channel, write: Write) -> Result<Stream> {
        channel.ready().await?;
        let resumes = write.options.resume_as.is_some();
        let (messages, queue) = mpsc::channel(QUEUE);
        let sending = channel.clone();
        let headers = async move { sending.send(Call::Write, Outgoing::requests(queue)).await };
        let mut stream = Stream {
            channel: channel.clone(),
            messages,
            held: (convert::write_out(write), Bytes::new()),
            begun_at: 0,
            sent: 0,
            answer: Coming::Headers(Box::pin(headers)),
        };
        if resumes {
            stream.ask_where_to_begin().await?;
        }
        Ok(stream)
    }

    /// Sends the beginning, and waits for the node to say what it holds.
    async fn ask_where_to_begin(&mut self) -> Result<()> {
        self.flush().await?;
        let patience = self.channel.settings().answer_timeout;
        let waited = timeout(patience, self.reply()).await;
        let reply = waited.map_err(|_| too_slow(&self.channel, patience))??;
        let Some(held) = reply.held_bytes else {
            return Err(self
                .channel
                .unreachable("it does not say how much it holds"));
        };
        (self.begun_at, self.sent, self.held.0.offset) = (held, held, held);
        Ok(())
    }

    /// Sends the message held back.
    async fn flush(&mut self) -> Result<()> {
        let (head, data) = std::mem::take(&mut self.held);
        self.sent += data.len() as u64;
        self.held.0.offset = self.sent;
        let pieces = Pieces::with_data(&head, field::WRITE_DATA, data);
        let patience = self.channel.settings().idle_timeout;
        let sending = async {
            let Coming::Headers(headers) = &mut self.answer else {
                return self.messages.send(pieces).await.is_ok();
            };
            tokio::select! {
                // The request leaves when its answer is first asked for.
                biased;
                // The node answers before it has everything: it refuses, or the way is gone.
                answered = headers => {
                    self.answer = match answered.and_then(|response| {
                        Answer::new(&self.channel, response, patience)
                    }) {
                        Ok(answer) => Coming::Answer(Box::new(answer)),
                        Err(error) => Coming::Headers(Box::pin(async { Err(error) })),
                    };
                    false
                }
                sent = self.messages.send(pieces) => sent.is_ok(),
            }
        };
        let sent = timeout(patience, sending).await;
        if sent.map_err(|_| too_slow(&self.channel, patience))? {
            Ok(())
        } else {
            Err(self.refusal().await)
        }
    }

    /// Why the node takes no more.
    async fn refusal(&mut self) -> crate::Error {
        let patience = self.channel.settings().answer_timeout;
        match timeout(patience, self.reply()).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => self
                .channel
                .unreachable("it answers before the end of the value"),
            Err(_) => too_slow(&self.channel, patience),
        }
    }

    /// The next message of the answer.
    async fn reply(&mut self) -> Result<WriteReply> {
        if let Coming::Headers(headers) = &mut self.answer {
            let response = headers.await;
            // Whatever comes of it, it does not come twice.
            let gone = self.channel.unreachable("the call is over");
            self.answer = Coming::Headers(Box::pin(async { Err(gone) }));
            let patience = self.channel.settings().commit_timeout;
            let answer = Answer::new(&self.channel, response?, patience)?;
            self.answer = Coming::Answer(Box::new(answer));
        }
        let Coming::Answer(answer) = &mut self.answer else {
            return Err(self.channel.unreachable("the call is over"));
        };
        let reply = answer.next().await?;
        reply.ok_or_else(|| self.channel.unreachable("the answer is empty"))
    }
}

#[async_trait]
impl Writing for Stream {
    fn offset(&self) -> u64 {
        self.begun_at
    }

    async fn write(&mut self, mut chunk: Bytes) -> Result<()> {
        while !chunk.is_empty() {
            let data = chunk.split_to(chunk.len().min(MOST_DATA_BYTES));
            if !self.held.1.is_empty() {
                self.flush().await?;
            }
            self.held.1 = data;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, pins: Pins) -> Result<Written> {
        self.held.0.commit = true;
        self.held.0.pins = Some(convert::pins_out(pins));
        self.flush().await?;
        let patience = self.channel.settings().commit_timeout;
        let waited = timeout(patience, self.reply()).await;
        let reply = waited.map_err(|_| too_slow(&self.channel, patience))??;
        Ok(Written {
            size_bytes: reply.size_bytes,
            version: convert::version_in(reply.version),
        })
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Stream");
        shown
            .field("channel", &self.channel)
            .field("sent", &self.sent);
        shown.finish_non_exhaustive()
    }
}
