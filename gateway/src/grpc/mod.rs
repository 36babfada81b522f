//! gRPC over our own HTTP/2 connections: messages in, messages out, a status in the trailers.
//!
//! A thin layer, so that a blob goes from the socket to the store and back in the pieces in which it came: a `Rope`
//! holds a message's pieces, `incoming` finds messages and their fields in a request's body, `outgoing` makes answers of
//! pieces, `status` says no. Why not a ready-made server: `docs/adr/0009-grpc-without-copies.md`. Not here: what any
//! service means (`protocol::reapi`). Invariants: a message never takes more memory than its limit, and what is held
//! over all requests is bounded; an answer always ends in trailers with a status; nothing is compressed at this layer.

mod incoming;
mod outgoing;
mod status;

pub(crate) use incoming::{Budget, Messages, Progress, Value};
pub(crate) use outgoing::{Form, Pieces, Rpc, reading, streamed, unary, unary_pieces};
pub(crate) use status::{Outcome, Status};
pub(crate) use zimcache_proto::rope::Rope;

/// Media type of requests and answers; requests may add a suffix, such as `+proto`.
pub(crate) const CONTENT_TYPE: &str = "application/grpc";
