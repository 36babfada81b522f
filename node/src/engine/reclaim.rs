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

use bytes::Bytes;
use tokio::sync::oneshot;
use zimcache_store::{Error, Result};

use super::{
    lane::{Body, Message, Outcome, Rule, Write},
    page::PageBuf,
    read::read_whole,
    record::{Header, Kind},
    scan::scan,
    segment::{Class, Segment, SegmentHeader, State, TocRow, file_name, read_footer},
    shared::{Key, LEASE_TICKS, LaneId, Shared},
    slot::{self, KeyHash, Location, View},
    value::{read_parts_of, split_part_key},
};

/// Share of all segments that probation is brought down to.
const PROBATION_PERCENT: u64 = 10;
/// Share of all segments that blobs cannot take from entries.
const ENTRIES_FLOOR_PERCENT: u64 = 10;
/// Most bytes of a segment that move only because they were used, so that each reclaim frees something.
const USED_PERCENT: u64 = 75;
/// Segments below this share of live bytes are emptied first.
const SPARSE_PERCENT: u64 = 50;
/// Share of the capacity that leases may hold before the oldest end early.
const LEASED_PERCENT: u64 = 60;
/// Bytes on their way to a new place at once.
const MOVING_BYTES: usize = 8 << 20;

/// How hard a segment is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Unused records are evicted.
    Evict,
    /// Everything live moves.
    Compact,
    /// Unused records are evicted, leased or not.
    Force,
}

/// What emptying a segment came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Emptied {
    pub(crate) evicted_records: u64,
    pub(crate) evicted_bytes: u64,
    /// Bytes of the segment that were dead already.
    pub(crate) dead_bytes: u64,
    /// Bytes that went to a new place.
    pub(crate) moved_bytes: u64,
}

/// What is to become of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Dead,
    Evict,
    /// Moves, whatever it takes: it is pinned, on its way in, or hides an older version.
    Pinned,
    /// Moves if there is room at all: it is leased, or its segment is only being compacted.
    Kept,
    /// Moves because it was used.
    Used,
}

impl Shared {
    /// Empties one segment; says how many bytes that gained, `None` if there was nothing to empty. With `none_holds`
    /// all leases end. The caller holds `reclaiming`.
    pub(crate) fn reclaim_one(&self, none_holds: bool) -> Result<Option<u64>> {
        self.survey_leases(none_holds);
        let mut refused = Vec::new();
        while let Some((segment, mode)) = self.victim(&refused) {
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

    /// The next segment to empty: a dead one, a sparse one, else by S3-FIFO.
    fn victim(&self, refused: &[u32]) -> Option<(Arc<Segment>, Mode)> {
        let mut all: Vec<_> = self.reclaimable().collect();
        // Entries leave strictly oldest first: an older version must never outlive a newer one or a tombstone.
        let first_entries = all.iter().find(|segment| segment.class == Class::Entries);
        let first_entries = first_entries.map(|segment| segment.id);
        all.retain(|segment| {
            let in_turn = segment.class != Class::Entries || first_entries == Some(segment.id);
            in_turn && !refused.contains(&segment.id)
        });
        let sparsest = all.iter().min_by_key(|segment| segment.live_bytes())?;
        let sparse = self.geometry.segment_bytes * SPARSE_PERCENT / 100;
        if sparsest.live_bytes() < sparse {
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
        let rows = self
            .rows(segment)
            .map_err(|error| Error::disk("read a segment's contents", error))?;
        let mut moving = Moving::new(self, segment);
        let mut emptied = Emptied {
            dead_bytes: segment.tail().saturating_sub(live_before),
            ..Emptied::default()
        };
        let mut used_bytes_left = self.geometry.segment_bytes * USED_PERCENT / 100;
        for row in rows {
            let Some((view, header)) = self.live(segment, &row) else {
                continue;
            };
            let mut verdict = self.judge(segment, &view, &header, mode);
            if verdict == Verdict::Used {
                match used_bytes_left.checked_sub(view.size.bytes() as u64) {
                    Some(left) => used_bytes_left = left,
                    None => verdict = Verdict::Evict,
                }
            }
            match verdict {
                Verdict::Dead => drop(self.forget(row.hash(), view.location)),
                Verdict::Evict => self.evict(row.hash(), view, &header, &mut emptied),
                Verdict::Pinned | Verdict::Kept | Verdict::Used => {
                    self.move_record(
                        segment,
                        row.hash(),
                        view,
                        verdict,
                        &mut moving,
                        &mut emptied,
                    )?;
                }
            }
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

    /// Evicts what was not used from a segment that stays in use, until at most `target` bytes are live in the store.
    /// Use counts go down by one, so that a further pass evicts more.
    pub(crate) fn evict_in_place(
        &self,
        segment: &Arc<Segment>,
        target: u64,
        mode: Mode,
    ) -> Result<Emptied> {
        let rows = self.rows(segment);
        let rows = rows.map_err(|error| Error::disk("read a segment's contents", error))?;
        let too_many = self.live_bytes().saturating_sub(target);
        let mut emptied = Emptied::default();
        for row in rows {
            if emptied.evicted_bytes >= too_many {
                break;
            }
            let Some((view, header)) = self.live(segment, &row) else {
                continue;
            };
            match self.judge(segment, &view, &header, mode) {
                Verdict::Dead => drop(self.forget(row.hash(), view.location)),
                Verdict::Evict => self.evict(row.hash(), view, &header, &mut emptied),
                Verdict::Used => {
                    self.index.update(row.hash(), view.location, |view| {
                        view.freq = view.freq.saturating_sub(1);
                    });
                }
                Verdict::Pinned | Verdict::Kept => {}
            }
        }
        Ok(emptied)
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

    fn judge(&self, segment: &Segment, view: &View, header: &Header, mode: Mode) -> Verdict {
        if header.kind == Kind::Namespace || header.is_pinned() || view.is_pinned() {
            return Verdict::Pinned;
        }
        if !self
            .namespaces
            .read()
            .values()
            .any(|number| *number == header.namespace)
        {
            return Verdict::Dead;
        }
        if view.tombstone {
            let fence = header.raw_size;
            let hides_something =
                |other: &Arc<Segment>| other.id != segment.id && other.salt.generation <= fence;
            let needed = self.segments.all().iter().any(hides_something);
            return if needed {
                Verdict::Pinned
            } else {
                Verdict::Dead
            };
        }
        if header.kind == Kind::Part {
            return self.judge_part(view, mode);
        }
        self.judge_use(view, mode)
    }

    fn judge_use(&self, view: &View, mode: Mode) -> Verdict {
        if mode == Mode::Compact || (mode == Mode::Evict && self.is_leased(view)) {
            Verdict::Kept
        } else if view.freq > 0 {
            Verdict::Used
        } else {
            Verdict::Evict
        }
    }

    /// A part is judged by its manifest; without one it is garbage unless it is being written or read.
    fn judge_part(&self, view: &View, mode: Mode) -> Verdict {
        let Ok(Some((_, header))) = self.read_header(view.location) else {
            return Verdict::Dead;
        };
        let (upload, owner) = split_part_key(&header.key);
        if self.uploads.lock().contains(&upload) || self.reading.lock().contains_key(&upload) {
            return Verdict::Pinned;
        }
        match self.manifest_of(upload, owner) {
            Some((manifest, _)) if manifest.is_pinned() => Verdict::Pinned,
            Some((manifest, _)) => self.judge_use(&manifest, mode),
            None => Verdict::Dead,
        }
    }

    /// Removes a record, and with a part or manifest the whole value: what is left must never look present.
    fn evict(&self, hash: KeyHash, view: View, header: &Header, emptied: &mut Emptied) {
        if !matches!(
            header.kind,
            Kind::Part | Kind::Manifest | Kind::EntryManifest
        ) {
            self.evict_slot(hash, view.location, emptied);
            return;
        }
        if let Some((upload, owner)) = self.value_of(view.location, hash) {
            self.evict_value(upload, owner, emptied);
        }
        // A part whose manifest has just gone by itself is garbage, and must not stay behind either.
        self.evict_slot(hash, view.location, emptied);
    }

    /// Which value a part or manifest belongs to.
    fn value_of(&self, location: Location, hash: KeyHash) -> Option<([u8; 16], KeyHash)> {
        let (segment, header) = self.read_header(location).ok()??;
        if header.kind == Kind::Part {
            return Some(split_part_key(&header.key));
        }
        let parts = read_parts_of(&segment, location, hash, &header)?;
        Some((parts.upload, hash))
    }

    /// Removes a manifest and its parts. The manifest may be on its way to a new place: until it is gone, look again.
    fn evict_value(&self, upload: [u8; 16], owner: KeyHash, emptied: &mut Emptied) {
        while let Some((manifest, parts)) = self.manifest_of(upload, owner) {
            if self.evict_slot(owner, manifest.location, emptied) {
                for part in 0..parts.count() {
                    let hash = self.hash(&parts.key(part));
                    for view in self.index.find(hash).iter() {
                        self.evict_slot(hash, view.location, emptied);
                    }
                }
                return;
            }
        }
    }

    fn evict_slot(&self, hash: KeyHash, location: Location, emptied: &mut Emptied) -> bool {
        let Some(view) = self.forget(hash, location) else {
            return false;
        };
        let bytes = view.size.bytes() as u64;
        emptied.evicted_records += 1;
        emptied.evicted_bytes += bytes;
        self.counters.evicted_records.fetch_add(1, Relaxed);
        self.counters.evicted_bytes.fetch_add(bytes, Relaxed);
        if view.leased && self.tick().wrapping_sub(view.touch) < LEASE_TICKS {
            self.counters.leases_broken.fetch_add(1, Relaxed);
        }
        true
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

    /// Ends the oldest leases early when leased and pinned data would fill the store; all of them if `none_holds`.
    fn survey_leases(&self, none_holds: bool) {
        let mut by_age = vec![0u64; usize::from(LEASE_TICKS)];
        let mut manifests = vec![0u64; usize::from(LEASE_TICKS)];
        let (mut pinned, mut part_bytes, mut all_manifests) = (0, 0, 0);
        let now = self.tick();
        self.index.for_each(|_, view| {
            let age = usize::from(now.wrapping_sub(view.touch));
            let leased = view.leased && age < usize::from(LEASE_TICKS);
            match view.kind {
                _ if view.is_pinned() => pinned += view.size.bytes() as u64,
                slot::Kind::Part => part_bytes += view.size.bytes() as u64,
                slot::Kind::Manifest => {
                    all_manifests += 1;
                    let oldest = usize::from(LEASE_TICKS) - 1;
                    manifests[age.min(oldest)] += u64::from(leased);
                }
                _ if leased => by_age[age] += view.size.bytes() as u64,
                _ => {}
            }
        });
        // A manifest's lease holds its parts. Which ones is not known here; on average they are as many as others'.
        for (bytes, leased) in by_age.iter_mut().zip(manifests) {
            *bytes += (part_bytes * leased)
                .checked_div(all_manifests)
                .unwrap_or(0);
        }
        let (_, limit) = self.space.files_and_limit();
        let most = limit as u64 * self.geometry.segment_bytes * LEASED_PERCENT / 100;
        let mut held = pinned;
        let fits = by_age.iter().take_while(|bytes| {
            held += **bytes;
            held <= most
        });
        let kept = if none_holds { 0 } else { fits.count() as u16 };
        if self.lease_ticks.swap(kept, Relaxed) > kept {
            tracing::warn!(
                minutes = u64::from(kept) * 4,
                "the store is full of leased data: older leases end early"
            );
        }
    }
}

/// Records on their way to a new place.
struct Moving<'a> {
    shared: &'a Shared,
    lane: LaneId,
    bytes: usize,
    sent: Vec<Sent>,
}

/// A record that was sent to its new place.
struct Sent {
    outcome: oneshot::Receiver<Result<Outcome>>,
    hash: KeyHash,
    view: View,
    header: Header,
    verdict: Verdict,
}

impl<'a> Moving<'a> {
    fn new(shared: &'a Shared, segment: &'a Segment) -> Moving<'a> {
        let entries = segment.class == Class::Entries;
        shared.space.set_moving_entries(entries);
        let lane = if entries {
            LaneId::Entries
        } else {
            LaneId::Main
        };
        Moving {
            shared,
            lane,
            bytes: 0,
            sent: Vec::new(),
        }
    }

    fn send(
        &mut self,
        hash: KeyHash,
        header: Header,
        payload: Bytes,
        view: View,
        verdict: Verdict,
        emptied: &mut Emptied,
    ) -> Result<()> {
        let mut as_moved = view;
        as_moved.freq = view.freq.saturating_sub(1);
        let (done, outcome) = oneshot::channel();
        self.bytes += header.record_len();
        let write = Write {
            hash,
            header,
            body: Body::Pieces(vec![payload]),
            rule: Rule::Moved(as_moved),
            done,
        };
        self.shared.lanes[self.lane as usize]
            .blocking_send(Message::Write(write))
            .map_err(|_| Error::Stopping)?;
        self.sent.push(Sent {
            outcome,
            hash,
            view,
            header,
            verdict,
        });
        if self.bytes >= MOVING_BYTES {
            self.finish(emptied)
        } else {
            Ok(())
        }
    }

    /// Waits for everything sent. What found no room is evicted if it may be.
    fn finish(&mut self, emptied: &mut Emptied) -> Result<()> {
        self.bytes = 0;
        let mut failed = None;
        for sent in self.sent.drain(..) {
            match sent.outcome.blocking_recv().unwrap_or(Err(Error::Stopping)) {
                Ok(_) => emptied.moved_bytes += sent.view.size.bytes() as u64,
                Err(Error::OutOfSpace(_)) if sent.verdict != Verdict::Pinned => {
                    self.shared
                        .evict(sent.hash, sent.view, &sent.header, emptied);
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.shared.space.set_moving_entries(false);
    }
}

/// The hash under which a record should be found.
pub(crate) fn hash_of(shared: &Shared, header: &Header) -> KeyHash {
    shared.hash(&Key::of(header))
}
