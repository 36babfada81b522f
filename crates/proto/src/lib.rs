//! The messages of the Remote Execution API (version 2) that a cache looks into, written by hand from the published
//! specification (<https://github.com/bazelbuild/remote-apis>), and those of GitHub Actions' cache service, so that no
//! protoc is needed.
//!
//! Not here: services, and any rule about what a good message is (`gateway::action`). Invariant: a stored action
//! result is never re-encoded from these types: clients keep fields in it that we do not know. Field numbers are the
//! wire contract: the tests hold literal bytes.

pub mod actions;
pub mod json;
pub mod reapi;
mod time;
pub mod wire;

pub use prost::{DecodeError, Message};
