//! The messages of the Remote Execution API (version 2) and of what is spoken beside it, generated from the descriptions
//! in `protos/` by `cargo xtask gen`, so that no build needs protoc; and those of GitHub Actions' cache service, by hand.
//!
//! [`status`] has failure kinds as gRPC codes, [`json`] the form of action results for moon. Not here: services, and any
//! rule about what a good message is (`gateway::action`). Invariants: a stored action result is never re-encoded from
//! these types: clients keep fields in it that we do not know. A field of bytes shares the buffer it was decoded from.
//! Field numbers are the wire contract: the tests hold literal bytes.

pub mod actions;
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated: the specification of each message is named in its source"
)]
#[rustfmt::skip]
mod generated;
pub mod json;
pub mod reapi;
pub mod status;
mod time;
pub mod wire;

pub use prost::{DecodeError, Message};
pub use prost_types::{Any, Duration, Timestamp};

pub use crate::generated::{asset, bytestream, health, reflection, rpc, semver};

/// Every description in `protos/` with what it imports, as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
