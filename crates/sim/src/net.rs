//! The simulated network in place of TCP.

use std::{io, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng};
use turmoil::net::{TcpListener, TcpStream};
use zimcache_link::{Io, Listen, remote::Connect};

/// The port of every node.
pub(crate) const PORT: u16 = 4711;
/// Longer than anybody waits for a connection.
const SILENCE: Duration = Duration::from_secs(5);

/// Connects over the simulated network.
#[derive(Debug)]
pub(crate) struct SimConnect(pub(crate) Mutex<StdRng>);

#[async_trait]
impl Connect for SimConnect {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Io>> {
        match TcpStream::connect(address).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                // The network tells at once that a packet was lost. Real ones tell so only where a process has gone
                // and its machine has not.
                let is_silent = self.0.lock().random_bool(0.5);
                if is_silent {
                    tokio::time::sleep(SILENCE).await;
                }
                Err(error)
            }
        }
    }
}

/// Takes connections from the simulated network.
pub(crate) struct SimListen(TcpListener);

impl SimListen {
    pub(crate) async fn bind() -> io::Result<SimListen> {
        TcpListener::bind(("0.0.0.0", PORT)).await.map(SimListen)
    }
}

#[async_trait]
impl Listen for SimListen {
    async fn accept(&mut self) -> io::Result<Box<dyn Io>> {
        let (stream, _) = self.0.accept().await?;
        Ok(Box::new(stream))
    }
}
