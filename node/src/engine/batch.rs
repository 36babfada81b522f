//! Batches: what one lane writes and syncs at once. A header page start, records packed behind it, padding to a page.
//!
//! A batch starts on a page boundary, so that a power cut during the next one cannot tear it. `durable_upto` vouches
//! for earlier batches of the lane: a bad record at or below it is bit rot, above it a torn tail.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{
    checksum::{Salt, salted},
    page::PAGE,
};

/// Bytes of a batch header; records start behind it.
pub(crate) const HEADER: usize = 48;
/// Most bytes of one batch.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Most records of one batch.
pub(crate) const MAX_RECORDS: usize = 1024;

const MAGIC: u32 = 0x5a43_4254;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32,
    crc: U32,
    lane: u8,
    spare: [u8; 3],
    records: U32,
    number: U64,
    time_millis: U64,
    bytes: U32,
    spare2: U32,
    durable_upto: U64,
}

const _: () = assert!(size_of::<Raw>() == HEADER);

/// What a batch's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Which lane wrote it.
    pub(crate) lane: u8,
    /// Records in it; none in a batch that only vouches.
    pub(crate) records: u32,
    /// Grows by one with every batch of the lane.
    pub(crate) number: u64,
    /// Wall clock when it was built.
    pub(crate) time_millis: u64,
    /// Bytes of the whole batch, a multiple of the page size.
    pub(crate) bytes: u32,
    /// Highest number of this lane that was known to be synced.
    pub(crate) durable_upto: u64,
}

/// Writes the header at `batch[0]`, which will lie at `offset`.
pub(crate) fn seal(batch: &mut [u8], header: &BatchHeader, salt: Salt, offset: u64) {
    let mut raw = Raw {
        magic: MAGIC.into(),
        crc: 0.into(),
        lane: header.lane,
        spare: [0; 3],
        records: header.records.into(),
        number: header.number.into(),
        time_millis: header.time_millis.into(),
        bytes: header.bytes.into(),
        spare2: 0.into(),
        durable_upto: header.durable_upto.into(),
    };
    raw.crc = salted(salt, offset, [&raw.as_bytes()[8..], &[]]).into();
    batch[..HEADER].copy_from_slice(raw.as_bytes());
}

/// Reads the header at `bytes[0]`, which lies at `offset`; `None` when it does not pass.
pub(crate) fn open(bytes: &[u8], salt: Salt, offset: u64) -> Option<BatchHeader> {
    let (raw, _) = Raw::ref_from_prefix(bytes).ok()?;
    let length = raw.bytes.get() as usize;
    let plausible = raw.magic.get() == MAGIC
        && length >= PAGE
        && length.is_multiple_of(PAGE)
        && length <= MAX_BYTES + PAGE;
    if !plausible || salted(salt, offset, [&raw.as_bytes()[8..], &[]]) != raw.crc.get() {
        return None;
    }
    Some(BatchHeader {
        lane: raw.lane,
        records: raw.records.get(),
        number: raw.number.get(),
        time_millis: raw.time_millis.get(),
        bytes: raw.bytes.get(),
        durable_upto: raw.durable_upto.get(),
    })
}
