//! The durable tier: what nodes keep in an S3 bucket, so that a lost disk or a full one loses nothing.
//!
//! [`Tier`] is all of it, over the records of one node: it uploads what is dirty ([`Uploader`]), fetches what was
//! evicted ([`Fills`]), knows without asking what the bucket cannot have ([`Presence`]), and keeps alive what is used.
//! [`Bucket`] is the S3 client below. Not here: which node owns what (the caller says so as [`Owners`]), how nodes
//! talk, any decision about acknowledgements.
//!
//! Invariants: a record loses its dirty pin only after the bucket has it; an entry in the bucket never goes back to an
//! older version; no reader gets the end of a value whose bytes were not verified; a miss costs no request once the
//! filter is loaded; nothing that was promised is swept; every queue and every buffer is bounded.

mod bucket;
mod budget;
mod error;
mod figures;
mod fill;
mod front;
mod jitter;
mod keys;
mod outage;
mod owners;
mod presence;
mod refresh;
mod settings;
mod sweep;
mod tier;
mod upload;

pub use bucket::{Bucket, Object, Stat};
pub use error::{Error, Result};
pub use figures::{Figures, Operation, Outcome, Requests};
pub use fill::{Fill, Filled, Fills};
pub use owners::{Owners, SoleOwner};
pub use presence::{Known, Presence};
pub use settings::{Access, BucketSettings, TierSettings};
pub use sweep::{SweepOptions, SweepReport};
pub use tier::{Tier, TierParts};
pub use upload::{Drained, Uploader};
