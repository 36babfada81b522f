//! One connection to a node: HTTP/2, without a task or a queue between a call and its stream.
//!
//! Invariant: a connection on which nothing came for a while is asked whether it lives, and given up when it does not
//! say so; then all its calls fail.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Method, Request, Response, header};
use http_body::{Body as _, Frame};
use tokio::time::{sleep, timeout};
use zimcache_telemetry::{task, trace};

use super::small::SmallReads;
use crate::wire::{
    CONNECTION_WINDOW_BYTES, CONTENT_TYPE, Call, FRAME_BYTES, Gathered, HEADERS_BYTES, Io,
    KEEPALIVE, KEEPALIVE_ANSWER, Outgoing, SEND_BYTES, STREAM_WINDOW_BYTES, Unhurried,
};

/// A connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    requests: SendRequest<Bytes>,
    small: Arc<SmallReads>,
    life: Arc<Life>,
}

/// Whether a connection lives.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Something came since this was looked at last.
    heard: AtomicBool,
    is_over: AtomicBool,
}

impl Life {
    /// Notes that something came.
    pub(super) fn note_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Lets nobody begin anything any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }
}

impl Connection {
    /// Shakes hands. The connection ends with its last clone and its last call.
    pub(super) async fn begin(io: impl Io) -> Result<Connection, h2::Error> {
        let io = Gathered::new(io);
        let (mut requests, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(HEADERS_BYTES)
            .max_send_buffer_size(SEND_BYTES)
            .handshake(io.clone())
            .await?;
        let life = Arc::new(Life::default());
        let (pings, seen) = (connection.ping_pong(), Arc::clone(&life));
        task::spawn("link connection", async move {
            tokio::select! {
                biased;
                ended = Unhurried::new(connection, io) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to a node broke");
                    }
                }
                () = watch(pings, &seen) => tracing::debug!("a node is silent"),
            }
            seen.end();
        });
        let (answer, body) = requests.send_request(request(Call::ReadSmall), false)?;
        let small = SmallReads::new(answer, body, Arc::clone(&life));
        Ok(Connection {
            requests,
            small: Arc::new(small),
            life,
        })
    }

    /// The stream that small reads share.
    pub(super) fn small(&self) -> &SmallReads {
        &self.small
    }

    pub(super) fn is_over(&self) -> bool {
        self.life.is_over.load(Ordering::Acquire)
    }

    /// Begins a call.
    ///
    /// # Errors
    /// When the connection is lost; nothing has left then.
    pub(super) async fn call(self, call: Call) -> Result<Calling, h2::Error> {
        let mut requests = self.requests.ready().await?;
        let (answer, body) = requests.send_request(request(call), false)?;
        Ok(Calling {
            answer,
            body,
            life: self.life,
        })
    }
}

/// A call whose headers are on their way.
pub(super) struct Calling {
    answer: ResponseFuture,
    body: SendStream<Bytes>,
    life: Arc<Life>,
}

impl Calling {
    /// Sends the request; the answer's headers.
    pub(super) async fn send(self, body: Outgoing) -> Result<Response<RecvStream>, h2::Error> {
        let mut stream = self.body;
        match body.whole() {
            Ok((head, data)) => {
                stream.send_data(head, data.is_empty())?;
                if !data.is_empty() {
                    stream.send_data(data, true)?;
                }
            }
            Err(body) => drop(task::spawn("link request", pump(body, stream))),
        }
        let answer = self.answer.await?;
        self.life.note_heard();
        Ok(answer)
    }
}

fn request(call: Call) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(call.uri());
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(context) = trace::traceparent() {
        headers.insert(trace::TRACEPARENT, context);
    }
    request
}

/// Sends a body as it comes, as fast as the node takes it, until the node wants no more.
async fn pump(mut body: Outgoing, mut stream: SendStream<Bytes>) {
    loop {
        let frame = tokio::select! {
            biased;
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
            frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)) => frame,
        };
        // A request has no trailers, and making its body cannot fail.
        let data = frame.and_then(Result::ok).map(Frame::into_data);
        let Some(Ok(data)) = data else {
            // The connection may be gone: then the answer says so.
            stream.send_data(Bytes::new(), true).ok();
            return;
        };
        if send_all(&mut stream, data).await.is_none() {
            return;
        }
    }
}

/// Sends bytes; `None` when the node takes no more of this stream.
pub(super) async fn send_all(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = stream.capacity();
        if room == 0 {
            poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
            continue;
        }
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, false).ok()?;
    }
    Some(())
}

/// Ends when the node is silent.
async fn watch(mut pings: Option<PingPong>, life: &Life) {
    let Some(pings) = &mut pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(KEEPALIVE).await;
        if life.heard.swap(false, Ordering::Relaxed) {
            continue;
        }
        if !answers(pings).await {
            return;
        }
    }
}

/// Whether the node says that it lives.
async fn answers(pings: &mut PingPong) -> bool {
    if pings.send_ping(Ping::opaque()).is_err() {
        return false;
    }
    // In halves: when this whole process stood still, the first is over before anything was read.
    for _ in 0..2 {
        let pong = timeout(KEEPALIVE_ANSWER / 2, poll_fn(|cx| pings.poll_pong(cx)));
        if let Ok(pong) = pong.await {
            return pong.is_ok();
        }
    }
    false
}
