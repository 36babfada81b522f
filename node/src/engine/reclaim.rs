//! Making room: S3-FIFO on segments.
//!
//! New blobs live in *probation*; when space is short the oldest probation segment (or, while probation is below its
//! share, the oldest *main* one) is emptied: records that were used move to main, the rest leaves the index. Entries
//! are one queue of their own, oldest first, with a floor that blobs cannot take. Pinned records always move, leased
//! ones too while leases hold. What is moved is verified, synced in its new place and published before the old
//! segment's header says *free*, and the file is reused only when nobody reads from it any more.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use zimcache_store::{Error, Result};

use super::{
    moving::Moving,
    page::PageBuf,
    read::read_whole,
    record::Header,
    scan::scan,
    segment::{Class, Segment, SegmentHeader, State, TocRow, file_name, read_footer},
    shared::Shared,
    slot::{KeyHash, Location, View},
    verdict::{Emptied, Mode, Verdict},
};

/// Share of all segments that probation is brought down to.
const PROBATION_PERCENT: u64 = 10;
/// Share of all segments that blobs cannot take from entries.
const ENTRIES_FLOOR_PERCENT: u64 = 10;
/// Most bytes of a segment that move only because they were used, so that each reclaim frees something.
const USED_PERCENT: u64 = 75;
/// Segments below this share of live bytes are emptied first.
const SPARSE_PERCENT: u64 = 50;
impl Shared {
    /// Empties one segment; says how many bytes that gained, `None` if there was nothing to empty. With `none_holds`
    /// all leases end, and records leave rather than being moved closer together. The caller holds `reclaiming`.
    pub(crate) fn reclaim_one(&self, none_holds: bool) -> Result<Option<u64>> {
        self.survey_leases(none_holds);
        self.survey_lifetimes(none_holds);
        let mut refused = Vec::new();
        while let Some((segment, mode)) = self.victim(&refused, none_holds) {
            match self.empty(&segment, mode) {
                Ok(emptied) => {
                    let gained = self
                        .geometry
                        .segment_bytes
                        .saturating_sub(emptied.moved_bytes);
                    return Ok(Some(gained));
                }
                Err(Error::OutOfSpace(_)) => refused.push(segment.id),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The only segment of entries that may be emptied now. Entries leave strictly oldest first: an older version must
    /// never outlive a newer one or a tombstone. So nothing is emptied behind a segment that cannot be emptied itself
    /// before a restart.
    pub(crate) fn first_entries(&self) -> Option<u32> {
        let all = self.segments.all();
        let first = all.iter().find(|segment| segment.class == Class::Entries);
        first.map(|segment| segment.id)
    }

    /// The next segment to empty: a dead one, a sparse one, else by S3-FIFO. With `must_evict` sparse ones wait for
    /// their turn: records of which no two fit into one segment could be moved about for ever.
    fn victim(&self, refused: &[u32], must_evict: bool) -> Option<(Arc<Segment>, Mode)> {
        let first_entries = self.first_entries();
        let mut all: Vec<_> = self.reclaimable().collect();
        all.retain(|segment| {
            let in_turn = segment.class != Class::Entries || first_entries == Some(segment.id);
            in_turn && !refused.contains(&segment.id)
        });
        let sparsest = all.iter().min_by_key(|segment| segment.live_bytes())?;
        let sparse = self.geometry.segment_bytes * SPARSE_PERCENT / 100;
        let is_dead = sparsest.live_bytes() == 0;
        if is_dead || (!must_evict && sparsest.live_bytes() < sparse) {
            return Some((Arc::clone(sparsest), Mode::Compact));
        }
        let (_, limit) = self.space.files_and_limit();
        let oldest = |class| all.iter().find(move |segment| segment.class == class);
        let count = |class| {
            self.segments
                .all()
                .iter()
                .filter(|segment| segment.class == class)
                .count()
        };
        let percent = |class| count(class) as u64 * 100 / limit.max(1) as u64;
        let entries =
            oldest(Class::Entries).filter(|_| percent(Class::Entries) > ENTRIES_FLOOR_PERCENT);
        let probation_first = percent(Class::Probation) > PROBATION_PERCENT;
        let (first, second) = if probation_first {
            (Class::Probation, Class::Main)
        } else {
            (Class::Main, Class::Probation)
        };
        let blobs = oldest(first).or_else(|| oldest(second));
        let older =
            |a: &&Arc<Segment>, b: &&Arc<Segment>| a.salt.generation.cmp(&b.salt.generation);
        let chosen = entries
            .into_iter()
            .chain(blobs)
            .min_by(older)
            .or_else(|| oldest(Class::Entries));
        chosen.map(|segment| (Arc::clone(segment), Mode::Evict))
    }

    /// Segments that may be emptied, oldest first.
    pub(crate) fn reclaimable(&self) -> impl Iterator<Item = Arc<Segment>> {
        // State first: a segment that failed is put on the list before it is closed.
        self.segments.all().into_iter().filter(|segment| {
            segment.state() != State::Open
                && !self.quarantined.lock().contains(&segment.salt.generation)
        })
    }

    /// Empties a segment and gives its file back. On an error the segment stays as it is, less what was evicted.
    pub(crate) fn empty(&self, segment: &Arc<Segment>, mode: Mode) -> Result<Emptied> {
        let live_before = segment.live_bytes();
        let rows = self.rows_or_refuse(segment)?;
        let mut moving = Moving::new(self, segment);
        let mut emptied = Emptied {
            dead_bytes: segment.tail().saturating_sub(live_before),
            ..Emptied::default()
        };
        let mut used_bytes_left = self.geometry.segment_bytes * USED_PERCENT / 100;
        for row in rows {
            let left = &mut used_bytes_left;
            self.empty_row(segment, &row, mode, left, &mut moving, &mut emptied)?;
        }
        moving.finish(&mut emptied)?;
        self.forget_leftovers(segment);
        self.release(segment).map_err(|error| {
            // Written to, but perhaps not on the disk: nobody may write or sync it again.
            self.quarantined.lock().insert(segment.salt.generation);
            Error::disk("free a segment", error)
        })?;
        Ok(emptied)
    }

    /// Evicts or moves one record. It is looked up now, and again when it could not be evicted: what was used, leased or
    /// opened for reading meanwhile is judged by that.
    fn empty_row(
        &self,
        segment: &Segment,
        row: &TocRow,
        mode: Mode,
        used_bytes_left: &mut u64,
        moving: &mut Moving<'_>,
        emptied: &mut Emptied,
    ) -> Result<()> {
        let (hash, spare) = (row.hash(), mode.spare());
        while let Some((view, header)) = self.live(segment, row) {
            let mut verdict = self.judge(segment, &view, &header, mode);
            if verdict == Verdict::Used {
                match used_bytes_left.checked_sub(view.size.bytes() as u64) {
                    Some(left) => *used_bytes_left = left,
                    None => verdict = Verdict::Evict,
                }
            }
            match verdict {
                Verdict::Dead => self.bury(hash, view.location, &header),
                Verdict::Evict => {
                    self.evict(hash, view, &header, spare, emptied);
                }
                Verdict::Expired => {
                    self.remove_expired(hash, view, &header, spare, emptied);
                }
                Verdict::Pinned | Verdict::Kept | Verdict::Used => {
                    return self.move_record(segment, hash, view, verdict, moving, emptied);
                }
            }
        }
        Ok(())
    }

    /// No slot may point into a segment that is given back, whatever its table of contents missed.
    fn forget_leftovers(&self, segment: &Segment) {
        if segment.live_bytes() == 0 {
            return;
        }
        let mut left = Vec::new();
        self.index.for_each(|hash, view| {
            if view.location.segment == segment.id {
                left.push((hash, view.location));
            }
        });
        for (hash, location) in left {
            self.lose(hash, location, "not in its segment's contents");
        }
    }

    /// The table of contents, from the footer or by a scan.
    pub(crate) fn rows(&self, segment: &Segment) -> io::Result<Vec<TocRow>> {
        let bytes = self.geometry.segment_bytes;
        if segment.state() == State::Sealed
            && let Some((_, rows)) = read_footer(segment.file.as_ref(), bytes, segment.salt)?
        {
            return Ok(rows);
        }
        let mut rows = Vec::new();
        scan(
            segment.file.as_ref(),
            segment.tail(),
            segment.salt,
            &self.meta.hash_key,
            |row, _| rows.push(row),
        )?;
        Ok(rows)
    }

    fn rows_or_refuse(&self, segment: &Segment) -> Result<Vec<TocRow>> {
        let rows = self.rows(segment);
        rows.map_err(|error| Error::disk("read a segment's contents", error))
    }

    /// The live records of a segment, in the order they lie there.
    pub(crate) fn live_rows(&self, segment: &Segment) -> Result<Vec<(KeyHash, View, Header)>> {
        let rows = self.rows_or_refuse(segment)?;
        let live = rows.iter().filter_map(|row| {
            let (view, header) = self.live(segment, row)?;
            Some((row.hash(), view, header))
        });
        Ok(live.collect())
    }

    /// Forgets a record that nothing can find any more, unless it has been pinned meanwhile.
    pub(crate) fn bury(&self, hash: KeyHash, location: Location, header: &Header) {
        let unfindable = header.is_note() || self.is_purged(header.namespace);
        let may_go = |view: &View| unfindable || !view.is_unsettled();
        if let Some(view) = self.index.remove_if(hash, location, may_go) {
            self.segments.sub_live(location.segment, view.size.bytes());
            self.ledger.sub(header);
            self.pins_went(&view, header);
        }
    }

    /// The slot that points at this row's record, if any does.
    fn live(&self, segment: &Segment, row: &TocRow) -> Option<(View, Header)> {
        let location = Location {
            segment: segment.id,
            offset: row.offset(),
        };
        let view = self
            .index
            .find(row.hash())
            .iter()
            .find(|view| view.location == location)?;
        Some((view, row.header()?))
    }

    fn move_record(
        &self,
        segment: &Segment,
        hash: KeyHash,
        view: View,
        verdict: Verdict,
        moving: &mut Moving<'_>,
        emptied: &mut Emptied,
    ) -> Result<()> {
        match read_whole(segment, view.location.offset, view.size.bytes()) {
            Ok(Some((header, payload))) => {
                moving.send(hash, header, payload, view, verdict, emptied)
            }
            Ok(None) => {
                self.lose(hash, view.location, "record");
                Ok(())
            }
            Err(error) => Err(Error::disk("read a record to move it", error)),
        }
    }

    /// Writes *free* into the header and gives the file back once nobody reads from it.
    fn release(&self, segment: &Arc<Segment>) -> io::Result<()> {
        let mut page = PageBuf::zeroed(1);
        let header = SegmentHeader {
            class: Class::Free,
            ..segment.header()
        };
        header.encode(self.meta.store_id, page.bytes_mut());
        segment.file.write_at(&[page.as_pages()], 0)?;
        segment.file.sync()?;
        self.counters
            .disk_bytes
            .fetch_add(page.bytes().len() as u64, Relaxed);
        self.counters.syncs.fetch_add(1, Relaxed);
        self.segments.take(segment.id);
        self.draining.lock().push(Arc::clone(segment));
        Ok(())
    }

    /// Gives back the files of released segments that nobody reads from any more; says how many are left.
    pub(crate) fn drain_released(&self) -> io::Result<usize> {
        let mut draining = self.draining.lock();
        let (idle, busy): (Vec<_>, Vec<_>) = draining
            .drain(..)
            .partition(|segment| Arc::strong_count(segment) == 1);
        *draining = busy;
        let left = draining.len();
        drop(draining);
        for segment in idle {
            if !self.space.give_back(segment.id, Arc::clone(&segment.file)) {
                self.disk.remove(&file_name(segment.id))?;
                self.disk.sync_names()?;
            }
        }
        Ok(left)
    }
}
