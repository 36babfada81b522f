//! The segment store engine: everything of one disk.
//!
//! ```text
//! blobs.rs, entries.rs       the two contracts
//! blob_writer.rs, entry_writer.rs   a blob or an entry being written
//! upload.rs, resume.rs       bodies coming in: pieces, parts, interrupted uploads
//! lane.rs, decide.rs, tail.rs   group commit: decide, lay out, write, sync, publish, acknowledge
//! codec.rs, packing.rs, encoded.rs   compression: whether and how, on the way in, on the way out
//! read.rs, value.rs          records and large values going out, verified; those in RAM
//! manifest.rs                which parts make up a large value, and losing it when one is gone
//! presence.rs, leases.rs     which of many blobs are there, and that they stay, also across a restart
//! pins.rs, settle.rs, notes.rs   what must stay until it is settled, also across a restart
//! replica.rs, record_writers.rs, walk.rs   being one store of several: records by name, version and pins
//! index.rs, slot.rs          where every live record lies: 16 bytes of RAM each
//! segment.rs, space.rs       files: formats, the table of those in use, the pool of free ones
//! record.rs, batch.rs, meta.rs, entry_front.rs, checksum.rs   bytes on disk
//! recovery.rs, scan.rs       opening after a stop or a crash
//! maintenance.rs, scrub.rs   sealing, verifying
//! reclaim.rs, verdict.rs, moving.rs   making room: which segment, what of it leaves, what moves
//! retention.rs, collect.rs   what leaves because of its age, or because somebody asked
//! ledger.rs                  what is held, by namespace and kind
//! ```
//! Threads: one for each lane and one for maintenance; readers run wherever they are called. Lock order: `reclaiming`
//! before everything, then `draining`; all other locks are leaves and never held across a disk operation, except the
//! pool's while a segment file is made.

pub(crate) mod admin;
pub(crate) mod batch;
mod blob_writer;
pub(crate) mod blobs;
pub(crate) mod buffers;
pub(crate) mod checksum;
pub(crate) mod codec;
pub(crate) mod collect;
pub(crate) mod decide;
pub mod disk;
pub(crate) mod encoded;
pub(crate) mod entries;
pub(crate) mod entry_front;
mod entry_writer;
pub(crate) mod hot;
pub(crate) mod index;
pub(crate) mod lane;
mod leases;
mod ledger;
pub(crate) mod maintenance;
pub(crate) mod manifest;
pub(crate) mod meta;
pub(crate) mod moving;
pub(crate) mod namespaces;
pub(crate) mod notes;
pub(crate) mod open;
pub(crate) mod packing;
pub mod page;
pub(crate) mod pins;
pub(crate) mod presence;
pub(crate) mod read;
pub(crate) mod reclaim;
pub(crate) mod record;
mod record_writers;
pub(crate) mod recovery;
pub(crate) mod replica;
pub(crate) mod resume;
pub(crate) mod retention;
pub(crate) mod scan;
pub(crate) mod scrub;
pub(crate) mod segment;
mod settle;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod space;
pub(crate) mod tail;
pub(crate) mod upload;
pub(crate) mod value;
pub(crate) mod verdict;
mod walk;
