//! A [`Peer`] offered over gRPC.
//!
//! One accept loop; each connection is a task, each call another one, which is dropped when its caller goes away. Not
//! here: what a call means (`member`). Stop order: no new connections and calls, then calls under way, then whatever is
//! left is cut. Cancellation: dropping `serve`'s future cuts everything.

mod calls;
mod health;
mod reading;
mod small;
mod writing;

use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use hyper::{server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::task::TaskTracker;
use zimcache_telemetry::task;

use crate::{
    Peer, Tls,
    wire::{
        CONNECTION_WINDOW_BYTES, FRAME_BYTES, Gathered, HEADERS_BYTES, Io, KEEPALIVE,
        KEEPALIVE_ANSWER, MOST_STREAMS, SEND_BYTES, STREAM_WINDOW_BYTES, Tasks, Unhurried,
    },
};

/// How long accepting pauses after it failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a caller may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long calls under way may take once the end has come.
const DRAIN: Duration = Duration::from_secs(10);

/// Where connections come from.
#[async_trait]
pub trait Listen: Send + 'static {
    /// The next one.
    ///
    /// # Errors
    /// When there is none just now.
    async fn accept(&mut self) -> io::Result<Box<dyn Io>>;
}

#[async_trait]
impl Listen for TcpListener {
    async fn accept(&mut self) -> io::Result<Box<dyn Io>> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Without it a small answer could wait for the caller's delayed acknowledgement. Fails only on a connection
        // that is gone already.
        stream.set_nodelay(true).ok();
        Ok(Box::new(stream))
    }
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Finishing,
    Cut,
}

/// Says that everything is cut, also when the future that serves is dropped.
struct Ending(watch::Sender<Stage>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.send_replace(Stage::Cut);
    }
}

/// Offers a peer until `shutdown` ends; then lets calls under way finish, for some seconds.
pub async fn serve(
    mut listener: impl Listen,
    peer: Arc<dyn Peer>,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stage, seen) = watch::channel(Stage::Serving);
    let ending = Ending(stage);
    let connections = TaskTracker::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(io) => {
                let connection = connection(io, Arc::clone(&peer), tls.clone(), seen.clone());
                let connection = connections.track_future(connection);
                drop(task::spawn("link caller", connection));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a node's or gateway's connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    ending.0.send_replace(Stage::Finishing);
    connections.close();
    if timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(
            cut = connections.len(),
            "callers were cut at the end of the drain"
        );
    }
}

async fn connection(
    io: Box<dyn Io>,
    peer: Arc<dyn Peer>,
    tls: Option<Tls>,
    seen: watch::Receiver<Stage>,
) {
    let Some(tls) = tls else {
        return converse(io, peer, seen).await;
    };
    match timeout(HANDSHAKE, tls.accept(io)).await {
        Ok(Ok(io)) => converse(io, peer, seen).await,
        Ok(Err(error)) => tracing::debug!(%error, "a caller is not of this cluster"),
        Err(_) => tracing::debug!("a caller does not shake hands"),
    }
}

/// Answers the calls of one connection.
async fn converse(io: impl Io, peer: Arc<dyn Peer>, mut seen: watch::Receiver<Stage>) {
    let stage = seen.clone();
    let service = service_fn(move |request| {
        let (peer, stage) = (Arc::clone(&peer), stage.clone());
        async move { Ok::<_, Infallible>(calls::answer(&peer, request, stage).await) }
    });
    let io = Gathered::new(io);
    let connection = Builder::new(Tasks)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADERS_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .max_concurrent_streams(MOST_STREAMS)
        // Callers are of this cluster: many calls taken back at once are a burst that was given up, no attack, and the
        // connection that ends for it takes all other calls along.
        .max_pending_accept_reset_streams(MOST_STREAMS as usize)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io.clone()), service);
    let mut connection = pin!(connection);
    let mut serving = true;
    loop {
        let awaited = if serving {
            Stage::Finishing
        } else {
            Stage::Cut
        };
        tokio::select! {
            ended = Unhurried::new(connection.as_mut(), io.clone()) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a caller's connection broke");
                }
                return;
            }
            // The sender is gone only after it said that everything is cut.
            reached = seen.wait_for(|stage| *stage >= awaited) => {
                if reached.is_ok_and(|stage| *stage == Stage::Finishing) && serving {
                    serving = false;
                    connection.as_mut().graceful_shutdown();
                } else {
                    return;
                }
            }
        }
    }
}
