//! Who is at the other end of a connection on this machine: the process that has its socket open.
//!
//! So one ring document with one address a node serves everybody, and the fault proxy can still cut a single way.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

/// The name of the process, of those with these ids, that has the socket at this address connected to `to`.
pub(super) fn of(
    from: SocketAddr,
    to: SocketAddr,
    processes: &BTreeMap<u32, String>,
) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = inode_in(&table, from, to)?;
    let wanted = format!("socket:[{inode}]");
    let has = |id: u32| {
        let Ok(open) = fs::read_dir(format!("/proc/{id}/fd")) else {
            return false;
        };
        let mut open = open.flatten();
        open.any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*wanted))
    };
    let found = processes.iter().find(|(id, _)| has(**id));
    found.map(|(_, name)| name.clone())
}

/// The inode of a socket in the kernel's table.
fn inode_in(table: &str, from: SocketAddr, to: SocketAddr) -> Option<&str> {
    let (from, to) = (written(from)?, written(to)?);
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let matches = columns.next()? == from && columns.next()? == to;
        // State, queues, timer, retransmissions, user, time-out, inode.
        matches.then(|| columns.nth(6)).flatten()
    })
}

/// An address as the kernel writes it: the bytes of IPv4 in the order of the machine.
fn written(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_traced_to_the_process_that_made_it() -> std::io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (from, to) = (client.local_addr()?, client.peer_addr()?);
        let me = BTreeMap::from([(std::process::id(), "me".to_owned())]);
        assert_eq!(of(from, to, &me), Some("me".to_owned()));
        let nobody = BTreeMap::from([(1, "nobody".to_owned())]);
        assert_eq!(of(from, to, &nobody), None);
        Ok(())
    }
}
