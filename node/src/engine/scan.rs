//! Reading a segment batch by batch: recovery of segments without a table of contents, and making that table.
//!
//! A record that fails is left out and counted; the scan goes on at the next record or batch that passes, because
//! stopping at the first bad checksum would lose every acknowledged record behind it. Old bytes of a recycled segment
//! never pass: the salt is in every checksum.

use std::io;

use super::{
    batch,
    checksum::Salt,
    disk::DiskFile,
    page::PAGE,
    record::{self, Header},
    segment::TocRow,
    shared::{Key, hash_key},
};

/// How far behind a bad batch header the next good one is looked for.
const RESYNC_BYTES: u64 = 4 * batch::MAX_BYTES as u64;
const WINDOW_BYTES: usize = 2 * batch::MAX_BYTES;

/// What a scan found besides records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scanned {
    /// Behind the last good batch.
    pub(crate) end: u64,
    /// Number of the last good batch.
    pub(crate) last_batch: u64,
    /// Wall clock of the last good batch.
    pub(crate) last_millis: u64,
    /// Highest batch number vouched for.
    pub(crate) durable_upto: u64,
    /// Good records.
    pub(crate) records: u64,
    /// Bad places in batches up to `durable_upto`, as far as known: bit rot.
    pub(crate) rotten: u64,
    /// Bad places behind it: a torn tail, never acknowledged.
    pub(crate) torn: u64,
}

/// Scans a segment up to `limit` bytes; calls `found` with the time of its batch for every record that passes, payload
/// included, and at the end for those whose header passes, whose payload does not, and which were acknowledged: they
/// must still hide older versions of their key.
pub(crate) fn scan(
    file: &dyn DiskFile,
    limit: u64,
    salt: Salt,
    secret: &[u8; 16],
    mut found: impl FnMut(TocRow, u64),
) -> io::Result<Scanned> {
    let mut window = Window {
        file,
        bytes: Vec::new(),
        start: 0,
        limit,
    };
    let mut result = Scanned {
        end: PAGE as u64,
        ..Scanned::default()
    };
    let mut bad_batches: Vec<u64> = Vec::new();
    let mut unsound: Vec<(batch::BatchHeader, TocRow)> = Vec::new();
    let mut at = PAGE as u64;
    while let Some((offset, header)) = next_batch(&mut window, salt, at)? {
        if offset != at {
            bad_batches.push(result.last_batch + 1);
        }
        let bytes = window.get(offset, header.bytes as usize)?;
        let bad = scan_batch(bytes, offset, &header, salt, |offset, record, sound| {
            let row = TocRow::new(hash_key(secret, &Key::of(record)), offset, record);
            if sound {
                result.records += 1;
                found(row, header.time_millis);
            } else {
                unsound.push((header, row));
            }
        });
        bad_batches.extend(std::iter::repeat_n(header.number, bad));
        result.last_batch = result.last_batch.max(header.number);
        result.last_millis = result.last_millis.max(header.time_millis);
        result.durable_upto = result.durable_upto.max(header.durable_upto);
        at = offset + u64::from(header.bytes);
        result.end = at;
    }
    for (header, row) in unsound {
        if header.number <= result.durable_upto {
            found(row, header.time_millis);
        }
    }
    for number in bad_batches {
        if number <= result.durable_upto {
            result.rotten += 1;
        } else {
            result.torn += 1;
        }
    }
    Ok(result)
}

/// The next batch header that passes, from `at` on, a page at a time.
fn next_batch(
    window: &mut Window<'_>,
    salt: Salt,
    at: u64,
) -> io::Result<Option<(u64, batch::BatchHeader)>> {
    let mut offset = at;
    while offset < at + RESYNC_BYTES && offset + PAGE as u64 <= window.limit {
        let bytes = window.get(offset, PAGE)?;
        if bytes.len() < PAGE {
            return Ok(None);
        }
        if let Some(header) = batch::open(bytes, salt, offset) {
            return Ok(Some((offset, header)));
        }
        offset += PAGE as u64;
    }
    Ok(None)
}

/// Walks through one batch; says how many bad places it has.
fn scan_batch(
    bytes: &[u8],
    offset: u64,
    header: &batch::BatchHeader,
    salt: Salt,
    mut found: impl FnMut(u64, &Header, bool),
) -> usize {
    let (mut at, mut good, mut bad) = (batch::HEADER, 0, 0);
    let mut in_order = true;
    while good < header.records && at + record::HEADER <= bytes.len() {
        let place = offset + at as u64;
        match record::open(&bytes[at..], salt, place) {
            Some(record) if record::payload_is_sound(&bytes[at..], &record) => {
                found(place, &record, true);
                good += 1;
                in_order = true;
                at += record.record_len();
            }
            Some(record) => {
                found(place, &record, false);
                bad += 1;
                good += 1;
                at += record.record_len();
            }
            None => {
                bad += usize::from(in_order);
                in_order = false;
                at += 8;
            }
        }
    }
    bad
}

/// A sliding view of a file: few large reads for many small looks.
struct Window<'a> {
    file: &'a dyn DiskFile,
    bytes: Vec<u8>,
    start: u64,
    limit: u64,
}

impl Window<'_> {
    /// Bytes from `offset`, fewer than `length` only at the end of the file or limit.
    fn get(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let inside =
            offset >= self.start && offset + length as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            self.refill(offset)?;
        }
        let from = (offset - self.start) as usize;
        let to = (from + length).min(self.bytes.len());
        Ok(self.bytes.get(from..to).unwrap_or(&[]))
    }

    fn refill(&mut self, offset: u64) -> io::Result<()> {
        let length = WINDOW_BYTES.min(self.limit.saturating_sub(offset) as usize);
        self.bytes.resize(length, 0);
        self.start = offset;
        let read = self.file.read_at(&mut self.bytes, offset)?;
        self.bytes.truncate(read);
        Ok(())
    }
}
