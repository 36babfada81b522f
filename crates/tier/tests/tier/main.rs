//! The durable tier against a real S3 server (versitygw) and against answers made up by a stub.
//!
//! Every test starts its own server on a free port of 127.0.0.1 and stops it by its pid. Nothing waits for luck: what
//! takes time is polled with a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod bucket;
mod entries;
mod fills;
mod life;
mod presence;
mod proxy;
mod replica;
mod server;
mod stub;
mod support;
mod uploads;
