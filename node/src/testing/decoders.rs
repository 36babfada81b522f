//! What must hold of everything that reads bytes from a disk, whatever the bytes are.
//!
//! Fuzz targets (`node/fuzz`) call these functions; the tests replay the committed inputs through them. Each takes
//! arbitrary bytes and panics when a promise is broken: a decoder that panics or loops, accepts what it would not
//! write again, or a store that serves what it should not from a disk full of nonsense.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a fuzz target reports by panicking"
)]

use crate::engine::{
    batch,
    checksum::Salt,
    entry_front::Front,
    meta::{self, Found},
    page::PAGE,
    record::{self, MAX_PAYLOAD},
    segment::{SegmentHeader, TocRow, encode_footer, read_footer},
    slot::{Kind, Location, Slot, View},
};

use super::{
    SimDisk,
    crafted::{SALT, SEGMENT_BYTES, STORE_ID},
};

/// A promise about arbitrary bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in the corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("record", record),
    ("batch", batch_header),
    ("segment_header", segment_header),
    ("footer", footer),
    ("meta", store_meta),
    ("entry_front", entry_front),
    ("slot", slot),
    ("frame", frame),
    ("recovery", recovery),
];

/// A frame decodes to the size its record declares, or not at all.
pub fn frame(data: &[u8]) {
    super::codec::frame(data);
}

/// A record that passes describes itself, and only at its place.
pub fn record(data: &[u8]) {
    let Some(header) = record::open(data, SALT, 4096) else {
        return;
    };
    assert!(header.stored as usize <= MAX_PAYLOAD);
    assert!(header.record_len() >= header.payload_offset() + header.stored as usize);
    assert_eq!(record::open(data, SALT, 8192), None, "elsewhere");
    let other = Salt {
        seed: SALT.seed ^ 1,
        ..SALT
    };
    assert_eq!(record::open(data, other, 4096), None, "in another segment");
    if record::payload_is_sound(data, &header) && data.len() >= header.record_len() {
        let mut again = data[..header.record_len()].to_vec();
        record::seal(&mut again, &header, SALT, 4096);
        assert_eq!(record::open(&again, SALT, 4096), Some(header));
    }
}

/// A batch header that passes is one that would be written.
pub fn batch_header(data: &[u8]) {
    let Some(header) = batch::open(data, SALT, 4096) else {
        return;
    };
    assert!((header.bytes as usize).is_multiple_of(PAGE) && header.bytes > 0);
    let mut again = vec![0; batch::HEADER];
    batch::seal(&mut again, &header, SALT, 4096);
    assert_eq!(batch::open(&again, SALT, 4096), Some(header));
    assert_eq!(batch::open(data, SALT, 8192), None, "elsewhere");
}

/// A segment header that passes is of this store and reads back the same.
pub fn segment_header(data: &[u8]) {
    let Some(header) = SegmentHeader::decode(STORE_ID, data) else {
        return;
    };
    let mut again = vec![0; PAGE];
    header.encode(STORE_ID, &mut again);
    assert_eq!(SegmentHeader::decode(STORE_ID, &again), Some(header));
    assert_eq!(SegmentHeader::decode([0; 16], data), None, "another store");
}

/// A table of contents lies inside its segment, at the end of a file made of these bytes.
pub fn footer(data: &[u8]) {
    let mut bytes = vec![0; SEGMENT_BYTES as usize];
    let kept = data.len().min(bytes.len());
    let start = bytes.len() - kept;
    bytes[start..].copy_from_slice(&data[..kept]);
    let disk = SimDisk::new(1);
    disk.plant_file("segment", &bytes);
    let file = crate::Disk::open(&disk, "segment").unwrap().unwrap();
    let read = read_footer(file.as_ref(), SEGMENT_BYTES, SALT).unwrap();
    let Some((footer, rows)) = read else {
        return;
    };
    assert!(footer.toc_offset < SEGMENT_BYTES);
    let rows: Vec<TocRow> = rows;
    let headers = rows.iter().filter_map(TocRow::header).count();
    assert!(headers <= rows.len());
    let header = SegmentHeader::decode(STORE_ID, &bytes);
    if let Some(header) = header {
        let (pages, offset) = encode_footer(&rows, SEGMENT_BYTES, STORE_ID, &header, 0, 0);
        assert_eq!(offset + pages.bytes().len() as u64, SEGMENT_BYTES);
    }
}

/// An identity that passes is written the same way again.
pub fn store_meta(data: &[u8]) {
    if let Found::Current(meta) = meta::decode(data) {
        let again = meta::encode(&meta);
        assert_eq!(meta::decode(again.bytes()), Found::Current(meta));
    }
}

/// An entry's front that is accepted is exactly what would be written, and the value starts behind it.
pub fn entry_front(data: &[u8]) {
    if let Some((front, value_at)) = Front::decode(data) {
        assert!(value_at <= data.len());
        let again = front.encode();
        assert_eq!(&again[..], &data[..value_at]);
    }
}

/// A store with segments made of these bytes opens, answers and takes writes, or is refused.
pub fn recovery(data: &[u8]) {
    super::crafted::recovery(data);
}

/// A slot gives back what was put into it.
pub fn slot(data: &[u8]) {
    let mut bytes = [0; 24];
    let kept = data.len().min(bytes.len());
    bytes[..kept].copy_from_slice(&data[..kept]);
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let (first, second, third) = (word(0), word(8), word(16));
    let location = Location {
        segment: (first % crate::engine::slot::MAX_SEGMENTS) as u32,
        offset: (second % (1 << 25)) * 8 + 8,
    };
    let kind = [Kind::Blob, Kind::Part, Kind::Manifest, Kind::Entry][(third % 4) as usize];
    let mut view = View::new(location, 1 + (second >> 40) as usize % MAX_PAYLOAD, kind);
    let bit = |number: u32| third >> (8 + number) & 1 == 1;
    (view.dirty, view.hint, view.keep) = (bit(0), bit(1), bit(2));
    (view.tombstone, view.leased) = (bit(3), bit(4));
    view.freq = (third >> 16) as u8 % 4;
    view.touch = (third >> 32) as u16;
    if location.offset / 8 >= 1 << 25 {
        return;
    }
    let fingerprint = first & ((1 << 44) - 1);
    let slot = Slot::new(fingerprint, view);
    assert!(!slot.is_empty());
    assert_eq!((slot.view(), slot.fingerprint()), (view, fingerprint));
    assert!(view.size.bytes() >= 1);
}
