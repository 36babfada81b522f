//! The end of a lane's open segment: lays a group out as batches, writes and syncs it, and goes on to the next
//! segment when this one is full or has failed.
//!
//! Pieces are packed into one batch; every part is a batch of its own, written from where it was received. Batches of
//! a group go out with one `pwritev` and one sync. Invariant: nothing is appended behind a failed write or sync.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use zimcache_store::{Error, Result};

use super::{
    batch::{self, BatchHeader},
    lane::{Body, Write, packed_bytes},
    page::{PAGE, Page, PageBuf},
    record,
    segment::{Class, Segment, State, TocRow, footer_bytes},
    shared::{LaneId, Shared},
    slot::Location,
    space::Purpose,
};

/// Where a lane appends.
#[derive(Debug)]
pub(crate) struct Tail {
    lane: LaneId,
    open: Option<Open>,
    /// Number of the last batch written.
    last_batch: u64,
    /// Number of the last batch known to be synced.
    durable_upto: u64,
    /// Number of the last batch that a later one vouches for.
    vouched_upto: u64,
    /// Reused for packing.
    packed: PageBuf,
}

#[derive(Debug)]
struct Open {
    segment: Arc<Segment>,
    /// Rows its table of contents will have.
    rows: u64,
    /// Where the next batch goes.
    end: u64,
    /// The header page, until it was written with the first batch.
    header: Option<PageBuf>,
}

/// A batch laid out: how many bytes of which buffer.
#[derive(Debug, Clone, Copy)]
enum Run {
    Packed { bytes: usize },
    Part { write: usize, bytes: usize },
}

impl Tail {
    pub(crate) fn new(lane: LaneId, last_batch: u64) -> Tail {
        Tail {
            lane,
            open: None,
            last_batch,
            durable_upto: last_batch,
            vouched_upto: last_batch,
            packed: PageBuf::zeroed(0),
        }
    }

    /// Writes and syncs a group; says where each record lies.
    pub(crate) fn append(
        &mut self,
        shared: &Shared,
        writes: &mut [Write],
    ) -> Result<Vec<Location>> {
        shared.check_writable_for_lanes()?;
        match self.try_append(shared, writes) {
            Err(Error::Disk { action, source }) => {
                tracing::error!(%source, action, lane = ?self.lane, "a segment failed; trying a fresh one");
                self.quarantine(shared);
                let again = self.try_append(shared, writes);
                if let Err(error) = &again {
                    self.give_up(shared, error);
                }
                again
            }
            Err(Error::OutOfSpace(_)) if self.open.is_some() => {
                // The file system is full: no new files, recycled segments only. No sync failed, so this segment may be
                // emptied and used again like any other.
                shared.space.stop_growing();
                self.close(shared);
                self.try_append(shared, writes)
            }
            other => other,
        }
    }

    fn give_up(&mut self, shared: &Shared, error: &Error) {
        self.quarantine(shared);
        if matches!(error, Error::Disk { .. }) {
            let first = shared
                .read_only
                .set("writing failed on two segments in a row")
                .is_ok();
            if first {
                tracing::error!(%error, lane = ?self.lane, "the store is read-only from now on");
            }
        }
    }

    fn try_append(&mut self, shared: &Shared, writes: &mut [Write]) -> Result<Vec<Location>> {
        self.make_room(shared, writes)?;
        let Some(open) = &self.open else {
            return Err(Error::Stopping);
        };
        let (segment, start) = (Arc::clone(&open.segment), open.end);
        let (runs, locations, end) = self.lay_out(shared, &segment, writes, start);
        self.write_runs(&segment, writes, &runs, start)
            .map_err(|error| Error::disk("write a batch", error))?;
        segment
            .file
            .sync()
            .map_err(|error| Error::disk("sync a batch", error))?;
        let row = |(write, place): (&Write, &Location)| {
            TocRow::new(write.hash, place.offset, &write.header)
        };
        segment.keep_rows(writes.iter().zip(&locations).map(row));
        for write in writes.iter() {
            segment.note(&write.header);
        }
        self.after_sync(shared, writes, end, end - start);
        Ok(locations)
    }

    fn after_sync(&mut self, shared: &Shared, writes: &[Write], end: u64, written: u64) {
        self.vouched_upto = self.durable_upto;
        self.durable_upto = self.last_batch;
        if let Some(open) = &mut self.open {
            if open.header.take().is_some() {
                shared.counters.disk_bytes.fetch_add(PAGE as u64, Relaxed);
            }
            open.end = end;
            open.rows += writes.len() as u64;
            open.segment.set_tail(end);
            open.segment.last_batch.store(self.last_batch, Relaxed);
            open.segment
                .last_batch_millis
                .store(shared.lease_millis(), Relaxed);
        }
        let moved = self.lane == LaneId::Main;
        let payload: u64 = writes.iter().map(|write| write.header.raw_payload()).sum();
        shared
            .counters
            .payload_bytes
            .fetch_add(if moved { 0 } else { payload }, Relaxed);
        shared.counters.disk_bytes.fetch_add(written, Relaxed);
        shared.counters.syncs.fetch_add(1, Relaxed);
    }

    /// Goes on to a fresh segment when the group does not fit into this one.
    fn make_room(&mut self, shared: &Shared, writes: &[Write]) -> Result<()> {
        let pages = |bytes: usize| bytes.next_multiple_of(PAGE) as u64;
        let pieces = |write: &&Write| matches!(write.body, Body::Pieces(_));
        let parts: u64 = writes
            .iter()
            .filter(|write| !pieces(write))
            .map(|w| pages(batch::HEADER + w.record_len()))
            .sum();
        let needed = parts + pages(packed_bytes(writes));
        if let Some(open) = &self.open {
            let footer = footer_bytes(open.rows + writes.len() as u64);
            if open.end + needed + footer <= shared.geometry.segment_bytes {
                return Ok(());
            }
            self.close(shared);
        }
        self.open = Some(self.take_segment(shared)?);
        Ok(())
    }

    fn take_segment(&self, shared: &Shared) -> Result<Open> {
        let (purpose, class) = match self.lane {
            LaneId::Small | LaneId::Bulk => (Purpose::NewBlobs, Class::Probation),
            LaneId::Entries => (Purpose::NewEntries, Class::Entries),
            LaneId::Main => (Purpose::Moving, Class::Main),
        };
        if shared.space.is_short() {
            shared.wake_maintenance();
        }
        let taken = shared.space.take(purpose, class, self.lane as u8)?;
        let mut header = PageBuf::zeroed(1);
        taken
            .header
            .encode(shared.meta.store_id, header.bytes_mut());
        let segment = Segment::new(
            taken.id,
            taken.file,
            &taken.header,
            PAGE as u64,
            State::Open,
        );
        let segment = Arc::new(segment);
        shared.segments.put(Arc::clone(&segment));
        if shared.space.is_short() {
            shared.wake_maintenance();
        }
        Ok(Open {
            segment,
            rows: 0,
            end: PAGE as u64,
            header: Some(header),
        })
    }

    /// Gives every record its place and writes all headers.
    fn lay_out(
        &mut self,
        shared: &Shared,
        segment: &Segment,
        writes: &mut [Write],
        start: u64,
    ) -> (Vec<Run>, Vec<Location>, u64) {
        let mut runs = Vec::with_capacity(2);
        let mut locations = vec![
            Location {
                segment: segment.id,
                offset: 0
            };
            writes.len()
        ];
        let mut at = start;
        if writes
            .iter()
            .any(|write| matches!(write.body, Body::Pieces(_)))
        {
            let bytes = self.pack(shared, segment, writes, at, &mut locations);
            runs.push(Run::Packed { bytes });
            at += bytes as u64;
        }
        for (number, write) in writes.iter_mut().enumerate() {
            let Body::Part(part) = &mut write.body else {
                continue;
            };
            let (pages, bytes) = part.as_batch();
            let offset = at + batch::HEADER as u64;
            let header = self.batch_header(shared, 1, bytes);
            record::seal(
                &mut pages.bytes_mut()[batch::HEADER..],
                &write.header,
                segment.salt,
                offset,
            );
            batch::seal(pages.bytes_mut(), &header, segment.salt, at);
            locations[number].offset = offset;
            runs.push(Run::Part {
                write: number,
                bytes,
            });
            at += bytes as u64;
        }
        (runs, locations, at)
    }

    /// Packs all records that came in pieces into one batch; says how many bytes it has.
    fn pack(
        &mut self,
        shared: &Shared,
        segment: &Segment,
        writes: &[Write],
        start: u64,
        locations: &mut [Location],
    ) -> usize {
        let pieces = writes
            .iter()
            .enumerate()
            .filter_map(|(number, write)| match &write.body {
                Body::Pieces(pieces) => Some((number, write, pieces)),
                Body::Part(_) => None,
            });
        let needed = packed_bytes(writes).next_multiple_of(PAGE);
        if self.packed.bytes().len() < needed {
            self.packed = PageBuf::zeroed(needed / PAGE);
        }
        let mut at = batch::HEADER;
        let mut records = 0;
        for (number, write, pieces) in pieces {
            let record = &mut self.packed.bytes_mut()[at..at + write.record_len()];
            let mut end = write.header.payload_offset();
            for piece in pieces {
                record[end..end + piece.len()].copy_from_slice(piece);
                end += piece.len();
            }
            record[end..].fill(0);
            let offset = start + at as u64;
            record::seal(record, &write.header, segment.salt, offset);
            locations[number].offset = offset;
            at += write.record_len();
            records += 1;
        }
        let bytes = at.next_multiple_of(PAGE);
        self.packed.bytes_mut()[at..bytes].fill(0);
        let header = self.batch_header(shared, records, bytes);
        batch::seal(self.packed.bytes_mut(), &header, segment.salt, start);
        bytes
    }

    fn batch_header(&mut self, shared: &Shared, records: u32, bytes: usize) -> BatchHeader {
        self.last_batch += 1;
        BatchHeader {
            lane: self.lane as u8,
            records,
            number: self.last_batch,
            time_millis: shared.lease_millis(),
            bytes: bytes as u32,
            durable_upto: self.durable_upto,
        }
    }

    fn write_runs(
        &self,
        segment: &Segment,
        writes: &mut [Write],
        runs: &[Run],
        start: u64,
    ) -> io::Result<()> {
        let mut pages: Vec<&[Page]> = Vec::with_capacity(runs.len() + 1);
        let mut offset = start;
        if let Some(header) = self.open.as_ref().and_then(|open| open.header.as_ref()) {
            pages.push(header.as_pages());
            offset -= PAGE as u64;
        }
        let mut parts: Vec<Option<&PageBuf>> = writes
            .iter_mut()
            .map(|write| match &mut write.body {
                Body::Part(part) => Some(&*part.as_batch().0),
                Body::Pieces(_) => None,
            })
            .collect();
        for run in runs {
            match *run {
                Run::Packed { bytes } => pages.push(&self.packed.as_pages()[..bytes / PAGE]),
                Run::Part { write, bytes } => {
                    if let Some(buffer) = parts[write].take() {
                        pages.push(&buffer.as_pages()[..bytes / PAGE]);
                    }
                }
            }
        }
        segment.file.write_at(&pages, offset)
    }

    /// Writes an empty batch, so that the last acknowledged one has a later batch to vouch for it.
    pub(crate) fn vouch(&mut self, shared: &Shared) {
        if self.vouched_upto == self.durable_upto || shared.read_only.get().is_some() {
            return;
        }
        let Some(open) = &self.open else { return };
        let (segment, start) = (Arc::clone(&open.segment), open.end);
        let end = start + PAGE as u64;
        if end + footer_bytes(open.rows) > shared.geometry.segment_bytes {
            return;
        }
        let header = self.batch_header(shared, 0, PAGE);
        let mut page = PageBuf::zeroed(1);
        batch::seal(page.bytes_mut(), &header, segment.salt, start);
        let written = segment
            .file
            .write_at(&[page.as_pages()], start)
            .and_then(|()| segment.file.sync());
        match written {
            Ok(()) => {
                self.after_sync(shared, &[], end, PAGE as u64);
                self.vouched_upto = self.durable_upto;
            }
            Err(error) => {
                tracing::error!(%error, lane = ?self.lane, "a segment failed while idle; going on in a fresh one");
                self.quarantine(shared);
            }
        }
    }

    /// Ends the segment after a failure: it stays readable, nothing is written to it again.
    fn quarantine(&mut self, shared: &Shared) {
        if let Some(open) = self.open.take() {
            // In this order: a closed segment that is not known to have failed gets sealed.
            shared
                .quarantined
                .lock()
                .insert(open.segment.salt.generation);
            open.segment.set_state(State::Closed);
        }
    }

    /// Ends the segment because it is full or the store stops; its footer is written elsewhere.
    pub(crate) fn close(&mut self, shared: &Shared) {
        if let Some(open) = self.open.take() {
            open.segment.set_state(State::Closed);
            shared.wake_maintenance();
        }
    }
}
