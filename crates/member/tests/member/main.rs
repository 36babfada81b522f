//! Members of a small cluster in one process: what each holds after faults, restarts and ring changes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

mod cluster;
mod conduct;
mod hand_over;
mod pull;
mod recovery;
mod tier;
