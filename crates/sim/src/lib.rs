//! The simulation of a whole cluster: real gateways and nodes, in one thread, over a network, clocks and disks that fail
//! by seed.
//!
//! [`run()`] plays one seed: nodes are `zimcache_member::Member` served over a simulated network (turmoil), gateways are
//! `zimcache_cluster::Cluster`, clients put, read, look up and delete through them while faults come and go. Then
//! everything heals, has to converge within a minute, and every key is read through every gateway; `zimcache_history`
//! judges what was seen. A seed always plays the same: time is virtual, and every source of randomness is seeded. Not
//! here: HTTP and its dialects, the segment store (its own tests tear its disks); a disk here is a map in RAM that
//! knows what was synced. For tests alone: nothing depends on this crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a simulation that cannot go on says so by panicking"
)]

mod bug;
mod client;
mod clock;
mod clocked;
mod copies;
mod disk;
mod gateway;
mod journal;
mod nemesis;
mod net;
mod node;
mod operator;
mod plan;
mod random;
mod run;
mod saboteur;
mod value;
mod world;

pub use bug::Bug;
pub use clocked::log;
pub use run::{Report, run};
