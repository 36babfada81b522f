//! The load generator: one thread, many connections (HTTP/1.1, or gRPC over HTTP/2), requests built beforehand.
//!
//! Not a general client: over HTTP/1.1 no pipelining, no chunked bodies, no redirects, and an answer without
//! Content-Length counts as an error. One request is in flight per connection. Closed loop: a connection sends its next request when the
//! answer to the last one is complete. Open loop: requests are due at times drawn beforehand (Poisson), latency counts
//! from the due time, so a stalled server cannot hide its queue. The kernel's work for the client side runs on the
//! generator's core too; [`Outcome`] is read beside both sides' processor time to see which of them was the limit.

mod connection;
mod generator;
pub(super) mod grpc;
mod pace;
mod response;
mod work;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::{Registry, Token};

pub(super) use generator::run;
pub(super) use pace::Pace;
pub(super) use work::{Method, WorkList};

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// After this long; what completes before the warm-up ended does not count. A work list that does not repeat may
    /// end it earlier.
    Window {
        /// Not measured.
        warm_up: Duration,
        /// Measured.
        measure: Duration,
    },
    /// When the work list is done.
    Once,
}

/// Requests in order, of one protocol.
pub(super) trait Work: Sized {
    /// A connection that speaks the protocol.
    type Channel: Channel<Self>;

    /// The place in the list of the request with this running number; `None` behind the end.
    fn index(&self, number: usize) -> Option<usize>;

    /// Body bytes an upload carries; 0 for reads, whose bytes are counted as they arrive.
    fn upload_bytes(&self, index: usize) -> u64;
}

/// One connection. Sockets are edge-triggered: each call goes on until it is done or the kernel says "not now".
pub(super) trait Channel<W>: Sized {
    /// Connects and registers.
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self>;

    /// Begins a request and sends what the socket takes.
    fn send(&mut self, work: &W, index: usize) -> Result<()>;

    /// Sends more of the request under way.
    fn send_on(&mut self, work: &W) -> Result<()>;

    /// Reads until the answer is complete or the socket is empty, and checks a complete answer.
    fn receive(&mut self, work: &W, buffer: &mut [u8]) -> Result<Received>;
}

/// What reading gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    /// Body bytes of the answer read now.
    body_bytes: u64,
    /// The answer once it is complete: right, or what is wrong with it.
    answer: Option<Result<(), String>>,
    /// The server closed the connection before it answered anything.
    closed: bool,
    /// The server will close the connection after this answer.
    closing: bool,
}

/// One run.
#[derive(Debug)]
pub(super) struct Plan<'a, W = WorkList<'a>> {
    /// Where the server listens.
    pub(super) address: SocketAddr,
    /// Connections kept open.
    pub(super) connections: usize,
    /// What is asked.
    pub(super) work: &'a W,
    /// When it is asked.
    pub(super) pace: Pace,
    /// When to stop.
    pub(super) limit: Limit,
}

/// What a run gave.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Requests completed while measuring.
    pub(super) requests: u64,
    /// Body bytes of them; of answers also the bytes of those still under way.
    pub(super) body_bytes: u64,
    /// How long was measured.
    pub(super) elapsed: Duration,
    /// Latency in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Wrong status, wrong length, broken connection.
    pub(super) errors: u64,
    /// The first of them.
    pub(super) first_error: Option<String>,
    /// Connections the server closed between requests.
    pub(super) reconnects: u64,
}

impl Outcome {
    /// Requests per second.
    pub(super) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Body bytes per second.
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.body_bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Body bytes per second, in MiB.
    pub(super) fn mib_per_second(&self) -> f64 {
        self.bytes_per_second() / f64::from(1 << 20)
    }

    /// Latency at a percentile, in microseconds.
    pub(super) fn micros_at(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1e3
    }
}
