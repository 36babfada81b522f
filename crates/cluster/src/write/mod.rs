//! Writing to several nodes at once, so that an acknowledgement keeps its promise.
//!
//! - [`fan`] sends one body to all owners, with stand-ins for those that cannot be reached.
//! - [`commit`] ends it and tells who acknowledged; [`late`] is what goes on after that.
//! - [`quorum`] counts what was acknowledged and has the missing copies made: [`fetch`] by other nodes, or the durable [`tier`]
//!   takes it. What missed an owner carries a [`hint`].
//! - [`blob`] and [`entry`] are the writers of the two contracts.
//!
//! Invariants: at least one counted copy is on an owner of the newest ring known; every copy of a write that missed an
//! owner carries the hint; no acknowledgement with fewer copies than the namespace's class asks for.

mod blob;
mod commit;
mod entry;
mod fan;
mod fetch;
mod hint;
mod late;
mod quorum;
mod tier;

pub(crate) use blob::{BlobPut, EmptyPut};
pub(crate) use entry::{EntryPut, delete};
