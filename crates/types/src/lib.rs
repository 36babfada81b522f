//! The words every other crate shares: digest, chunking, namespace, entry key, version, error code, size, clock.
//!
//! Not here: I/O of any kind, async, and anything only one crate needs. Invariant: every value of these types that
//! came from a client has been validated by its constructor, so that code further down never checks again.

pub mod chunking;
pub mod clock;
pub mod code;
pub mod digest;
pub mod key;
pub mod namespace;
pub mod size;

pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use code::Code;
pub use digest::{Digest, Function, Hash, Hasher};
pub use key::{EntryKey, EntryKind};
pub use namespace::Namespace;
pub use size::ByteSize;
