//! gRPC between gateways and nodes: messages framed on HTTP/2 streams, statuses in trailers, and our types as messages.
//!
//! Framed by ourselves for the reason `docs/adr/0009-grpc-without-copies.md` gives: the bytes of a value pass from the
//! disk to the socket and from the socket to the caller without being copied. Not here: connections (`remote`,
//! `server`). Invariants: a message longer than [`MOST_MESSAGE_BYTES`] is refused by its prefix alone; one that was
//! damaged on its way is never understood as another one; an answer that ends without a status is a broken one.

mod checked;
pub(crate) mod convert;
mod gathered;
mod incoming;
mod outgoing;
pub(crate) mod rows;
mod runtime;
pub(crate) mod status;
mod unhurried;

pub(crate) use gathered::Gathered;
pub(crate) use incoming::{Messages, invalid};
pub(crate) use outgoing::{Outgoing, Pieces, put};
pub use runtime::Io;
pub(crate) use runtime::Tasks;
pub(crate) use unhurried::Unhurried;

/// Media type of requests and answers.
pub(crate) const CONTENT_TYPE: &str = "application/grpc";
/// Longest message taken.
pub(crate) const MOST_MESSAGE_BYTES: usize = 16 << 20;
/// Most bytes of a value that is read over the stream that many reads share: what the store checks in one piece.
pub(crate) const SMALL_BYTES: u64 = 64 << 10;
/// How many reads of that stream may be under way.
pub(crate) const MOST_SMALL_READS: usize = 256;
/// Most bytes of a value in one message.
pub(crate) const MOST_DATA_BYTES: usize = 256 << 10;
/// Largest HTTP/2 frame taken: a message of data is a frame or two.
pub(crate) const FRAME_BYTES: u32 = 512 << 10;
/// How many bytes may be under way in one stream.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// How many in all streams of a connection: so many that a stream whose reader is slow holds up no other one.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// Longest headers or trailers: a ring may be among them.
pub(crate) const HEADERS_BYTES: u32 = 1 << 20;
/// How much of a stream waits to be sent.
pub(crate) const SEND_BYTES: usize = 1 << 20;
/// How many calls of a connection may be under way.
pub(crate) const MOST_STREAMS: u32 = 4096;
/// A peer that says nothing for so long is asked whether it lives.
pub(crate) const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(2);
/// How long its answer may take.
pub(crate) const KEEPALIVE_ANSWER: std::time::Duration = std::time::Duration::from_secs(3);

/// Numbers of the `data` fields.
pub(crate) mod field {
    /// `ReadReply.data`.
    pub(crate) const READ_DATA: u32 = 6;
    /// `SmallReply.data`.
    pub(crate) const SMALL_DATA: u32 = 3;
    /// `WriteRequest.data`.
    pub(crate) const WRITE_DATA: u32 = 10;
}

/// The calls of a node, and the health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    ReadSmall,
    Write,
    Find,
    Pull,
    Settle,
    Delete,
    Purge,
    List,
    Status,
    Manage,
    Health,
}

impl Call {
    const ALL: [Call; 12] = [
        Call::Read,
        Call::ReadSmall,
        Call::Find,
        Call::Write,
        Call::Pull,
        Call::Settle,
        Call::Delete,
        Call::Purge,
        Call::List,
        Call::Status,
        Call::Manage,
        Call::Health,
    ];

    /// Its address. The host is the same for all: nobody looks at it, the connection says whom one speaks to.
    pub(crate) const fn uri(self) -> &'static str {
        match self {
            Call::Read => "http://node/zimcache.node.v1.Node/Read",
            Call::ReadSmall => "http://node/zimcache.node.v1.Node/ReadSmall",
            Call::Write => "http://node/zimcache.node.v1.Node/Write",
            Call::Find => "http://node/zimcache.node.v1.Node/Find",
            Call::Pull => "http://node/zimcache.node.v1.Node/Pull",
            Call::Settle => "http://node/zimcache.node.v1.Node/Settle",
            Call::Delete => "http://node/zimcache.node.v1.Node/Delete",
            Call::Purge => "http://node/zimcache.node.v1.Node/Purge",
            Call::List => "http://node/zimcache.node.v1.Node/List",
            Call::Status => "http://node/zimcache.node.v1.Node/Status",
            Call::Manage => "http://node/zimcache.node.v1.Node/Manage",
            Call::Health => "http://node/grpc.health.v1.Health/Check",
        }
    }

    /// Its name as gRPC has it.
    pub(crate) fn name(self) -> &'static str {
        self.uri().trim_start_matches("http://node/")
    }

    /// The call at a path.
    pub(crate) fn of(path: &str) -> Option<Call> {
        let is_at = |call: &Call| call.uri().strip_prefix("http://node") == Some(path);
        Self::ALL.into_iter().find(is_at)
    }
}
