//! Answers reads of what is small, in the order in which they are done.
//!
//! What is at hand is answered at once, and all that is ready leaves together. What fails, or is longer than a small read
//! may be, is not answered here: the caller asks again in a call, which says why. Invariants: never more reads under way
//! than [`MOST_SMALL_READS`] and one; no read is begun once this node is finishing.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
    stream::{self, FuturesUnordered},
};
use http::{HeaderMap, HeaderValue};
use tokio::sync::watch;
use tracing::Instrument as _;
use zimcache_proto::node::{SmallRead, SmallReply};
use zimcache_telemetry::trace;

use super::{Stage, reading};
use crate::{
    Peer, Result,
    wire::{Call, MOST_SMALL_READS, Messages, Outgoing, Pieces, SMALL_BYTES, convert, field, put},
};

/// So many bytes of answers leave together.
const TOGETHER_BYTES: usize = 64 << 10;

pub(super) fn answer(
    peer: &Arc<dyn Peer>,
    messages: Messages,
    stage: watch::Receiver<Stage>,
) -> Outgoing {
    let reads = Reads {
        peer: Arc::clone(peer),
        messages,
        stage,
        is_last: false,
        under_way: FuturesUnordered::new(),
        aborts: HashMap::new(),
    };
    let answers = stream::unfold(reads, async |mut reads| {
        let answers = reads.next().await?;
        Some((answers, reads))
    });
    Outgoing::answers_to_come(answers.boxed())
}

/// An answer with its data.
type Answer = (SmallReply, Bytes);

/// The reads of one stream.
struct Reads {
    peer: Arc<dyn Peer>,
    messages: Messages,
    stage: watch::Receiver<Stage>,
    /// Whether nothing more is begun.
    is_last: bool,
    under_way: FuturesUnordered<Abortable<BoxFuture<'static, Answer>>>,
    aborts: HashMap<u64, AbortHandle>,
}

enum Event {
    Asked(SmallRead),
    Done(Result<Answer, Aborted>),
    Last,
}

impl Reads {
    /// The next answers, at least one; `None` at the end.
    async fn next(&mut self) -> Option<Result<Pieces>> {
        let mut together = BytesMut::new();
        loop {
            let event = match self.event().now_or_never() {
                Some(event) => event,
                None if together.is_empty() => self.event().await,
                None => None,
            };
            let answer = match event {
                Some(Ok(event)) => self.take(event),
                Some(Err(error)) => return Some(Err(error)),
                None if together.is_empty() => return None,
                None => return Some(Ok(Pieces::of_parts(together, Bytes::new()))),
            };
            let Some((reply, data)) = answer else {
                continue;
            };
            let data = put(&mut together, &reply, field::SMALL_DATA, data);
            if !data.is_empty() || together.len() >= TOGETHER_BYTES {
                return Some(Ok(Pieces::of_parts(together, data)));
            }
        }
    }

    /// What happens next; `None` when nothing more does. Nothing is lost when this future is dropped.
    async fn event(&mut self) -> Option<Result<Event>> {
        if self.is_last && self.under_way.is_empty() {
            return None;
        }
        // The next message may take one of them back. A caller that is one of ours begins no more.
        let has_room = self.aborts.len() <= MOST_SMALL_READS;
        tokio::select! {
            biased;
            Some(done) = self.under_way.next() => Some(Ok(Event::Done(done))),
            _ = self.stage.wait_for(|stage| *stage > Stage::Serving), if !self.is_last => {
                Some(Ok(Event::Last))
            }
            message = self.messages.next(), if has_room && !self.is_last => {
                Some(message.map(|message| message.map_or(Event::Last, Event::Asked)))
            }
        }
    }

    /// The answer that an event brings.
    fn take(&mut self, event: Event) -> Option<Answer> {
        match event {
            Event::Last => self.is_last = true,
            Event::Done(Err(Aborted)) => {}
            Event::Done(Ok(answer)) => {
                self.aborts.remove(&answer.0.number);
                return Some(answer);
            }
            Event::Asked(SmallRead {
                number, read: None, ..
            }) => {
                if let Some(abort) = self.aborts.remove(&number) {
                    abort.abort();
                }
            }
            Event::Asked(asked) => return self.begin(asked),
        }
        None
    }

    /// Begins a read; its answer if that is at hand.
    fn begin(&mut self, asked: SmallRead) -> Option<Answer> {
        let number = asked.number;
        let span = match HeaderValue::from_str(&asked.traceparent) {
            Ok(context) if !context.is_empty() => {
                let headers = HeaderMap::from_iter([(trace::TRACEPARENT, context)]);
                trace::of_call(&headers, Call::Read.name())
            }
            _ => tracing::Span::none(),
        };
        let mut work = read(Arc::clone(&self.peer), asked).instrument(span).boxed();
        if let Some(answer) = (&mut work).now_or_never() {
            return Some(answer);
        }
        let (abort, registration) = AbortHandle::new_pair();
        self.under_way.push(Abortable::new(work, registration));
        self.aborts.insert(number, abort);
        None
    }
}

/// Does a read; without a reply where it fails.
async fn read(peer: Arc<dyn Peer>, asked: SmallRead) -> Answer {
    let number = asked.number;
    let done = async {
        let read = convert::read_in(asked.read.unwrap_or_default())?;
        reading::small(&peer, read, SMALL_BYTES).await
    };
    let (reply, data) = match done.await {
        Ok((reply, data)) => (Some(reply), data),
        Err(_) => (None, Bytes::new()),
    };
    let reply = SmallReply {
        number,
        reply,
        data: Bytes::new(),
    };
    (reply, data)
}
