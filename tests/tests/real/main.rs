//! Black-box tests of the real `zim` binary: real build tools, kills, power cuts, full and damaged disks, bad input.
//!
//! One binary, so that it links once. Build `zim` first (`cargo build --bin zim`) or name it with `ZIM_BIN`.
//! Tests that need the machine alone take a [`zimcache_tests::report::Turn`]; volumes grow with `ZIMCACHE_TEST_SCALE`.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation is how a test fails"
)]

mod actions_cache;
mod bazel;
mod bazel_downloader;
mod bazel_grpc;
mod builder;
mod buildstream;
mod casd;
mod ccache;
mod churn;
mod cluster_chaos;
mod cluster_faults;
mod cluster_make;
mod cluster_scale;
mod compression;
mod crash;
mod damage;
mod exchanges;
mod full_disk;
mod gradle;
mod grpcreadclient;
mod h2spec;
mod hostile;
mod maven;
mod moon;
mod moon_grpc;
mod nx;
mod observability;
mod openapi;
mod page;
mod polykit;
mod polykit_client;
mod power_cut;
mod proxy;
mod sccache_gha;
mod sccache_webdav;
mod sync;
mod table;
mod traces;
mod turbo;
mod two_gateways;
