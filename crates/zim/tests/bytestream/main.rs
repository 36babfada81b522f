//! The byte stream of the real `zim` binary: uploads that break off, servers that are killed, and what is on the disk.
//!
//! What the calls mean one by one is tested in the gateway. Every server listens on port 0 of 127.0.0.1 and is ended by
//! its own process id.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its fixtures too"
)]
#![allow(clippy::panic, reason = "a test fails by panicking, its fixtures too")]

mod crowd;
mod model;
#[path = "../cli/process.rs"]
#[allow(dead_code, reason = "the tests of the command line use all of it")]
mod process;
mod resume;
mod support;
