//! The proof of the store: rows 1 to 13 of the test plan, and the contract suite, against the engine.
//!
//! Every row is seeded, prints what it did, and on failure prints the seed and how to replay it. Volumes are those
//! of every CI run; `ZIMCACHE_TEST_SCALE=50` makes them fifty times as large.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests report by panicking, and rows print what they did"
)]

mod compression;
mod contract;
mod crash;
mod decoders;
mod full_disk;
mod harness;
mod index_memory;
mod leases;
mod model;
mod opening;
mod ops;
mod pins;
mod policy;
mod pressure;
mod record_model;
mod records;
mod restarts;
mod rot;
mod stress;
mod sync_errors;
mod uploads;
mod volume;
