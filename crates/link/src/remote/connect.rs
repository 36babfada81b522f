//! How a byte stream to a node comes into being: TCP, or whatever a simulation puts in its place.

use std::{fmt, io};

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::wire::Io;

/// Makes byte streams to nodes.
#[async_trait]
pub trait Connect: Send + Sync + fmt::Debug + 'static {
    /// A stream to a host and port, as in `10.0.0.7:4711`.
    ///
    /// # Errors
    /// When there is nobody.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Io>>;
}

/// Connects over TCP, without delay for small messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnect;

#[async_trait]
impl Connect for TcpConnect {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// An address without its scheme and what follows the port, and the host in it; `None` when that is missing.
pub(super) fn host_and_port(address: &str) -> Option<(&str, &str)> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let target = rest.split('/').next()?;
    let (host, port) = target.rsplit_once(':')?;
    let fine = !host.is_empty() && port.parse::<u16>().is_ok();
    fine.then_some((target, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_scheme_and_needs_a_port() {
        for (address, expected) in [
            ("10.0.0.7:4711", Some(("10.0.0.7:4711", "10.0.0.7"))),
            (
                "https://node-1.zim:80/",
                Some(("node-1.zim:80", "node-1.zim")),
            ),
            ("http://[::1]:9", Some(("[::1]:9", "[::1]"))),
            ("node-1", None),
            (":80", None),
            ("node:http", None),
            ("", None),
        ] {
            assert_eq!(host_and_port(address), expected, "{address}");
        }
    }
}
