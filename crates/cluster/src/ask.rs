//! Asking one node for a value, up to its first bytes.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use zimcache_link::{Body, Error, Found, Presence, Read, Result};
use zimcache_store::{Pins, RecordHead};
use zimcache_types::{Code, Timestamp};

use crate::node::{InFlight, Node};

/// What a node said.
pub(crate) enum Said {
    /// There is nothing, as far as it knows.
    No(Presence),
    /// There is a value, or a deletion.
    Yes(Box<Hit>),
}

/// A value found on a node, with its first bytes at hand.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) node: Arc<Node>,
    pub(crate) head: RecordHead,
    pub(crate) created: Timestamp,
    pub(crate) pins: Pins,
    pub(crate) total: u64,
    /// Whether another node may hold a newer version, of which this one has not heard yet.
    pub(crate) is_unsure: bool,
    /// What was asked for of the value.
    pub(crate) range: Range<u64>,
    /// The first bytes; `None` when nothing was asked for.
    pub(crate) first: Option<Bytes>,
    pub(crate) body: Box<dyn Body>,
    pub(crate) in_flight: InFlight,
}

impl Hit {
    /// Whether the first bytes are all that was asked for.
    pub(crate) fn is_all_there(&self) -> bool {
        let first = self.first.as_ref().map_or(0, Bytes::len);
        first as u64 == self.range.end - self.range.start
    }
}

/// Asks a node, and waits for its first bytes for as long as `limit`.
pub(crate) async fn ask(node: &Arc<Node>, read: Read, limit: Duration) -> Result<Said> {
    node.call(limit, open(node, read)).await
}

/// The same, also of a node that is passed over.
pub(crate) async fn ask_anyway(node: &Arc<Node>, read: Read, limit: Duration) -> Result<Said> {
    node.probe(limit, open(node, read)).await
}

async fn open(node: &Arc<Node>, read: Read) -> Result<Said> {
    let in_flight = node.enter();
    let wanted = read.range;
    let (head, created, pins, total, is_unsure, mut body) = match node.peer.read(read).await? {
        Found::No(presence) => return Ok(Said::No(presence)),
        Found::Yes {
            head,
            created,
            pins,
            total_bytes,
            is_unsure,
            body,
        } => (head, created, pins, total_bytes, is_unsure, body),
    };
    let range = if head.deleted {
        0..0
    } else {
        wanted.resolve(total)?
    };
    let first = if range.is_empty() {
        None
    } else {
        let chunk = body.next().await.unwrap_or_else(|| Err(broken(node)))?;
        check(node, &chunk, range.end - range.start)?;
        Some(chunk)
    };
    Ok(Said::Yes(Box::new(Hit {
        node: Arc::clone(node),
        head,
        created,
        pins,
        total,
        is_unsure,
        range,
        first,
        body,
        in_flight,
    })))
}

/// That a chunk has bytes, and no more than are owed.
pub(crate) fn check(node: &Node, chunk: &Bytes, left: u64) -> Result<()> {
    let fits = !chunk.is_empty() && chunk.len() as u64 <= left;
    if fits { Ok(()) } else { Err(broken(node)) }
}

/// That a value was not what it was said to be.
pub(crate) fn broken(node: &Node) -> Error {
    Error::Refused {
        code: Code::Corrupt,
        message: format!("a value from node {} broke off", node.id).into(),
    }
}
