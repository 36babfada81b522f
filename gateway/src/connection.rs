//! One connection from its first byte to its end: tell the protocol, drive it, obey the watch, close politely.
//!
//! The handshake and the wait for the first byte are ours: nothing of hyper runs before them. HTTP/1.1 and HTTP/2 with prior knowledge share
//! the port; an `Upgrade: h2c` is ignored, as RFC 9113 wishes. Cancellation: dropping the future drops the socket.
//! Invariant: a peer that we refuse early gets to read the refusal (see `socket`).

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use zimcache_config::GatewayConfig;
use zimcache_telemetry::task;

use crate::{
    Shared,
    connections::Place,
    metrics::Traffic,
    protocol::builder,
    service,
    socket::{Accepted, Spoken, Watched},
    watch::{Command, Conn, Phase},
};

/// Largest header of an HTTP/1 request, all lines together.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Largest buffer for bytes read ahead or to be written on an HTTP/1 connection.
const MAX_BUFFER_BYTES: usize = 256 << 10;
/// Largest decoded header list of an HTTP/2 request.
const MAX_HEADER_LIST_BYTES: u32 = 32 << 10;

/// Requests at once on an HTTP/2 connection; the most that clients of the Remote Execution API send is 100.
const STREAMS: u32 = 128;
/// What a client may send on a stream before we have read it. The connection has as much for each of its streams: else
/// bodies that wait for the store would keep from us the bytes of those that the store waits for.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// What waits on a stream to be sent. More would leave the core's cache before it is.
const SEND_BYTES: usize = 256 << 10;

/// The protocol settings of a gateway, made once.
#[derive(Debug, Clone)]
pub(crate) struct Protocols {
    http1: http1::Builder,
    title_case: http1::Builder,
    http2: http2::Builder<Tasks>,
}

impl Protocols {
    pub(crate) fn new(config: &GatewayConfig) -> Protocols {
        let mut http1 = http1::Builder::new();
        http1
            .half_close(true)
            .header_read_timeout(None)
            .max_header_size(MAX_HEADER_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES)
            .title_case_headers(config.title_case_headers);
        let mut title_case = http1.clone();
        title_case.title_case_headers(true);
        let mut http2 = http2::Builder::new(Tasks);
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(256)
            .max_send_buf_size(SEND_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAMS * STREAM_WINDOW_BYTES);
        Protocols {
            http1,
            title_case,
            http2,
        }
    }

    /// The client whose connections are kept is the one that compares header names letter by letter.
    fn http1(&self, conn: &Conn) -> &http1::Builder {
        if conn.is_kept() {
            &self.title_case
        } else {
            &self.http1
        }
    }
}

/// Runs what HTTP/2 spawns: one task per stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks;

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        task::spawn("stream", future);
    }
}

/// Serves one connection until it ends or the watch cuts it.
pub(crate) async fn run(shared: Arc<Shared>, accepted: Accepted, place: Place) {
    let conn = Arc::clone(&place.conn);
    let mut work = pin!(serve(shared, accepted, Arc::clone(&conn)));
    poll_fn(|cx| match conn.told(cx) {
        Command::Cut => Poll::Ready(()),
        Command::Run | Command::Finish => work.as_mut().poll(cx),
    })
    .await;
}

async fn serve(shared: Arc<Shared>, accepted: Accepted, conn: Arc<Conn>) {
    let begun = {
        let traffic = shared.metrics.traffic.clone();
        let mut begin = pin!(begin(accepted, Arc::clone(&conn), traffic));
        poll_fn(|cx| match conn.told(cx) {
            Command::Run => begin.as_mut().poll(cx),
            Command::Finish | Command::Cut => Poll::Ready(Ok(None)),
        })
        .await
    };
    match begun {
        Ok(Some((socket, Spoken::Http1))) => serve_http1(shared, socket, &conn).await,
        Ok(Some((socket, Spoken::Http2))) => serve_http2(shared, socket, &conn).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, peer = %conn.peer, "connection failed at once"),
    }
}

/// Everything before the first request: the handshake, and which HTTP it is.
async fn begin(
    accepted: Accepted,
    conn: Arc<Conn>,
    traffic: Traffic,
) -> io::Result<Option<(Watched, Spoken)>> {
    let mut socket = Watched::new(accepted.ready().await?, Arc::clone(&conn), traffic);
    let spoken = socket.detect().await?;
    if builder::is_its_client(socket.ahead()) {
        conn.keep();
    }
    Ok(spoken.map(|spoken| (socket, spoken)))
}

async fn serve_http1(shared: Arc<Shared>, socket: Watched, conn: &Arc<Conn>) {
    let protocol = shared.protocols.http1(conn).clone();
    let (state, on) = (Arc::clone(&shared), Arc::clone(conn));
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, conn) = (Arc::clone(&state), Arc::clone(&on));
        async move { Ok::<_, Infallible>(service::answer(shared, conn, request).await) }
    });
    let mut http = pin!(protocol.serve_connection(TokioIo::new(socket), service));
    let mut finishing = false;
    let outcome = poll_fn(|cx: &mut Context<'_>| {
        if !finishing && conn.told(cx) != Command::Run {
            finishing = true;
            http.as_mut().graceful_shutdown();
        }
        http.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, peer = %conn.peer, "HTTP/1 connection ended early");
    }
}

async fn serve_http2(shared: Arc<Shared>, mut socket: Watched, conn: &Arc<Conn>) {
    let gathered = socket.gather();
    conn.speaks_http2();
    conn.enter(Phase::Head);
    let protocol = shared.protocols.http2.clone();
    let (state, on) = (Arc::clone(&shared), Arc::clone(conn));
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, conn) = (Arc::clone(&state), Arc::clone(&on));
        async move { Ok::<_, Infallible>(service::answer(shared, conn, request).await) }
    });
    let mut http = pin!(protocol.serve_connection(TokioIo::new(socket), service));
    let mut finishing = false;
    let outcome = poll_fn(|cx: &mut Context<'_>| {
        if !finishing && conn.told(cx) != Command::Run {
            finishing = true;
            http.as_mut().graceful_shutdown();
        }
        let ended = http.as_mut().poll(cx);
        match gathered.poll_send(cx) {
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, peer = %conn.peer, "HTTP/2 connection failed");
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) | Poll::Pending => ended,
        }
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, peer = %conn.peer, "HTTP/2 connection ended early");
    }
}
