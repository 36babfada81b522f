//! The gateway's side of a cluster: `BlobStore`, `EntryStore` and `StoreAdmin` over many nodes.
//!
//! [`Cluster`] places every key by the ring (`zimcache-ring`), speaks to the nodes by `zimcache_link::Peer`, and keeps
//! what `zimcache-store` promises. It holds no state but what it can lose: health of the nodes, small blobs in RAM.
//! Not here: what a node does (hints, hand-over, the durable tier), the wire, where the ring comes from.
//!
//! Invariants:
//! - No acknowledgement with fewer durable copies than the namespace's class says, one of them on an owner; every copy
//!   of a write that missed an owner carries the hint.
//! - NOT_FOUND of a blob needs proof; a timeout is never "missing".
//! - The newest version of an entry wins; a deletion is acknowledged by every owner or not at all.
//! - Every wait has a deadline, every queue a bound; no lock is held across an await.
//!
//! Time is `tokio::time` and the injected clock; there is no randomness but the seed.

mod admin;
mod ask;
mod blobs;
mod cluster;
mod config;
mod entries;
mod flight;
mod gather;
mod latency;
mod minter;
mod missing;
mod node;
mod proof;
mod ram;
mod repair;
mod search;
mod shared;
mod source;
mod view;
mod write;

#[cfg(test)]
mod testing;

pub use cluster::{Cluster, NodeStatus};
pub use config::{Config, Durability, Timing};
pub use shared::Figures;
