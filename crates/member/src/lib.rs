//! How a node behaves in a cluster: what it answers to gateways and other nodes, and what it does of its own accord.
//!
//! [`Member`] is a [`Peer`](zimcache_link::Peer) over a local store. By itself it delivers hints (`hints`), asks the
//! others what it missed before it says that something is absent (`catching_up`), refills a member that has a new disk
//! (`refill`), and hands over at ring changes what it no longer owns (`hand_over`). All of that is one primitive: the
//! target is told to pull. Not here: the store itself (`node`), placement of writes and reads (`cluster`), following the
//! ring's source (`zim`). Invariants: a hint is settled only when every owner said that it holds the record durably;
//! nothing is said to be absent, nor an entry to be the newest, before everybody said what they hold for us; an older
//! version never replaces a newer.

mod catching_up;
mod copies;
mod deletions;
mod figures;
mod hand_over;
mod hints;
mod local;
mod member;
mod notes;
mod peer;
mod pull;
mod refill;
mod rings;
mod throttle;
mod tier;
mod values;

pub use figures::Figures;
pub use member::{Member, Parts, Peers, Settings, Workers};
pub use notes::{Notes, NotesError, Paper};
pub use rings::{Rings, point};
pub use tier::DurableTier;
