//! A wire to the server that breaks once: the first answer longer than a limit is cut there, everything after is whole.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use zimcache_telemetry::task;

/// A running wire; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) cuts: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A wire to `server` that cuts the first answer that is longer than `limit` bytes.
pub(crate) async fn cut_once(server: SocketAddr, limit: usize) -> Wire {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (armed, cuts) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let counted = Arc::clone(&cuts);
    let accepting = task::spawn("wire", async move {
        while let Ok((client, _)) = listener.accept().await {
            let (armed, cuts) = (Arc::clone(&armed), Arc::clone(&counted));
            task::spawn("wire", async move {
                let upstream = TcpStream::connect(server).await.unwrap();
                if carry(client, upstream, limit, &armed).await {
                    cuts.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    Wire {
        address,
        cuts,
        accepting,
    }
}

/// Whether the answer was cut.
async fn carry(client: TcpStream, server: TcpStream, limit: usize, armed: &AtomicBool) -> bool {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let questions = task::spawn("wire", async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    let (mut carried, mut chunk) = (0, vec![0; 16 << 10]);
    let mut cut = false;
    while let Ok(length @ 1..) = from_server.read(&mut chunk).await {
        carried += length;
        if carried > limit && armed.swap(false, Ordering::SeqCst) {
            cut = true;
            break;
        }
        if to_client.write_all(&chunk[..length]).await.is_err() {
            break;
        }
    }
    questions.abort();
    cut
}
