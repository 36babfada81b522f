//! A node that serves a fake on a port of its own, and the client of it.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use zimcache_link::{Remote, Settings, Tls, serve};
use zimcache_telemetry::task;

use crate::fake::{Fake, Node};

pub(crate) struct Pair {
    pub(crate) fake: Arc<Fake>,
    pub(crate) remote: Remote,
    pub(crate) address: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Pair {
    pub(crate) async fn new(fake: Arc<Fake>) -> Pair {
        Pair::with(fake, None, Settings::default()).await
    }

    pub(crate) async fn with(fake: Arc<Fake>, tls: Option<Tls>, settings: Settings) -> Pair {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Pair::at(listener, address, fake, tls, settings)
    }

    fn at(
        listener: TcpListener,
        address: String,
        fake: Arc<Fake>,
        tls: Option<Tls>,
        settings: Settings,
    ) -> Pair {
        let (stop, stopped) = oneshot::channel();
        let peer = Arc::new(Node(Arc::clone(&fake)));
        let serving = task::spawn(
            "node",
            serve(listener, peer, tls, async {
                stopped.await.ok();
            }),
        );
        Pair {
            fake,
            remote: Remote::new(&address, &settings),
            address,
            stop,
            serving,
        }
    }

    /// Stops in good order; the client is left.
    pub(crate) async fn stop(self) -> (Remote, String) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
        (self.remote, self.address)
    }

    /// Is gone from one moment to the next; the client is left.
    pub(crate) async fn kill(self) -> (Remote, String) {
        self.serving.abort();
        self.serving.await.unwrap_err();
        (self.remote, self.address)
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("still not so: {what}"));
}
