//! Which node holds what.
//!
//! - [`document`] is the ring document: an epoch, its members, and at most two placements. [`change`] are the pure
//!   steps from one document to the next; whoever writes the document (`zim cluster`, the operator) uses only those.
//! - [`Ring`] answers, for one epoch, who owns a [`Point`]. It is a table on the `hashring` crate, built once per epoch
//!   and cheap to clone; publish a new one by swapping it.
//! - [`load`] chooses among the candidates of a key by what is in flight.
//!
//! Not here: following the document (a file, an endpoint, Kubernetes), connections, replication. No runtime, no clock,
//! no randomness.
//!
//! Invariants: hash "v1" never changes, a new hash is a new name and a transition (golden vectors in the tests);
//! every list of nodes is of distinct nodes; a [`Document`] that exists is valid.

pub mod change;
pub mod document;
mod error;
pub mod key;
pub mod load;
mod points;
mod ring;
mod successors;
mod table;
mod validate;

pub use change::{Change, Refusal, next};
pub use document::{Document, Member, Placement, State};
pub use error::{Error, Problem, Problems, Result, Which};
pub use key::{Point, RingKey};
pub use ring::{NodeIx, Owners, ReadSet, Ring};
