//! The storage contracts: [`BlobStore`] for immutable bytes named by a digest, [`EntryStore`] for versioned named
//! records, [`StoreAdmin`] for the people who run the store.
//!
//! Not here: any engine that survives a restart (`node`), any decision about rights or dialects (`gateway`).
//! [`memory::MemoryStore`] is the reference implementation; [`testing::conformance`] is what every store passes.

pub mod admin;
pub mod blob;
pub mod cluster;
pub mod entry;
pub mod error;
pub mod memory;
pub mod reader;
pub mod replica;
pub mod testing;

pub use admin::{
    BlobInfo, GcOptions, GcReport, Progress, Retention, StoreAdmin, StoreStats, Usage, UsageKind,
    VerifyReport,
};
pub use blob::{BlobStore, BlobWriter, CreateOptions, Touch};
pub use cluster::{ClusterReport, MemberReport};
pub use entry::{Entry, EntryInfo, EntryMeta, EntryStore, EntryWriter, Precondition};
pub use error::{Error, Result};
pub use reader::{ByteRange, ChunkSource, ChunkStream, Encoding, Reader};
pub use replica::{
    PinnedCounts, Pins, Record, RecordHead, RecordInfo, RecordKey, RecordKind, RecordOptions,
    RecordWriter, Replica, Version, Walk, WalkMark, Written,
};
