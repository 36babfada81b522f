//! The rest of a value on its way from a node; when the node breaks off, from the next one at the same offset.
//!
//! Invariants: never a byte twice, never one left out; another version of an entry is no continuation; when no source
//! is left the value fails, it is never short.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_link::{Body, Error, Read, Result};
use zimcache_store::{ByteRange, ChunkStream, Reader, RecordKey, Version};

use crate::{
    ask::{Hit, Said, ask, broken, check},
    node::{InFlight, Node, store_error},
    shared::{Shared, count},
};

/// A value that is being read.
#[derive(Debug)]
pub(crate) struct Source {
    shared: Arc<Shared>,
    key: RecordKey,
    version: Version,
    total: u64,
    position: u64,
    end: u64,
    /// Where it comes from.
    from: Arc<Node>,
    first: Option<Bytes>,
    body: Box<dyn Body>,
    in_flight: InFlight,
    /// Where else it may come from; that node itself once more at last.
    others: Vec<Arc<Node>>,
}

impl Source {
    /// The value that was found; `others` are asked in this order when it breaks off.
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: RecordKey,
        hit: Hit,
        others: impl IntoIterator<Item = Arc<Node>>,
    ) -> Source {
        let others = others
            .into_iter()
            .filter(|node| !Arc::ptr_eq(node, &hit.node));
        let others = others.chain([Arc::clone(&hit.node)]).collect();
        Source {
            shared,
            key,
            version: hit.head.version,
            total: hit.total,
            position: hit.range.start,
            end: hit.range.end,
            from: hit.node,
            first: hit.first,
            body: hit.body,
            in_flight: hit.in_flight,
            others,
        }
    }

    /// Size of the whole value in bytes.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// A reader of it; without a stream when all of it is at hand.
    pub(crate) fn into_reader(mut self) -> Reader {
        let left = self.end - self.position;
        match self.first.take() {
            Some(first) if first.len() as u64 == left => {
                Reader::from_part(self.total, self.position, first)
            }
            None if left == 0 => Reader::from_part(self.total, self.position, Bytes::new()),
            first => {
                self.first = first;
                let (total, range) = (self.total, self.position..self.end);
                Reader::from_stream(total, range, Box::new(Streaming::new(self)))
            }
        }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.position == self.end {
            return None;
        }
        let chunk = match self.first.take() {
            Some(first) => first,
            None => match self.receive().await {
                Ok(chunk) => chunk,
                Err(error) => return Some(Err(error)),
            },
        };
        self.position += chunk.len() as u64;
        Some(Ok(chunk))
    }

    /// The next bytes from here or from elsewhere.
    async fn receive(&mut self) -> Result<Bytes> {
        let limit = self.shared.config.timing.read_stall;
        let failure = match tokio::time::timeout(limit, self.body.next()).await {
            Ok(Some(Ok(chunk))) => match check(&self.from, &chunk, self.end - self.position) {
                Ok(()) => return Ok(chunk),
                Err(error) => error,
            },
            Ok(Some(Err(error))) => error,
            Ok(None) => broken(&self.from),
            Err(_) => self.from.unreachable("it sent nothing for too long"),
        };
        self.from.note::<()>(&Err(failure.clone()));
        self.switch(failure).await
    }

    /// Goes on from another node.
    async fn switch(&mut self, mut failure: Error) -> Result<Bytes> {
        while !self.others.is_empty() {
            let node = self.others.remove(0);
            tracing::info!(%failure, to = &*node.id, "a value goes on from another node");
            match self.resume(&node).await {
                Ok(Some(chunk)) => {
                    count(&self.shared.counts.switches);
                    return Ok(chunk);
                }
                Ok(None) => {}
                Err(error) => failure = error,
            }
        }
        Err(broken(&self.from))
    }

    async fn resume(&mut self, node: &Arc<Node>) -> Result<Option<Bytes>> {
        let read = Read {
            epoch: self.shared.view().epoch(),
            key: self.key.clone(),
            range: ByteRange::From {
                first: self.position,
                last: Some(self.end - 1),
            },
            fill: false,
        };
        let said = ask(node, read, self.shared.config.timing.first_byte).await?;
        let Said::Yes(hit) = said else {
            return Ok(None);
        };
        let is_same = hit.head.version == self.version && hit.total == self.total;
        if !is_same || hit.range != (self.position..self.end) {
            return Ok(None);
        }
        self.from = hit.node;
        self.body = hit.body;
        self.in_flight = hit.in_flight;
        Ok(hit.first)
    }
}

/// A step towards the next bytes, which owns the source meanwhile.
type Step = Pin<Box<dyn Future<Output = (Box<Source>, Option<Result<Bytes>>)> + Send>>;

/// A source as a stream. The mutex is for the type alone: a stream has one user, who never waits for it.
struct Streaming(Mutex<Stage>);

enum Stage {
    Idle(Box<Source>),
    Busy(Step),
    Over,
}

impl Streaming {
    fn new(source: Source) -> Streaming {
        Streaming(Mutex::new(Stage::Idle(Box::new(source))))
    }
}

impl fmt::Debug for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streaming")
    }
}

impl ChunkStream for Streaming {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<zimcache_store::Result<Bytes>>> {
        let stage = self.0.get_mut();
        let mut step = match std::mem::replace(stage, Stage::Over) {
            Stage::Idle(mut source) => Box::pin(async move {
                let chunk = source.next().await;
                (source, chunk)
            }),
            Stage::Busy(step) => step,
            Stage::Over => return Poll::Ready(None),
        };
        let polled = step.as_mut().poll(cx);
        if polled.is_pending() {
            *stage = Stage::Busy(step);
        }
        let (source, chunk) = ready!(polled);
        if matches!(chunk, Some(Ok(_))) {
            *stage = Stage::Idle(source);
        }
        Poll::Ready(chunk.map(|chunk| chunk.map_err(store_error)))
    }
}
