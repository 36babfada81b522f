//! Counts and times the calls between gateways and nodes, on either side.
//!
//! A [`Counted`] stands in front of a [`Peer`] and changes nothing. A read is timed until the head of its answer, a
//! write until it is durable; a question of a request that is traced is a span of the same length. Not here: the calls
//! and the spans of who answers (`zimcache_link`). Calls that their caller gave up are not counted.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use tracing::{Instrument as _, Span};
use zimcache_link::{
    Error, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read,
    Result, Status, StatusQuestion, Write, Writing,
};
use zimcache_store::{ByteRange, Pins, RecordKey, Version, Written};
use zimcache_telemetry::{
    metrics::{Counter, Label, LatencyHistogram, Registry},
    trace,
};
use zimcache_types::Namespace;

/// Who calls whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// This process answers.
    In,
    /// This process asks.
    Out,
}

impl Direction {
    const fn label(self) -> Label {
        match self {
            Direction::In => ("direction", "in"),
            Direction::Out => ("direction", "out"),
        }
    }
}

/// A call, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Find,
    Pull,
    Settle,
    Delete,
    Purge,
    List,
    Status,
    Manage,
}

impl Call {
    const ALL: [(Call, &'static str); 10] = [
        (Call::Read, "read"),
        (Call::Write, "write"),
        (Call::Find, "find"),
        (Call::Pull, "pull"),
        (Call::Settle, "settle"),
        (Call::Delete, "delete"),
        (Call::Purge, "purge"),
        (Call::List, "list"),
        (Call::Status, "status"),
        (Call::Manage, "manage"),
    ];

    /// The name of its span.
    const fn span(self) -> &'static str {
        match self {
            Call::Read => "node read",
            Call::Write => "node write",
            Call::Find => "node find",
            Call::Pull => "node pull",
            Call::Settle => "node settle",
            Call::Delete => "node delete",
            Call::Purge => "node purge",
            Call::List => "node list",
            Call::Status => "node status",
            Call::Manage => "node manage",
        }
    }
}

/// How a call ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    StaleRing,
    Refused,
    Unreachable,
}

impl Outcome {
    const ALL: [(Outcome, &'static str); 4] = [
        (Outcome::Done, "done"),
        (Outcome::StaleRing, "stale_ring"),
        (Outcome::Refused, "refused"),
        (Outcome::Unreachable, "unreachable"),
    ];

    const fn of<T>(result: &Result<T>) -> Outcome {
        match result {
            Ok(_) => Outcome::Done,
            Err(Error::StaleRing { .. }) => Outcome::StaleRing,
            Err(Error::Refused { .. }) => Outcome::Refused,
            Err(Error::Unreachable { .. }) => Outcome::Unreachable,
        }
    }
}

#[derive(Debug)]
struct PerCall {
    ended: [Counter; Outcome::ALL.len()],
    seconds: LatencyHistogram,
}

impl PerCall {
    fn new(registry: &Registry, direction: Direction, call: &'static str) -> PerCall {
        let labels = [direction.label(), ("call", call)];
        PerCall {
            ended: Outcome::ALL.map(|(_, outcome)| {
                registry.counter(
                    "zimcache_link_calls_total",
                    "Calls between gateways and nodes that ended, by direction, call and outcome.",
                    &[labels[0], labels[1], ("outcome", outcome)],
                )
            }),
            seconds: registry.latency(
                "zimcache_link_call_seconds",
                "Time of a call: a read until its head, a write until it is durable.",
                &labels,
            ),
        }
    }
}

/// What was counted of one direction. Clones are the same figures.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    direction: Direction,
    calls: [PerCall; Call::ALL.len()],
    read_bytes: Counter,
    written_bytes: Counter,
}

impl Calls {
    pub(super) fn new(registry: &Registry, direction: Direction) -> Calls {
        let bytes = |name, help| registry.counter(name, help, &[direction.label()]);
        Calls(Arc::new(Figures {
            direction,
            calls: Call::ALL.map(|(_, name)| PerCall::new(registry, direction, name)),
            read_bytes: bytes(
                "zimcache_link_read_bytes_total",
                "Bytes of values that reads between gateways and nodes found.",
            ),
            written_bytes: bytes(
                "zimcache_link_written_bytes_total",
                "Bytes of values that writes between gateways and nodes made durable.",
            ),
        }))
    }

    /// The same peer, counted.
    pub(super) fn count(&self, peer: Arc<dyn Peer>) -> Arc<dyn Peer> {
        Arc::new(Counted {
            peer,
            calls: self.clone(),
        })
    }

    fn ended(&self, call: Call, outcome: Outcome, took: Duration) {
        let figures = &self.0.calls[call as usize];
        figures.ended[outcome as usize].inc();
        figures.seconds.observe(took.as_secs_f64());
    }

    fn span(&self, call: Call) -> Span {
        match self.0.direction {
            Direction::In => Span::none(),
            Direction::Out => trace::asking(call.span()),
        }
    }

    async fn timed<T, W>(&self, call: Call, work: W) -> Result<T>
    where
        W: Future<Output = Result<T>>,
    {
        let began = Instant::now();
        let result = work.instrument(self.span(call)).await;
        self.ended(call, Outcome::of(&result), began.elapsed());
        result
    }
}

/// A peer whose calls are counted.
#[derive(Debug)]
struct Counted {
    peer: Arc<dyn Peer>,
    calls: Calls,
}

#[async_trait]
impl Peer for Counted {
    async fn read(&self, read: Read) -> Result<Found> {
        let range = read.range;
        let found = self.calls.timed(Call::Read, self.peer.read(read)).await?;
        self.calls.0.read_bytes.inc_by(bytes_of(&found, range));
        Ok(found)
    }

    async fn write(&self, write: Write) -> Result<Box<dyn Writing>> {
        let (began, span) = (Instant::now(), self.calls.span(Call::Write));
        match self.peer.write(write).instrument(span.clone()).await {
            Ok(writing) => Ok(Box::new(CountedWriting {
                writing,
                calls: self.calls.clone(),
                began,
                bytes: 0,
                span,
            })),
            refused => {
                let outcome = Outcome::of(&refused);
                self.calls.ended(Call::Write, outcome, began.elapsed());
                refused
            }
        }
    }

    async fn find(&self, find: Find) -> Result<Vec<Presence>> {
        self.calls.timed(Call::Find, self.peer.find(find)).await
    }

    async fn pull(&self, pull: Pull) -> Result<Vec<bool>> {
        self.calls.timed(Call::Pull, self.peer.pull(pull)).await
    }

    async fn settle(&self, records: Vec<(RecordKey, Version)>, pins: Pins) -> Result<()> {
        let settled = self.peer.settle(records, pins);
        self.calls.timed(Call::Settle, settled).await
    }

    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool> {
        let deleted = self.peer.delete(epoch, key);
        self.calls.timed(Call::Delete, deleted).await
    }

    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()> {
        let purged = self.peer.purge(epoch, namespace);
        self.calls.timed(Call::Purge, purged).await
    }

    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        let listed = self.peer.list_entries(listing);
        self.calls.timed(Call::List, listed).await
    }

    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>> {
        let listed = self.peer.list_blobs(listing);
        self.calls.timed(Call::List, listed).await
    }

    async fn status(&self, question: StatusQuestion) -> Result<Status> {
        let status = self.peer.status(question);
        self.calls.timed(Call::Status, status).await
    }

    async fn manage(&self, work: Manage) -> Result<Bytes> {
        self.calls.timed(Call::Manage, self.peer.manage(work)).await
    }
}

/// How many bytes of a value were asked for.
fn bytes_of(found: &Found, range: ByteRange) -> u64 {
    match found {
        Found::Yes {
            head, total_bytes, ..
        } if !head.deleted => {
            let range = range.resolve(*total_bytes);
            range.map_or(0, |range| range.end - range.start)
        }
        _ => 0,
    }
}

/// A write whose end is counted.
#[derive(Debug)]
struct CountedWriting {
    writing: Box<dyn Writing>,
    calls: Calls,
    began: Instant,
    bytes: u64,
    span: Span,
}

#[async_trait]
impl Writing for CountedWriting {
    fn offset(&self) -> u64 {
        self.writing.offset()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let bytes = chunk.len() as u64;
        let written = self.writing.write(chunk).await;
        if written.is_ok() {
            self.bytes += bytes;
        } else {
            // It is not committed after that.
            let outcome = Outcome::of(&written);
            self.calls.ended(Call::Write, outcome, self.began.elapsed());
        }
        written
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let committed = self.writing.commit(pins).instrument(self.span).await;
        let outcome = Outcome::of(&committed);
        self.calls.ended(Call::Write, outcome, self.began.elapsed());
        if committed.is_ok() {
            self.calls.0.written_bytes.inc_by(self.bytes);
        }
        committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_outcomes_are_indexed_in_the_order_they_are_listed() {
        for (index, (call, _)) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, index);
        }
        for (index, (outcome, _)) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }
}
