//! Reads of what is small: all those of a connection share one stream of it.
//!
//! A read is a message there and one back, so it costs no call of its own, and what is asked at the same time leaves
//! together. Of a long value this has the beginning; the rest is a call (`reading`). Invariants: a number is used once;
//! what the stream does not answer is asked in a call, so it never decides how a read fails; so many reads at once that
//! their answers are bounded, see [`MOST_SMALL_READS`]. Cancellation: dropping a read takes it back.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use h2::{SendStream, client::ResponseFuture};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};
use zimcache_proto::node::{ReadRequest, SmallRead, SmallReply};
use zimcache_telemetry::{task, trace};

use super::connection::{Life, send_all};
use crate::wire::{MOST_SMALL_READS, Messages, put, status};

/// The stream of a connection. It ends with this.
#[derive(Debug)]
pub(super) struct SmallReads {
    stream: Arc<Stream>,
    _alive: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Stream {
    state: Mutex<State>,
    has_outgoing: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_over: bool,
    last_number: u64,
    waiting: HashMap<u64, oneshot::Sender<SmallReply>>,
    /// Messages that have not left yet.
    outgoing: BytesMut,
}

impl SmallReads {
    /// The stream that was opened.
    pub(super) fn new(answer: ResponseFuture, body: SendStream<Bytes>, life: Arc<Life>) -> Self {
        let (alive, gone) = oneshot::channel();
        let stream = Arc::new(Stream::default());
        let running = Arc::clone(&stream);
        task::spawn("link small reads", async move {
            tokio::select! {
                _ = gone => {}
                () = running.receive(answer, &life) => {}
                () = running.send(body) => {}
            }
            running.end();
        });
        SmallReads {
            stream,
            _alive: alive,
        }
    }

    /// Asks for a value; `None` when this has to be asked in a call.
    pub(super) async fn ask(&self, read: ReadRequest) -> Option<SmallReply> {
        let mut asked = self.stream.begin(read)?;
        let answer = (&mut asked.answer).await.ok()?;
        answer.reply.is_some().then_some(answer)
    }
}

/// A read under way.
struct Asked<'a> {
    stream: &'a Stream,
    number: u64,
    answer: oneshot::Receiver<SmallReply>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.stream.take_back(self.number);
    }
}

impl Stream {
    /// Sends a read; `None` when the stream is over or full.
    fn begin(&self, read: ReadRequest) -> Option<Asked<'_>> {
        let traceparent = trace::traceparent();
        let traceparent = traceparent.and_then(|context| context.to_str().map(str::to_owned).ok());
        let (sender, answer) = oneshot::channel();
        let state = &mut *self.state.lock();
        if state.is_over || state.waiting.len() >= MOST_SMALL_READS {
            return None;
        }
        state.last_number += 1;
        let number = state.last_number;
        state.waiting.insert(number, sender);
        state.say(&SmallRead {
            number,
            read: Some(read),
            traceparent: traceparent.unwrap_or_default(),
        });
        self.has_outgoing.notify_one();
        Some(Asked {
            stream: self,
            number,
            answer,
        })
    }

    /// Tells the node that an answer is no longer wanted, if it has not come.
    fn take_back(&self, number: u64) {
        let state = &mut *self.state.lock();
        if state.waiting.remove(&number).is_some() {
            state.say(&SmallRead {
                number,
                ..SmallRead::default()
            });
            self.has_outgoing.notify_one();
        }
    }

    /// Sends what there is, all of it together, until the node takes no more.
    async fn send(&self, mut body: SendStream<Bytes>) {
        loop {
            self.has_outgoing.notified().await;
            // Others may have something to send too.
            yield_now().await;
            let messages = self.state.lock().outgoing.split().freeze();
            if send_all(&mut body, messages).await.is_none() {
                return;
            }
        }
    }

    /// Hands out answers until there are no more.
    async fn receive(&self, answer: ResponseFuture, life: &Life) {
        let Ok(response) = answer.await else { return };
        // A node that does not know this call says so in the headers.
        if response.status() != StatusCode::OK || status::read(response.headers()).is_some() {
            return;
        }
        let mut messages = Messages::answer(response.into_body());
        loop {
            match messages.next::<SmallReply>().await {
                Ok(Some(reply)) => {
                    life.note_heard();
                    let waiting = self.state.lock().waiting.remove(&reply.number);
                    // Whoever waited may have left meanwhile.
                    waiting.map(|waiting| waiting.send(reply));
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a node's answers to small reads broke off");
                    return life.end();
                }
            }
        }
    }

    /// Lets whoever waits ask in another way.
    fn end(&self) {
        let state = &mut *self.state.lock();
        state.is_over = true;
        state.waiting.clear();
        state.outgoing = BytesMut::new();
    }
}

impl State {
    fn say(&mut self, message: &SmallRead) {
        if !self.is_over {
            put(&mut self.outgoing, message, 0, Bytes::new());
        }
    }
}
