//! Notes of pins, read when a store is opened: what became of the pins of each record since it was written.
//!
//! All notes are read before any record is taken into the index, into a table of 16 bytes for each record they name,
//! which lives until the store is open. A record is known by its key hash, and its version by a checksum: one pin in
//! four thousand million could be taken off by the note of another version of the same key, and one in a million by that of
//! another writing of the same version. What notes are for: `settle`.

use std::{io, sync::Arc};

use zimcache_store::Pins;

use super::{
    checksum::crc,
    disk::DiskFile,
    read::read_whole,
    record::{Header, flag},
    recovery::{InUse, MAX_VERSION},
    scan::scan,
    segment::{Class, Segment, SegmentHeader, State, TocRow, read_footer},
    settle::{CHANGE_BYTES, Change, ITEM_BYTES},
    shared::Shared,
    slot::KeyHash,
};

/// One note: when, up to which generation of segments, and what it does.
#[derive(Debug, Clone, Copy)]
struct Note {
    version: u64,
    fence: u64,
    change: Change,
}

/// A record that a note names.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// Upper half of the key hash.
    hash: u64,
    /// Of the rest of it and the version.
    check: u32,
    /// Number of the note.
    note: u32,
}

/// All notes of a store.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    notes: Vec<Note>,
    items: Vec<Item>,
}

impl Notes {
    /// Reads the notes from the segments that may have some.
    pub(crate) fn read(shared: &Shared, files: &InUse) -> io::Result<Notes> {
        let mut notes = Notes::default();
        for (id, file, header) in files {
            if header.class == Class::Entries {
                notes.read_segment(shared, *id, file, header)?;
            }
        }
        notes.sort();
        Ok(notes)
    }

    /// Puts the notes of a record one behind the other, in their order.
    fn sort(&mut self) {
        let notes = &self.notes;
        self.items.sort_unstable_by_key(|item| {
            let when = notes[item.note as usize].version;
            (item.hash, item.check, when)
        });
    }

    fn read_segment(
        &mut self,
        shared: &Shared,
        id: u32,
        file: &Arc<dyn DiskFile>,
        header: &SegmentHeader,
    ) -> io::Result<()> {
        let bytes = shared.meta.segment_bytes;
        let mut found = Vec::new();
        let mut see = |row: &TocRow| {
            let is_note = |header: &Header| header.flags & flag::PINS != 0;
            found.extend(
                row.header()
                    .filter(is_note)
                    .map(|header| (row.offset(), header)),
            );
        };
        if let Some((_, rows)) = read_footer(file.as_ref(), bytes, header.salt)? {
            rows.iter().for_each(see);
        } else {
            let secret = &shared.meta.hash_key;
            let see = |row: TocRow, _| see(&row);
            scan(file.as_ref(), bytes, header.salt, secret, see)?;
        }
        let segment = Segment::new(id, Arc::clone(file), header, bytes, State::Closed);
        for (offset, header) in found {
            match read_whole(&segment, offset, header.record_len())? {
                Some((header, payload)) => self.add(&header, &payload),
                None => {
                    tracing::error!(segment = id, offset, "a note of pins is damaged");
                }
            }
        }
        Ok(())
    }

    /// Takes a note in. What does not parse says nothing.
    fn add(&mut self, header: &Header, payload: &[u8]) {
        let Some((change, items)) = payload.split_first_chunk::<CHANGE_BYTES>() else {
            return;
        };
        let number = self.notes.len() as u32;
        let believed = header.version <= MAX_VERSION && header.flags & flag::PINS != 0;
        if !believed || number == u32::MAX {
            return;
        }
        self.notes.push(Note {
            version: header.version,
            fence: header.raw_size,
            change: Change::decode(u32::from_le_bytes(*change)),
        });
        let items = items.as_chunks::<ITEM_BYTES>().0.iter();
        self.items.extend(items.map(|item| item_of(item, number)));
    }

    /// The pins of a record, by its row in a table of contents and the generation of its segment.
    pub(crate) fn pins_of(&self, row: &TocRow, header: &Header, generation: u64) -> Pins {
        let written = header.pins();
        if self.items.is_empty() {
            return written;
        }
        let hash = row.hash();
        let (upper, check) = (upper_half(hash), check_of(hash, row.version(), row.mark()));
        let first = |item: &Item| (item.hash, item.check) < (upper, check);
        let named = self.items[self.items.partition_point(first)..].iter();
        named
            .take_while(|item| (item.hash, item.check) == (upper, check))
            .map(|item| self.notes[item.note as usize])
            .filter(|note| generation <= note.fence)
            .fold(written, |pins, note| note.change.of(pins))
    }
}

const fn upper_half(hash: KeyHash) -> u64 {
    (hash.0 >> 64) as u64
}

fn check_of(hash: KeyHash, version: u64, mark: u32) -> u32 {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&(hash.0 as u64).to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes[16..].copy_from_slice(&mark.to_le_bytes());
    crc(&bytes)
}

fn item_of(bytes: &[u8; ITEM_BYTES], note: u32) -> Item {
    let (mut hash, mut version, mut mark) = ([0; 16], [0; 8], [0; 4]);
    hash.copy_from_slice(&bytes[..16]);
    version.copy_from_slice(&bytes[16..24]);
    mark.copy_from_slice(&bytes[24..]);
    let hash = KeyHash(u128::from_le_bytes(hash));
    let (version, mark) = (u64::from_le_bytes(version), u32::from_le_bytes(mark));
    Item {
        hash: upper_half(hash),
        check: check_of(hash, version, mark),
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::{Encoding, Kind};

    const HASH: KeyHash = KeyHash(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    const DIRTY: Pins = Pins {
        dirty: true,
        hint: false,
    };
    const BOTH: Pins = Pins {
        dirty: true,
        hint: true,
    };

    fn header(flags: u16, version: u64, writing: u32) -> Header {
        Header {
            kind: Kind::Entry,
            function: 1,
            encoding: Encoding::Identity,
            flags,
            namespace: 1,
            part: 0,
            stored: 0,
            raw_size: 9,
            version,
            writer: 3,
            writing,
            key: [0; 32],
        }
    }

    /// A note of this time about one version of one record.
    fn add(notes: &mut Notes, time: u64, change: u32, row: &TocRow) {
        let mut payload = change.to_le_bytes().to_vec();
        payload.extend(row.hash().0.to_le_bytes());
        payload.extend(row.version().to_le_bytes());
        payload.extend(row.mark().to_le_bytes());
        notes.add(&header(flag::PINS, time, 0), &payload);
        notes.sort();
    }

    #[test]
    fn notes_count_in_their_order_for_the_version_they_name_up_to_their_fence() {
        let (set, hint) = (1 << 16, u32::from(flag::HINT));
        let mut notes = Notes::default();
        let row = |hash, header: &Header| TocRow::new(hash, 4096, header);
        let named = header(flag::of_pins(BOTH), 5, 7);
        let pins = |notes: &Notes, hash, header: &Header, generation| {
            notes.pins_of(&row(hash, header), header, generation)
        };
        assert_eq!(pins(&notes, HASH, &named, 1), BOTH);
        add(&mut notes, 30, hint, &row(HASH, &named));
        add(&mut notes, 20, set | hint, &row(HASH, &named));
        assert_eq!(pins(&notes, HASH, &named, 9), DIRTY, "the later one counts");
        assert_eq!(pins(&notes, HASH, &named, 10), BOTH, "behind the fence");
        for other in [header(3, 5, 8), header(3, 6, 7), header(3, 4, 7)] {
            assert_eq!(pins(&notes, HASH, &other, 1), BOTH, "another version");
        }
        let other = KeyHash(HASH.0 ^ 1);
        assert_eq!(pins(&notes, other, &named, 1), BOTH, "another record");
        add(&mut notes, 40, set | hint, &row(HASH, &named));
        assert_eq!(pins(&notes, HASH, &named, 9), BOTH);
    }

    #[test]
    fn a_note_that_does_not_parse_says_nothing() {
        let mut notes = Notes::default();
        for payload in [&b""[..], b"abc", b"abcd", &[2, 0, 0, 0, 1, 2, 3]] {
            notes.add(&header(flag::PINS, 1, 0), payload);
        }
        assert!(notes.items.is_empty());
    }
}
