//! `store.meta`: identity and format of a store, two copies, a page each.
//!
//! Written when the store is made, and once more when a store of format 1 is opened: format 2 adds encoded records
//! and a longer manifest, and reads everything of format 1. Capacity is not in it: a store opens with any `max-size`.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{
    checksum::crc,
    page::{PAGE, PageBuf},
};

/// Name of the file.
pub(crate) const NAME: &str = "store.meta";
/// The format this build writes.
pub(crate) const FORMAT: u32 = 2;
/// The oldest format it reads.
pub(crate) const OLDEST_FORMAT: u32 = 1;

const MAGIC: u64 = 0x3154_5f45_4843_4d5a; // "ZMCHE_T1"

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U64,
    crc: U32,
    format: U32,
    store_id: [u8; 16],
    hash_key: [u8; 16],
    segment_bytes: U64,
    created_millis: U64,
}

/// Identity of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Random, given when the store was made.
    pub(crate) store_id: [u8; 16],
    /// Secret of the index hash: nobody can craft colliding keys.
    pub(crate) hash_key: [u8; 16],
    /// Bytes of every segment file.
    pub(crate) segment_bytes: u64,
    /// When the store was made.
    pub(crate) created_millis: u64,
    /// The format the file tells; records of all formats up to it may follow.
    pub(crate) format: u32,
}

/// What a meta file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A store this build reads.
    Current(Meta),
    /// A store of another format version.
    Format(u32),
    /// Neither copy passes its checksum.
    Damaged,
}

/// Both copies, ready to be written.
pub(crate) fn encode(meta: &Meta) -> PageBuf {
    let mut raw = Raw {
        magic: MAGIC.into(),
        crc: 0.into(),
        format: meta.format.into(),
        store_id: meta.store_id,
        hash_key: meta.hash_key,
        segment_bytes: meta.segment_bytes.into(),
        created_millis: meta.created_millis.into(),
    };
    raw.crc = crc(&raw.as_bytes()[12..]).into();
    let mut pages = PageBuf::zeroed(2);
    for copy in pages.bytes_mut().chunks_exact_mut(PAGE) {
        copy[..size_of::<Raw>()].copy_from_slice(raw.as_bytes());
    }
    pages
}

/// Reads whichever copy passes.
pub(crate) fn decode(bytes: &[u8]) -> Found {
    for copy in bytes.chunks(PAGE) {
        let Ok((raw, _)) = Raw::ref_from_prefix(copy) else {
            continue;
        };
        if raw.magic.get() != MAGIC || crc(&raw.as_bytes()[12..]) != raw.crc.get() {
            continue;
        }
        if !(OLDEST_FORMAT..=FORMAT).contains(&raw.format.get()) {
            return Found::Format(raw.format.get());
        }
        return Found::Current(Meta {
            store_id: raw.store_id,
            hash_key: raw.hash_key,
            segment_bytes: raw.segment_bytes.get(),
            created_millis: raw.created_millis.get(),
            format: raw.format.get(),
        });
    }
    Found::Damaged
}
