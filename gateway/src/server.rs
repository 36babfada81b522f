//! Accepting connections and draining them.
//!
//! One accept loop per listener; each connection is a task of its own. Not here: what a connection does
//! (`connection`). Stop order: no new connections, then requests under way, then whatever is left is cut. Cancellation:
//! dropping `serve`'s future stops accepting and leaves open connections to themselves.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::watch,
};
use zimcache_telemetry::task;

use crate::{
    Shared, connection,
    socket::{Accepted, Socket},
    tls::Tls,
    watch::{Command, Peer},
};

/// How long accepting pauses after it failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Part of the drain time kept for cutting what did not finish.
const CUT_SHARE: u32 = 20;

/// What the gateway accepts connections on.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A TCP port that speaks TLS alone.
    Tls(TcpListener, Tls),
    /// A Unix socket.
    Unix(UnixListener),
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when the drain began.
    pub open: usize,
    /// Connections that had to be cut.
    pub cut: usize,
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = accept_tcp(listener).await?;
                Ok((Accepted::Ready(Socket::Tcp(stream)), Peer::Tcp(address)))
            }
            Listener::Tls(listener, tls) => {
                let (stream, address) = accept_tcp(listener).await?;
                Ok((Accepted::Tls(stream, tls.clone()), Peer::Tls(address)))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Ready(Socket::Unix(stream)), Peer::Unix))
            }
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    // Without it a small answer could wait for the peer's delayed acknowledgement. Fails only on a connection that is
    // gone already.
    stream.set_nodelay(true).ok();
    Ok((stream, address))
}

/// Serves until `shutdown` ends, then drains.
pub(crate) async fn serve<F>(
    shared: &Arc<Shared>,
    listeners: Vec<Listener>,
    shutdown: F,
) -> DrainReport
where
    F: Future<Output = ()> + Send,
{
    // One of several gateways keeps nothing of its own.
    if shared.admin.cluster().is_none() {
        shared.history.restore().await;
    }
    let (stop, stopped) = watch::channel(false);
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let loop_ = accept_loop(Arc::clone(shared), listener, stopped.clone());
            task::spawn("accept", loop_)
        })
        .collect();
    let connections = Arc::clone(&shared.connections);
    let watching = task::spawn("watch", async move { connections.watch().await });
    let figures = Arc::clone(shared);
    let sampling = task::spawn("history", async move {
        figures.history.run(&figures.metrics).await;
    });
    let figures = Arc::clone(shared);
    let asking = task::spawn("held by namespaces", async move {
        figures.metrics.held.follow(figures.admin.as_ref()).await;
    });
    shutdown.await;
    stop.send_replace(true);
    for task in accepting {
        task.await.ok();
    }
    let report = drain(shared).await;
    watching.abort();
    sampling.abort();
    asking.abort();
    shared.history.sample(&shared.metrics);
    shared.history.save().await;
    report
}

async fn accept_loop(shared: Arc<Shared>, listener: Listener, mut stopped: watch::Receiver<bool>) {
    let mut stop = pin!(async move {
        if stopped.wait_for(|stop| *stop).await.is_err() {
            // The server's future was dropped: accepting ends with it.
        }
    });
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let place = tokio::select! {
                    () = &mut stop => return,
                    place = shared.connections.admit(peer) => place,
                };
                task::spawn(
                    "connection",
                    connection::run(Arc::clone(&shared), socket, place),
                );
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting failed; trying again shortly");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether only the connection being accepted is affected, so that the next one may be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn drain(shared: &Arc<Shared>) -> DrainReport {
    let connections = &shared.connections;
    let open = connections.count();
    connections.tell_all(Command::Finish);
    let all = shared.config.drain_timeout;
    let for_cutting = all / CUT_SHARE;
    let finished =
        tokio::time::timeout(all.saturating_sub(for_cutting), connections.all_closed()).await;
    let cut = if finished.is_ok() {
        0
    } else {
        connections.count()
    };
    connections.tell_all(Command::Cut);
    tokio::time::timeout(for_cutting, connections.all_closed())
        .await
        .ok();
    if cut > 0 {
        tracing::warn!(cut, open, "connections were cut at the end of the drain");
    }
    DrainReport { open, cut }
}
