//! The maintenance thread: seals full segments, makes room, vouches for idle lanes, scrubs.
//!
//! It sleeps until it is woken or a second has passed, and is the only caller of reclaim besides `gc`.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    lane::Message,
    manifest::read_parts_of,
    scan::scan,
    scrub::Scrub,
    segment::{Segment, State, TocRow, encode_footer},
    shared::{Key, Shared},
};

/// What the thread may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Look whether there is something to do.
    Look,
    /// Finish.
    Stop,
}

const TICK: Duration = Duration::from_secs(1);
/// A store that met a full disk adds files again when this many fit: one for each lane.
const GROWS_WITH_SEGMENTS: u64 = 4;

/// Runs until told to stop.
pub(crate) fn run(shared: &Arc<Shared>, tasks: &Receiver<Task>, mut scrub: Option<Scrub>) {
    shared.check_recovered_values();
    loop {
        match tasks.recv_timeout(TICK) {
            Ok(Task::Look) => {}
            Ok(Task::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                shared.ask_lanes_to_vouch();
                if let Some(scrub) = &mut scrub {
                    scrub.slice(shared, TICK);
                }
            }
        }
        shared.seal_closed();
        shared.expire();
        let room = GROWS_WITH_SEGMENTS * shared.geometry.segment_bytes;
        shared.space.grow_again_with_room(room);
        shared.make_room();
    }
}

impl Shared {
    /// Reclaims until enough can be taken. When a whole turn over the segments was not enough, leases end; when turns
    /// gain next to nothing, everything is pinned or on its way in, and writers are told so instead of waiting.
    pub(crate) fn make_room(&self) {
        self.drain_or_log();
        let (mut turns, mut gained) = (0, 0);
        while self.space.is_short()
            && !self.stopping.load(Relaxed)
            && self.read_only.get().is_none()
        {
            let _one_at_a_time = self.reclaiming.lock();
            let whole_turn = turns > self.space.files_and_limit().0;
            match self.reclaim_one(whole_turn) {
                Ok(Some(bytes)) => {
                    turns += 1;
                    gained += bytes;
                    self.drain_or_log();
                }
                Ok(None) => return self.space.set_stuck(),
                Err(error) => {
                    tracing::warn!(%error, "making room failed; trying again soon");
                    return;
                }
            }
            if whole_turn && gained < 2 * self.geometry.segment_bytes {
                return self.space.set_stuck();
            }
        }
    }

    /// Forgets values of which parts had been evicted before the store was opened. Look-ups check those they meet by
    /// themselves; this finds the rest.
    fn check_recovered_values(&self) {
        let mut unchecked = Vec::new();
        self.index.for_each(|hash, view| {
            if view.unchecked {
                unchecked.push((hash, view.location));
            }
        });
        for (hash, location) in unchecked {
            if self.stopping.load(Relaxed) {
                return;
            }
            let Ok(Some((segment, header))) = self.read_header(location) else {
                continue;
            };
            let full = self.hash(&Key::of(&header));
            match read_parts_of(&segment, location, full, &header) {
                Some(parts) if !self.has_all_parts(&parts) => self.drop_incomplete(&parts),
                Some(_) => drop(
                    self.index
                        .update(hash, location, |view| view.unchecked = false),
                ),
                None => {}
            }
        }
    }

    fn drain_or_log(&self) {
        if let Err(error) = self.drain_released() {
            tracing::warn!(%error, "a freed segment file could not be removed");
        }
    }

    /// Lets idle lanes write the empty batch that vouches for their last one.
    fn ask_lanes_to_vouch(&self) {
        for lane in &self.lanes {
            lane.try_send(Message::Vouch).ok();
        }
    }

    /// Writes the tables of contents of segments that are full.
    pub(crate) fn seal_closed(&self) {
        for segment in self
            .reclaimable()
            .filter(|segment| segment.state() == State::Closed)
            .filter(|segment| !self.unsealable.lock().contains(&segment.salt.generation))
        {
            if self.read_only.get().is_some() {
                return;
            }
            match self.seal(&segment) {
                Ok(()) => {}
                // No sync failed: it stays as it is until it is emptied.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.unsealable.lock().insert(segment.salt.generation);
                }
                Err(error) => {
                    tracing::error!(%error, segment = segment.id, "a segment could not be sealed; it stays readable");
                    self.quarantined.lock().insert(segment.salt.generation);
                }
            }
        }
    }

    /// Adds rows for live records that the scan could not read: their slots tell where they are.
    fn add_unreadable(&self, segment: &Segment, rows: &mut Vec<TocRow>) {
        let known: HashSet<u64> = rows.iter().map(TocRow::offset).collect();
        let mut missing = Vec::new();
        self.index.for_each(|hash, view| {
            if view.location.segment == segment.id && !known.contains(&view.location.offset) {
                missing.push((hash, view));
            }
        });
        for (hash, view) in missing {
            // Versions rise along the log, so this one is above every older version of its key.
            let before = rows
                .iter()
                .filter(|row| row.offset() < view.location.offset);
            let version = before.map(TocRow::version).max().unwrap_or(0) + 1;
            let header = view.header_of_unreadable(version);
            rows.push(TocRow::unreadable(hash, view.location.offset, &header));
        }
    }

    /// The rows of a segment, read from its batches.
    fn scan_rows(&self, segment: &Segment) -> io::Result<Vec<TocRow>> {
        let mut rows = Vec::new();
        let scanned = scan(
            segment.file.as_ref(),
            segment.tail(),
            segment.salt,
            &self.meta.hash_key,
            |row, _| rows.push(row),
        )?;
        segment.last_batch.fetch_max(scanned.last_batch, Relaxed);
        segment
            .last_batch_millis
            .fetch_max(scanned.last_millis, Relaxed);
        if scanned.rotten + scanned.torn > 0 {
            self.add_unreadable(segment, &mut rows);
        }
        Ok(rows)
    }

    /// Writes a segment's table of contents, if it fits behind the last batch.
    pub(crate) fn seal(&self, segment: &Segment) -> io::Result<()> {
        let rows = match segment.take_rows() {
            Some(rows) => rows,
            None => self.scan_rows(segment)?,
        };
        let (pages, offset) = encode_footer(
            &rows,
            self.geometry.segment_bytes,
            self.meta.store_id,
            &segment.header(),
            segment.last_batch_millis.load(Relaxed),
            segment.last_batch.load(Relaxed),
        );
        if offset < segment.tail() {
            return Ok(());
        }
        segment.file.write_at(&[pages.as_pages()], offset)?;
        segment.file.sync()?;
        self.counters.syncs.fetch_add(1, Relaxed);
        self.counters
            .disk_bytes
            .fetch_add(pages.bytes().len() as u64, Relaxed);
        segment.set_state(State::Sealed);
        Ok(())
    }
}
