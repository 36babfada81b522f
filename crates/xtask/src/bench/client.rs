//! A plain blocking client for what is not timed: filling a server, checking bodies, asking for figures.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use zimcache_types::{Digest, Function};

use super::{
    corpus::{Blob, Payload},
    load::{self, Limit, Method, Pace, Plan, WorkList},
};

/// Connections used for filling.
const FILL_CONNECTIONS: usize = 64;

/// Status and body of one GET on a fresh connection.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .context("the answer has no head")?;
    let status = answer
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .context("the answer has no status")?;
    Ok((status, answer.split_off(end + 4)))
}

/// Whether the server has the blob.
pub(super) fn has(address: SocketAddr, blob: &Blob) -> Result<bool> {
    let (status, body) = get(address, &format!("/cas/{}", blob.hash))?;
    Ok(status == 200 && body.len() as u64 == blob.length)
}

/// Uploads all blobs.
pub(super) fn fill(address: SocketAddr, payload: &Payload, blobs: &[Blob]) -> Result<()> {
    let work = WorkList::new(address, Method::Put, payload, blobs, false);
    let outcome = load::run(&Plan {
        address,
        connections: FILL_CONNECTIONS.min(blobs.len()),
        work: &work,
        pace: Pace::Closed,
        limit: Limit::Once,
    })?;
    if outcome.errors > 0 {
        bail!(
            "filling failed {} times, first: {}",
            outcome.errors,
            outcome.first_error.unwrap_or_default()
        );
    }
    Ok(())
}

/// Reads blobs and checks every byte; this also warms them.
pub(super) fn verify(address: SocketAddr, blobs: &[Blob]) -> Result<()> {
    for blob in blobs {
        let (status, body) = get(address, &format!("/cas/{}", blob.hash))?;
        ensure!(
            status == 200,
            "{} is answered with status {status}",
            blob.hash
        );
        let found = Digest::of(Function::Sha256, &body);
        ensure!(found.hash == blob.hash, "{} has the wrong bytes", blob.hash);
    }
    Ok(())
}
