//! The proof of the ring: golden vectors, who follows whom, how much moves, how even it is, what a document may say
//! and become.
//!
//! Everything is seeded by constants or by proptest, which prints what failed. No I/O but one temporary file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod balance;
mod changes;
mod documents;
mod golden;
mod harness;
mod load;
mod movement;
mod successors;
