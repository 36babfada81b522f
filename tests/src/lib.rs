//! The harness of the tests that treat ZimCache as a black box: they start the real `zim` binary and talk to it over
//! sockets, files and signals, as its users do.
//!
//! Not here: knowledge of the crates under test. The HTTP client, the digests and the expectations are written anew,
//! so that a mistake in the product is not repeated by its judge.
//! Invariants: whatever a test starts is stopped by its process id when its guard goes, also after a panic; ports are
//! chosen by the kernel; files live in a temporary folder; a suite prints the volume it did or why it was skipped.

pub mod artifact;
pub mod bazel;
pub mod builder_client;
pub mod certificate;
pub mod cluster;
pub mod content;
pub mod environment;
pub mod exchange;
pub mod folders;
pub mod http;
pub mod ledger;
pub mod loop_disk;
pub mod monorepo;
pub mod process;
pub mod relay;
pub mod report;
pub mod sccache;
pub mod server;
pub mod setup;
pub mod sources;
pub mod tokens;
pub mod writers;
pub mod zstd_frames;
