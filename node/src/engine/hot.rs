//! Records in RAM that are read again and again: saves the copy out of the page cache and the second checksum.
//!
//! A record enters, verified and decoded, when it is read from the disk although it was used before; its bytes are
//! then given out as they are. It is known by where it lies and by its segment's generation, so a record that moved, was
//! replaced or deleted is simply never asked for again. Bounded in bytes; what is not asked for leaves.

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use super::{record::Header, segment::Segment};

/// Largest record that is kept, and the smallest: for less, the page cache costs next to nothing.
const KEPT_BYTES: std::ops::RangeInclusive<usize> = 512..=(128 << 10);
/// What a record costs besides its bytes.
const OVERHEAD: usize = 128;

/// Where a record lies, for as long as the store runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    generation: u64,
    offset: u64,
}

/// A verified record: its header, and its payload, decoded.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) header: Header,
    pub(crate) payload: Bytes,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Place, Kept> for ByBytes {
    fn weight(&self, _: &Place, kept: &Kept) -> u64 {
        (kept.payload.len() + OVERHEAD) as u64
    }
}

/// The records kept in RAM.
#[derive(Debug)]
pub(crate) struct Hot(Option<Cache<Place, Kept, ByBytes>>);

impl Hot {
    /// Keeps at most `bytes`; nothing if 0.
    pub(crate) fn new(bytes: u64) -> Hot {
        let items = (bytes / (16 << 10)).max(16) as usize;
        Hot((bytes > 0).then(|| Cache::with_weighter(items, bytes, ByBytes)))
    }

    /// The record at this place, if it is kept.
    pub(crate) fn get(&self, segment: &Segment, offset: u64) -> Option<Kept> {
        self.0.as_ref()?.get(&place(segment, offset))
    }

    /// Keeps a verified record that was used before.
    pub(crate) fn offer(&self, segment: &Segment, offset: u64, header: &Header, payload: &Bytes) {
        let Some(cache) = &self.0 else { return };
        if KEPT_BYTES.contains(&payload.len()) {
            // A copy: the bytes at hand are part of a larger buffer that is wanted back.
            let payload = Bytes::copy_from_slice(payload);
            cache.insert(
                place(segment, offset),
                Kept {
                    header: *header,
                    payload,
                },
            );
        }
    }
}

const fn place(segment: &Segment, offset: u64) -> Place {
    Place {
        generation: segment.salt.generation,
        offset,
    }
}
