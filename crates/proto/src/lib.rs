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
pub mod rope;
pub mod status;
mod time;
pub mod wire;

pub use prost::{DecodeError, Message};
pub use prost_types::{Any, Duration, Timestamp};

pub use crate::generated::{asset, bytestream, health, node, reflection, rpc, semver};

/// Every public description in `protos/` with what it imports, as an encoded `google.protobuf.FileDescriptorSet`. What
/// gateways and nodes speak among themselves is not in it.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_descriptors_need_nothing_else_and_name_every_public_service() {
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut known = HashSet::new();
        for file in &set.file {
            for import in &file.dependency {
                assert!(
                    known.contains(import),
                    "{import} comes after {}",
                    file.name()
                );
            }
            known.insert(file.name().to_owned());
        }
        let services = set.file.iter().flat_map(|file| {
            let name = |service: &prost_types::ServiceDescriptorProto| {
                format!("{}.{}", file.package(), service.name())
            };
            file.service.iter().map(name)
        });
        let mut services: Vec<_> = services.collect();
        services.sort();
        assert_eq!(
            services,
            [
                "build.bazel.remote.asset.v1.Fetch",
                "build.bazel.remote.asset.v1.Push",
                "build.bazel.remote.execution.v2.ActionCache",
                "build.bazel.remote.execution.v2.Capabilities",
                "build.bazel.remote.execution.v2.ContentAddressableStorage",
                "google.bytestream.ByteStream",
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
            ]
        );
    }
}
