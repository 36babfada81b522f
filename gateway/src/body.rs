//! Bodies: what a client sends ([`Upload`]) and what it gets ([`Body`]).
//!
//! Both stream, both are watched: a pause longer than the configured time ends the request. An upload is not asked for
//! (no `100 Continue` is sent) before its first chunk is wanted. Cancellation: dropping either is safe at any point;
//! a dropped [`Body`] ends its request's record.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use zimcache_store::{self as store, Reader};

use crate::{
    Error,
    cache::Chunks,
    error::Result,
    grpc::Rpc,
    service::Record,
    watch::{Conn, Stall},
};

/// Most bytes of an unwanted body that are read so that a connection can be used again.
const DRAIN_BYTES: u64 = 64 << 10;
/// The same for a peer that never opens another connection: as much as Builder's client sends at once by default.
const KEPT_DRAIN_BYTES: u64 = 100_000_000;

/// A request's body.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Absent once it was taken.
    incoming: Option<Incoming>,
    conn: Arc<Conn>,
    stall: Option<Arc<Stall>>,
    asked: bool,
    expects_continue: bool,
    ended: bool,
    failed: bool,
    received_bytes: u64,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, conn: &Arc<Conn>, expects_continue: bool) -> Upload {
        Upload {
            incoming: Some(incoming),
            conn: Arc::clone(conn),
            stall: None,
            asked: false,
            expects_continue,
            ended: false,
            failed: false,
            received_bytes: 0,
        }
    }

    /// Takes the body away, for a call that reads on while its answer is sent.
    pub(crate) fn take(&mut self) -> Upload {
        let rest = Upload {
            incoming: None,
            conn: Arc::clone(&self.conn),
            stall: None,
            ended: true,
            ..*self
        };
        std::mem::replace(self, rest)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let Some(incoming) = self.incoming.as_mut().filter(|_| !self.ended) else {
            return Poll::Ready(None);
        };
        self.asked = true;
        let polled = Pin::new(incoming).poll_frame(cx);
        if polled.is_pending() {
            let stall = self.stall.get_or_insert_with(|| self.conn.stall());
            if stall.wait_read(&self.conn, cx) {
                self.failed = true;
                return Poll::Ready(Some(Err(Error::BodyTimeout)));
            }
            return Poll::Pending;
        }
        if let Some(stall) = &self.stall {
            stall.moved();
        }
        match ready!(polled) {
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "request body failed");
                self.failed = true;
                Poll::Ready(Some(Err(Error::BodyCut)))
            }
            // Trailers carry nothing that we use.
            Some(Ok(frame)) => {
                let chunk = frame.into_data().unwrap_or_default();
                self.received_bytes += chunk.len() as u64;
                Poll::Ready(Some(Ok(chunk)))
            }
        }
    }

    /// The connection on which it comes.
    pub(crate) fn conn(&self) -> &Conn {
        &self.conn
    }

    /// How much of it was read so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Reads a body that is taken into memory whole.
    ///
    /// # Errors
    /// `TooLarge`; `Invalid` when it is cut short, `Timeout`.
    pub(crate) async fn read_within(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.announced_bytes().is_some_and(|size| size > limit) {
            return Err(Error::TooLarge { limit });
        }
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await {
            all.extend_from_slice(&chunk?);
            if all.len() as u64 > limit {
                return Err(Error::TooLarge { limit });
            }
        }
        Ok(all)
    }

    /// Reads a small rest of a body that nobody wanted; false when the connection cannot be used again.
    pub(crate) async fn settle(&mut self) -> bool {
        if self.failed {
            return false;
        }
        let Some(incoming) = self.incoming.as_ref().filter(|_| !self.ended) else {
            return true;
        };
        if incoming.is_end_stream() {
            return true;
        }
        let limit = if self.conn.is_kept() {
            KEPT_DRAIN_BYTES
        } else {
            DRAIN_BYTES
        };
        let unwanted_yet = self.expects_continue && !self.asked;
        if unwanted_yet || incoming.size_hint().lower() > limit {
            return false;
        }
        let mut left = limit;
        while let Some(chunk) = self.next().await {
            let length = chunk.map_or(u64::MAX, |chunk| chunk.len() as u64);
            if length > left {
                return false;
            }
            left -= length;
        }
        true
    }
}

impl Chunks for Upload {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn announced_bytes(&self) -> Option<u64> {
        if self.asked {
            return None;
        }
        self.incoming.as_ref()?.size_hint().exact()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(stall) = &self.stall {
            self.conn.release(stall);
        }
    }
}

/// A body that is in memory: of our own making, or one blob of a batch.
#[derive(Debug)]
pub(crate) struct Held(Option<Bytes>);

impl Held {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Held {
        Held(Some(bytes.into()))
    }
}

impl Chunks for Held {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        self.0.take().map(Ok)
    }

    fn announced_bytes(&self) -> Option<u64> {
        self.0.as_ref().map(|bytes| bytes.len() as u64)
    }
}

/// An answer's body.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    record: Option<Record>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Full(Bytes),
    Value(Reader),
    Lines(mpsc::Receiver<Bytes>),
    Rpc(Rpc),
}

impl Body {
    pub(crate) const fn empty() -> Body {
        Body {
            content: Content::Empty,
            record: None,
        }
    }

    pub(crate) const fn full(bytes: Bytes) -> Body {
        Body {
            content: Content::Full(bytes),
            record: None,
        }
    }

    /// A value of a store.
    pub(crate) fn value(reader: Reader) -> Body {
        let content = match reader.as_bytes() {
            Some(bytes) => Content::Full(bytes.clone()),
            None => Content::Value(reader),
        };
        Body {
            content,
            record: None,
        }
    }

    /// Lines that come one by one.
    pub(crate) const fn lines(lines: mpsc::Receiver<Bytes>) -> Body {
        Body {
            content: Content::Lines(lines),
            record: None,
        }
    }

    /// Messages and a status.
    pub(crate) const fn rpc(rpc: Rpc) -> Body {
        Body {
            content: Content::Rpc(rpc),
            record: None,
        }
    }

    /// Ties the request's record to the body: the request ends when the body does.
    pub(crate) fn recorded(mut self, record: Record) -> Body {
        self.record = Some(record);
        self
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<store::Result<Frame<Bytes>>>> {
        let chunk = match &mut self.content {
            Content::Empty => None,
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                (!bytes.is_empty()).then_some(Ok(bytes))
            }
            Content::Value(reader) => ready!(reader.poll_chunk(cx)),
            Content::Lines(lines) => ready!(lines.poll_recv(cx)).map(Ok),
            Content::Rpc(rpc) => return rpc.poll_frame(cx),
        };
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = store::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, store::Error>>> {
        let this = &mut *self;
        if let Some(record) = &this.record {
            record.asked();
        }
        let frame = ready!(this.poll_content(cx));
        if let Some(record) = &mut this.record {
            match &frame {
                Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, Bytes::len) as u64),
                Some(Err(error)) => record.broke(error),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Value(reader) => reader.remaining_bytes() == 0,
            Content::Lines(_) => false,
            Content::Rpc(rpc) => rpc.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Value(reader) => SizeHint::with_exact(reader.remaining_bytes()),
            Content::Lines(_) | Content::Rpc(_) => SizeHint::default(),
        }
    }
}
