//! What gateways and nodes of one cluster can ask of a node: [`Peer`].
//!
//! A node implements it, [`Remote`] is a client of one and [`serve`] offers one, over gRPC; tests put faults between both. Not here: which node
//! is asked (`cluster`), and what a node does with it (`member`). Invariants: [`Error::Unreachable`] says nothing about
//! what the node holds; a value that breaks off is an error, never a short value; dropping a call aborts it.

mod error;
mod peer;
pub mod remote;
mod server;
mod tls;
mod usage;
mod wire;

pub use error::{Error, Result};
pub use peer::{
    Body, Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read,
    Status, StatusQuestion, Write, Writing,
};
pub use remote::{Remote, Settings};
pub use server::{Listen, serve};
pub use tls::{Tls, TlsError};
pub use usage::{usage_from_json, usage_to_json};
pub use wire::Io;
