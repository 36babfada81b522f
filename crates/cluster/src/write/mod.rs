//! Writing to several nodes at once, so that an acknowledgement keeps its promise.
//!
//! - [`fan`] sends one body to all owners, with stand-ins for those that cannot be reached.
//! - [`commit`] ends it and tells who acknowledged.
//! - [`quorum`] counts what was acknowledged and has the missing copies made, by pulls.
//! - [`blob`] and [`entry`] are the writers of the two contracts.
//!
//! Invariants: at least one counted copy is on an owner of the newest ring known; every copy of a write that missed an
//! owner carries the hint; no acknowledgement with fewer copies than the namespace's class asks for.

mod blob;
mod commit;
mod entry;
mod fan;
mod quorum;

pub(crate) use blob::{BlobPut, EmptyPut};
pub(crate) use entry::{EntryPut, delete};
