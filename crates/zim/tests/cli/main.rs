//! The real `zim` binary, run as a person or a script runs it: exit codes, what it prints, and what it leaves on disk.
//!
//! Every server listens on port 0 of 127.0.0.1 and is ended by its own process id.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its fixtures too"
)]
#![allow(clippy::panic, reason = "a test fails by panicking, its fixtures too")]

mod access;
mod client;
mod deploy;
mod look_after;
mod mutual_tls;
mod objects;
mod process;
mod seeds;
mod serve;
mod settings;
mod setup;
mod tokens;
