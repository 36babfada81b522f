//! Records: the unit of everything stored. Header, payload checksums, payload, padding to 8 bytes.
//!
//! Layout in `docs/format.md`. A record never crosses a batch, a batch never crosses a segment. The header's checksum
//! covers the payload's checksums, so a record whose header passes can be trusted to describe its payload.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use zimcache_store::{Pins, Version};

use super::checksum::{CHECKED_BLOCK, Salt, block_count, crc, salted};

/// Bytes of a record header.
pub(crate) const HEADER: usize = 88;
/// The bits of [`Header::mark`].
pub(crate) const MARK_MASK: u32 = (1 << 20) - 1;
/// Largest payload of one record: a full part, or an inline entry with its metadata.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

const MAGIC: u32 = 0x5a43_5245; // "ERCZ" on disk

/// What a record is. Numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A whole blob.
    Blob = 1,
    /// A piece of a large value.
    Part = 2,
    /// Makes the parts of a blob visible.
    Manifest = 3,
    /// An entry with its value inline.
    Entry = 4,
    /// An entry whose value is in parts.
    EntryManifest = 5,
    /// Gives a namespace name its number.
    Namespace = 6,
}

impl Kind {
    pub(crate) const fn from_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Blob),
            2 => Some(Kind::Part),
            3 => Some(Kind::Manifest),
            4 => Some(Kind::Entry),
            5 => Some(Kind::EntryManifest),
            6 => Some(Kind::Namespace),
            _ => None,
        }
    }

    /// Records that name each other's key: blobs and manifests are two forms of one thing.
    pub(crate) const fn class(self) -> KeyClass {
        match self {
            Kind::Blob | Kind::Manifest => KeyClass::Blob,
            Kind::Part => KeyClass::Part,
            Kind::Entry | Kind::EntryManifest => KeyClass::Entry,
            Kind::Namespace => KeyClass::Namespace,
        }
    }
}

/// Key spaces of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum KeyClass {
    Blob = 0,
    Part = 1,
    Entry = 2,
    Namespace = 3,
}

/// How a record's value is stored. Numbers are on disk; 3 is kept for zstd frames as a client sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub(crate) enum Encoding {
    /// As it is.
    #[default]
    Identity = 0,
    /// One zstd frame.
    Zstd = 1,
    /// One LZ4 block.
    Lz4 = 2,
}

impl Encoding {
    pub(crate) const fn from_number(number: u8) -> Option<Encoding> {
        match number {
            0 => Some(Encoding::Identity),
            1 => Some(Encoding::Zstd),
            2 => Some(Encoding::Lz4),
            _ => None,
        }
    }
}

/// Flag bits of a record.
pub(crate) mod flag {
    /// Not yet in the durable tier: pinned.
    pub(crate) const DIRTY: u16 = 1;
    /// Waits for another owner: pinned.
    pub(crate) const HINT: u16 = 2;
    /// Must never disappear: pinned.
    pub(crate) const KEEP: u16 = 4;
    /// Says that the key is deleted.
    pub(crate) const TOMBSTONE: u16 = 8;
    /// The blob was leased when the record was written.
    pub(crate) const LEASED: u16 = 16;
    /// Says which blobs were leased when the record was written.
    pub(crate) const TOUCHES: u16 = 32;
    /// Says which records were pinned or settled when the record was written.
    pub(crate) const PINS: u16 = 64;

    /// The bits of these pins.
    pub(crate) const fn of_pins(pins: zimcache_store::Pins) -> u16 {
        (if pins.dirty { DIRTY } else { 0 }) | (if pins.hint { HINT } else { 0 })
    }
}

/// A record header as it lies on disk.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(crate) struct RawHeader {
    magic: U32,
    crc: U32,
    kind: u8,
    function: u8,
    encoding: u8,
    spare: u8,
    flags: U16,
    hint_targets: [U16; 2],
    writer: U32,
    writing: U32,
    spare2: [u8; 2],
    namespace: U32,
    part: U32,
    stored: U32,
    raw_size: U64,
    version: U64,
    key: [u8; 32],
}

const _: () = assert!(size_of::<RawHeader>() == HEADER);

/// What a record's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Digest function number, or the number of the entry kind.
    pub(crate) function: u8,
    /// How the value is stored: the payload, or what is behind an entry's front.
    pub(crate) encoding: Encoding,
    pub(crate) flags: u16,
    /// Number of the namespace.
    pub(crate) namespace: u32,
    /// Part number of a part, number given by a namespace record.
    pub(crate) part: u32,
    /// Payload bytes stored.
    pub(crate) stored: u32,
    /// Size of the value in bytes; of a tombstone: the highest generation that may hold older versions.
    pub(crate) raw_size: u64,
    /// Hybrid clock; higher wins.
    pub(crate) version: u64,
    /// Who gave the version: of two equal ones that of the higher writer wins. 0 where this store gave it.
    pub(crate) writer: u32,
    /// Where the version is not of the clock here: tells the writings of one version apart, which may be written, evicted
    /// and written again. 0 elsewhere.
    pub(crate) writing: u32,
    /// Digest, key hash, or upload id and owner.
    pub(crate) key: [u8; 32],
}

impl Header {
    /// Whether this says that the key is deleted.
    pub(crate) const fn is_tombstone(&self) -> bool {
        self.flags & flag::TOMBSTONE != 0
    }

    /// The version with who gave it: what decides which record of a key is the newest.
    pub(crate) const fn stamp(&self) -> Version {
        Version {
            clock: self.version,
            writer: self.writer,
        }
    }

    /// Of who gave the version and which writing of it this is; 0 where the store gave it by its own clock.
    pub(crate) fn mark(&self) -> u32 {
        if self.writing == 0 {
            return 0;
        }
        let who = u64::from(self.writer) << 32 | u64::from(self.writing);
        (crc(&who.to_le_bytes()) & MARK_MASK).max(1)
    }

    /// Why the record had to stay when it was written.
    pub(crate) const fn pins(&self) -> Pins {
        Pins {
            dirty: self.flags & flag::DIRTY != 0,
            hint: self.flags & flag::HINT != 0,
        }
    }

    /// Sets why the record has to stay.
    pub(crate) const fn set_pins(&mut self, pins: Pins) {
        self.flags = self.flags & !(flag::DIRTY | flag::HINT) | flag::of_pins(pins);
    }

    /// Whether this is one of the store's own notes: nobody's value.
    pub(crate) const fn is_note(&self) -> bool {
        self.flags & (flag::TOUCHES | flag::PINS) != 0
    }

    /// Whether a value of this kind and size may be encoded: nothing is decoded to more than a record may hold.
    fn encoding_is_plausible(&self) -> bool {
        let has_value = matches!(self.kind, Kind::Blob | Kind::Part | Kind::Entry);
        if self.encoding != Encoding::Identity {
            return has_value && !self.is_tombstone() && self.raw_size <= MAX_PAYLOAD as u64;
        }
        let all_value = matches!(self.kind, Kind::Blob | Kind::Part) && !self.is_tombstone();
        !all_value || self.raw_size == u64::from(self.stored)
    }

    /// Payload bytes before compression.
    pub(crate) const fn raw_payload(&self) -> u64 {
        let stored = self.stored as u64;
        let has_value = matches!(self.kind, Kind::Blob | Kind::Part | Kind::Entry);
        let believed = self.raw_size <= MAX_PAYLOAD as u64 && !self.is_tombstone();
        if has_value && believed && self.raw_size > stored {
            self.raw_size
        } else {
            stored
        }
    }

    /// Bytes from the record's start to its payload.
    pub(crate) const fn payload_offset(&self) -> usize {
        HEADER + 4 * block_count(self.stored as usize)
    }

    /// Bytes of the whole record, padding to 8 included.
    pub(crate) const fn record_len(&self) -> usize {
        record_len(self.stored as usize)
    }
}

/// Bytes of a record with this payload, padding to 8 included.
pub(crate) const fn record_len(payload_bytes: usize) -> usize {
    (HEADER + 4 * block_count(payload_bytes) + payload_bytes).next_multiple_of(8)
}

/// Writes header and checksums of the record that starts at `record[0]` and will lie at `offset`. The payload must be
/// in its place already.
pub(crate) fn seal(record: &mut [u8], header: &Header, salt: Salt, offset: u64) {
    let payload_at = header.payload_offset();
    let (front, payload) = record.split_at_mut(payload_at);
    let payload = &payload[..header.stored as usize];
    for (place, block) in front[HEADER..]
        .chunks_exact_mut(4)
        .zip(payload.chunks(CHECKED_BLOCK))
    {
        place.copy_from_slice(&crc(block).to_le_bytes());
    }
    let mut raw = RawHeader {
        magic: MAGIC.into(),
        crc: 0.into(),
        kind: header.kind as u8,
        function: header.function,
        encoding: header.encoding as u8,
        spare: 0,
        flags: header.flags.into(),
        hint_targets: [0.into(); 2],
        writer: header.writer.into(),
        writing: header.writing.into(),
        spare2: [0; 2],
        namespace: header.namespace.into(),
        part: header.part.into(),
        stored: header.stored.into(),
        raw_size: header.raw_size.into(),
        version: header.version.into(),
        key: header.key,
    };
    raw.crc = salted(salt, offset, [&raw.as_bytes()[8..], &front[HEADER..]]).into();
    front[..HEADER].copy_from_slice(raw.as_bytes());
}

/// Reads the header of the record that starts at `bytes[0]` and lies at `offset`; `None` when it does not pass its
/// checksum or `bytes` ends before the payload's checksums do.
pub(crate) fn open(bytes: &[u8], salt: Salt, offset: u64) -> Option<Header> {
    let (raw, _) = RawHeader::ref_from_prefix(bytes).ok()?;
    if raw.magic.get() != MAGIC || raw.stored.get() as usize > MAX_PAYLOAD {
        return None;
    }
    let sums = bytes.get(HEADER..HEADER + 4 * block_count(raw.stored.get() as usize))?;
    if salted(salt, offset, [&raw.as_bytes()[8..], sums]) != raw.crc.get() {
        return None;
    }
    let header = Header {
        kind: Kind::from_number(raw.kind)?,
        function: raw.function,
        encoding: Encoding::from_number(raw.encoding)?,
        flags: raw.flags.get(),
        namespace: raw.namespace.get(),
        part: raw.part.get(),
        stored: raw.stored.get(),
        raw_size: raw.raw_size.get(),
        version: raw.version.get(),
        writer: raw.writer.get(),
        writing: raw.writing.get(),
        key: raw.key,
    };
    header.encoding_is_plausible().then_some(header)
}

/// Whether the payload in `record` passes its checksums. The header must have passed [`open`].
pub(crate) fn payload_is_sound(record: &[u8], header: &Header) -> bool {
    let at = header.payload_offset();
    let Some(payload) = record.get(at..at + header.stored as usize) else {
        return false;
    };
    let sums = record[HEADER..at].chunks_exact(4);
    sums.zip(payload.chunks(CHECKED_BLOCK))
        .all(|(sum, block)| sum == crc(block).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt {
        generation: 7,
        seed: 0x1234_5678_9abc_def0,
    };

    fn sample(payload: &[u8]) -> (Header, Vec<u8>) {
        let header = Header {
            kind: Kind::Blob,
            function: 1,
            encoding: Encoding::Lz4,
            flags: flag::DIRTY,
            namespace: 3,
            part: 0,
            stored: payload.len() as u32,
            raw_size: payload.len() as u64,
            version: 99,
            writer: 0xfeed_f00d,
            writing: 17,
            key: [5; 32],
        };
        let mut record = vec![0; header.record_len()];
        record[header.payload_offset()..][..payload.len()].copy_from_slice(payload);
        seal(&mut record, &header, SALT, 4096);
        (header, record)
    }

    #[test]
    fn a_record_reads_back_as_written() {
        for size in [0, 1, 7, 8, 65_535, 65_536, 65_537, MAX_PAYLOAD] {
            let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let (header, record) = sample(&payload);
            assert_eq!(open(&record, SALT, 4096), Some(header));
            assert!(payload_is_sound(&record, &header));
        }
    }

    #[test]
    fn another_place_generation_or_seed_does_not_pass() {
        let (_, record) = sample(b"hello");
        assert_eq!(open(&record, SALT, 8192), None);
        assert_eq!(
            open(
                &record,
                Salt {
                    generation: 8,
                    ..SALT
                },
                4096
            ),
            None
        );
        assert_eq!(open(&record, Salt { seed: 1, ..SALT }, 4096), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (header, record) = sample(b"some payload of a few bytes");
        for bit in 0..(header.payload_offset() + header.stored as usize) * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let passes = open(&damaged, SALT, 4096).is_some_and(|h| payload_is_sound(&damaged, &h));
            assert!(!passes, "bit {bit}");
        }
    }
}
