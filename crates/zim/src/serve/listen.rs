//! Takes the addresses to listen on, before the store is opened: a busy port is told at once.
//!
//! Invariants: all TCP listeners share one port, and those of TLS another where it has its own; addresses that were given are all taken or none; a Unix socket file
//! is replaced only when nobody listens on it, and removed again when its guard goes.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, Socket, Type};
use zimcache_config::ServeConfig;
use zimcache_gateway::{Listener, Tls};

use super::predecessor::outlive;
use crate::error::{Error, Result};

/// Connections the kernel may hold until they are accepted.
const BACKLOG: i32 = 4096;

/// Everything that is listened on.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) tcp: Vec<TcpListener>,
    /// Those that speak TLS beside others in clear.
    pub(super) tls: Vec<TcpListener>,
    pub(super) unix: Option<BoundUnix>,
    /// Where the TCP listeners are.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Bound {
    /// Whether only this machine can connect.
    pub(super) fn is_local(&self) -> bool {
        self.addresses
            .iter()
            .all(|address| address.ip().is_loopback())
    }

    /// The listeners as the gateway takes them, and the guard of the socket file. Call it on the runtime.
    pub(super) fn into_listeners(
        self,
        tls: Option<Tls>,
    ) -> Result<(Vec<Listener>, Option<SocketFile>)> {
        let on_port = tls.as_ref().filter(|_| self.tls.is_empty());
        let tcp = self.tcp.into_iter().map(|listener| (listener, on_port));
        let tls = self
            .tls
            .into_iter()
            .map(|listener| (listener, tls.as_ref()));
        let all = tcp.chain(tls).map(|(listener, tls)| {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Ok(match tls {
                Some(tls) => Listener::Tls(listener, tls.clone()),
                None => Listener::Tcp(listener),
            })
        });
        let all: io::Result<Vec<_>> = all.collect();
        let mut listeners = all.map_err(Error::Runtime)?;
        let Some(BoundUnix { listener, file }) = self.unix else {
            return Ok((listeners, None));
        };
        let unix = tokio::net::UnixListener::from_std(listener).map_err(Error::Runtime)?;
        listeners.push(unix.into());
        Ok((listeners, Some(file)))
    }
}

/// A Unix socket whose file goes with it.
#[derive(Debug)]
pub(super) struct BoundUnix {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// Removes the file of a Unix socket when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Takes all addresses.
pub(super) fn bind(config: &ServeConfig) -> Result<Bound> {
    let take = |port| match &config.bind {
        Some(addresses) => bind_given(addresses, port),
        None => bind_loopback(port),
    };
    let tcp = take(config.port)?;
    let tls = config.tls.port.map(take).transpose()?.unwrap_or_default();
    let addresses: io::Result<_> = tcp.iter().map(TcpListener::local_addr).collect();
    let unix = config.unix_socket.as_deref().map(bind_unix).transpose()?;
    Ok(Bound {
        tcp,
        tls,
        unix,
        addresses: addresses.map_err(Error::Runtime)?,
    })
}

/// Exactly the addresses given, all on the port of the first.
fn bind_given(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>> {
    // `::` alone also takes IPv4, as the kernel does; beside an IPv4 address it must not.
    let separate = addresses.iter().any(IpAddr::is_ipv4);
    let mut port = port;
    let mut bound = Vec::new();
    for address in addresses {
        let listener = listen(SocketAddr::new(*address, port), separate)?;
        port = listener.local_addr().map_err(Error::Runtime)?.port();
        bound.push(listener);
    }
    Ok(bound)
}

/// 127.0.0.1 and, where it exists, ::1 on the same port.
fn bind_loopback(port: u16) -> Result<Vec<TcpListener>> {
    let first = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), true)?;
    let chosen = first.local_addr().map_err(Error::Runtime)?.port();
    match listen(SocketAddr::from((Ipv6Addr::LOCALHOST, chosen)), true) {
        Ok(second) => Ok(vec![first, second]),
        // The caller asked for this port: a client that resolves localhost to ::1 must not reach somebody else.
        Err(error @ Error::PortInUse(_)) if port != 0 => Err(error),
        Err(_) => Ok(vec![first]),
    }
}

/// The address of the page for those who run the system, where there is to be one.
pub(super) fn keeper(config: &ServeConfig) -> Result<Option<TcpListener>> {
    let at = config.cluster.admin;
    at.map(|at| outlive(|| listen(at, true))).transpose()
}

/// One address.
pub(super) fn listen(address: SocketAddr, only_v6: bool) -> Result<TcpListener> {
    try_listen(address, only_v6).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse(address),
        _ => Error::Listen { address, source },
    })
}

fn try_listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // A restart must not wait for the last connections of the process before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> Result<BoundUnix> {
    remove_stale(path)?;
    let failed = |source| Error::ListenUnix {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(BoundUnix { listener, file })
}

/// Removes a socket file that a killed process left behind.
fn remove_stale(path: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| Error::ListenUnix {
                path: path.to_owned(),
                source,
            }),
        _ => Err(Error::SocketInUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bind: Option<&[&str]>, port: u16) -> ServeConfig {
        let bind = bind.map(|all| all.iter().map(|text| text.parse().unwrap()).collect());
        ServeConfig {
            port,
            bind,
            ..ServeConfig::default()
        }
    }

    #[test]
    fn by_default_both_loopback_addresses_share_one_port() {
        let bound = bind(&config(None, 0)).unwrap();
        assert_eq!(bound.addresses[0].ip(), Ipv4Addr::LOCALHOST);
        assert_ne!(bound.addresses[0].port(), 0);
        for address in &bound.addresses {
            assert!(address.ip().is_loopback());
            assert_eq!(address.port(), bound.addresses[0].port());
        }
    }

    #[test]
    fn given_addresses_are_taken_literally() {
        let bound = bind(&config(Some(&["127.0.0.2"]), 0)).unwrap();
        assert_eq!(bound.addresses.len(), 1);
        assert_eq!(bound.addresses[0].ip().to_string(), "127.0.0.2");
    }

    #[test]
    fn a_busy_port_is_told_as_such() {
        let first = bind(&config(Some(&["127.0.0.1"]), 0)).unwrap();
        let port = first.addresses[0].port();
        let error = bind(&config(None, port)).unwrap_err();
        assert!(matches!(error, Error::PortInUse(address) if address.port() == port));
        assert!(error.to_string().contains("--port"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused_by_name() {
        let error = bind(&config(Some(&["192.0.2.1"]), 0)).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }

    #[test]
    fn a_socket_file_left_behind_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zim.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file");
        let live = bind_unix(&path).unwrap();
        assert!(matches!(bind_unix(&path), Err(Error::SocketInUse(_))));
        drop(live);
        assert!(!path.exists());
        fs::write(&path, "notes").unwrap();
        assert!(matches!(bind_unix(&path), Err(Error::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "notes");
    }
}
