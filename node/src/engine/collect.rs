//! Garbage collection on demand, and the listing of blobs: what an operator asks for, off the async threads.
//!
//! What is over its age leaves first, then, towards a target, what was not used, oldest first; the files stay, and
//! sparse segments are emptied at the end. Records leave the index in place: one that was evicted, and that no newer
//! record hides, is found again if the store is opened before its segment is used again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use zimcache_store::{BlobInfo, Error, GcOptions, GcReport, Result};
use zimcache_types::{Digest, Function, Hash, Timestamp};

use super::{
    record::{Header, Kind},
    retention::put_millis,
    segment::{Class, Segment},
    shared::{Key, Shared},
    slot::{self, KeyHash, Location, View},
    verdict::{Emptied, Mode, Spare, Verdict},
};

/// Passes over all segments towards a target. Use counts go to zero in three; somebody who names a target means it, so
/// leases and minimum lifetimes end early after that. Pinned records stay all the same.
const GC_PASSES: [Mode; 8] = [
    Mode::Evict,
    Mode::Evict,
    Mode::Evict,
    Mode::Evict,
    Mode::Force,
    Mode::Force,
    Mode::Force,
    Mode::Force,
];

/// Which namespaces a collection touches.
#[derive(Debug, Clone, Copy)]
enum Rooms {
    All,
    /// The one of this number.
    One(u32),
    /// One that holds nothing was named.
    Unknown,
}

/// A collection under way.
struct Collection<'a> {
    shared: &'a Shared,
    older_than: Option<Duration>,
    rooms: Rooms,
    dry_run: bool,
    /// What left, or would leave.
    emptied: Emptied,
}

impl Collection<'_> {
    fn concerns(&self, header: &Header) -> bool {
        match self.rooms {
            Rooms::All => true,
            Rooms::One(number) => header.namespace == number,
            Rooms::Unknown => false,
        }
    }

    /// Whether a record is older than was asked for, by its own time or its manifest's.
    fn is_too_old(&self, header: &Header, view: &View) -> bool {
        let Some(limit) = self.older_than else {
            return false;
        };
        let now = self.shared.clock.now();
        let value = match header.kind {
            Kind::Part => self.shared.value_of_part(view.location),
            _ => Some((*view, header.version)),
        };
        let Some((view, version)) = value else {
            return false;
        };
        let leased = self.shared.is_leased(&view);
        !leased && now.since(Timestamp(put_millis(version))) >= limit
    }

    /// Removes what is past its time.
    fn remove_old(&mut self) -> Result<()> {
        for segment in self.shared.segments.all() {
            for (hash, view, header) in self.shared.live_rows(&segment)? {
                let verdict = self.shared.judge(&segment, &view, &header, Mode::Compact);
                let too_old = verdict == Verdict::Kept && self.is_too_old(&header, &view);
                if !self.concerns(&header) || !(too_old || verdict == Verdict::Expired) {
                    continue;
                }
                if self.dry_run {
                    self.emptied.expired_records += 1;
                    self.emptied.expired_bytes += view.size.bytes() as u64;
                } else {
                    let spare = Spare::Leased;
                    self.shared
                        .remove_expired(hash, view, &header, spare, &mut self.emptied);
                }
            }
        }
        Ok(())
    }

    /// Bytes held of what the collection is about.
    fn held_bytes(&self) -> u64 {
        let held = match self.rooms {
            Rooms::All => self.shared.live_bytes(),
            Rooms::One(number) => self.shared.ledger.bytes_of(number),
            Rooms::Unknown => 0,
        };
        let gone = self.emptied.expired_bytes + self.emptied.evicted_bytes;
        held.saturating_sub(if self.dry_run { gone } else { 0 })
    }

    fn evict_down_to(&mut self, target: u64) -> Result<()> {
        for pass in 0..GC_PASSES.len() {
            for segment in self.shared.segments.all() {
                if self.held_bytes() <= target {
                    return Ok(());
                }
                self.evict_in_place(&segment, target, pass)?;
            }
        }
        Ok(())
    }

    /// Evicts what was not used from a segment that stays in use. Use counts go down by one, so that a further pass
    /// evicts more.
    fn evict_in_place(&mut self, segment: &Arc<Segment>, target: u64, pass: usize) -> Result<()> {
        let shared = self.shared;
        for (hash, view, header) in shared.live_rows(segment)? {
            if self.held_bytes() <= target {
                return Ok(());
            }
            if !self.concerns(&header) {
                continue;
            }
            let mode = GC_PASSES[pass];
            match shared.judge(segment, &view, &header, mode) {
                verdict if self.dry_run => self.pretend(verdict, &view, pass),
                Verdict::Dead => shared.bury(hash, view.location, &header),
                Verdict::Evict => {
                    shared.evict(hash, view, &header, mode.spare(), &mut self.emptied);
                }
                Verdict::Expired => {
                    shared.remove_expired(hash, view, &header, mode.spare(), &mut self.emptied);
                }
                Verdict::Used => {
                    shared.index.update(hash, view.location, |view| {
                        view.freq = view.freq.saturating_sub(1);
                    });
                }
                Verdict::Pinned | Verdict::Kept => {}
            }
        }
        Ok(())
    }

    /// Counts what the passes would evict, each record in the pass that would meet it without uses.
    fn pretend(&mut self, verdict: Verdict, view: &View, pass: usize) {
        let first_forced = GC_PASSES.len() / 2;
        let uses = usize::from(view.freq);
        let meets = match verdict {
            Verdict::Evict => pass == 0 || (pass == first_forced && self.is_held(view)),
            Verdict::Used => pass == uses || (pass == first_forced && self.is_held(view)),
            _ => false,
        };
        if meets {
            self.emptied.evicted_records += 1;
            self.emptied.evicted_bytes += view.size.bytes() as u64;
        }
    }

    fn is_held(&self, view: &View) -> bool {
        self.shared.is_leased(view)
    }
}

impl Shared {
    /// Removes what the options say, then compacts sparse segments.
    pub(crate) fn collect_garbage(&self, options: &GcOptions) -> Result<GcReport> {
        let _one_at_a_time = self.reclaiming.lock();
        let before_bytes = self.live_bytes();
        let rooms = match &options.namespace {
            None => Rooms::All,
            Some(name) => self
                .namespace_number(name)
                .map_or(Rooms::Unknown, Rooms::One),
        };
        let mut collection = Collection {
            shared: self,
            older_than: options.older_than,
            rooms,
            dry_run: options.dry_run,
            emptied: Emptied::default(),
        };
        collection.remove_old()?;
        if let Some(target) = options.target_bytes {
            self.survey_lifetimes(false);
            collection.evict_down_to(target)?;
        }
        let gone = collection.emptied;
        let mut report = GcReport {
            dry_run: options.dry_run,
            before_bytes,
            evicted_records: gone.evicted_records,
            evicted_bytes: gone.evicted_bytes,
            expired_records: gone.expired_records,
            expired_bytes: gone.expired_bytes,
            ..GcReport::default()
        };
        if options.dry_run {
            report.after_bytes =
                before_bytes.saturating_sub(gone.evicted_bytes + gone.expired_bytes);
            return Ok(report);
        }
        self.compact(&mut report)?;
        report.after_bytes = self.live_bytes();
        Ok(report)
    }

    fn compact(&self, report: &mut GcReport) -> Result<()> {
        for segment in self.reclaimable().collect::<Vec<Arc<Segment>>>() {
            let dense = segment.live_bytes() * 2 > self.geometry.segment_bytes;
            let out_of_turn =
                segment.class == Class::Entries && self.first_entries() != Some(segment.id);
            if dense || out_of_turn || self.space.is_exhausted() {
                continue;
            }
            let emptied = self.empty(&segment, Mode::Compact)?;
            report.compacted_bytes += emptied.dead_bytes;
            self.drain_released()
                .map_err(|error| Error::disk("remove a freed segment", error))?;
        }
        Ok(())
    }

    /// The blobs of a namespace, in the order of their digests.
    pub(crate) fn list_blobs(
        &self,
        namespace: u32,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let mut slots: Vec<(Location, KeyHash)> = Vec::new();
        self.index.for_each(|hash, view| {
            let blob = matches!(view.kind, slot::Kind::Blob | slot::Kind::Manifest);
            if blob && !view.tombstone {
                slots.push((view.location, hash));
            }
        });
        slots.sort_by_key(|(location, _)| (location.segment, location.offset));
        let mut rows = BTreeMap::new();
        for (location, hash) in slots {
            let read = self.read_header(location);
            let read = read.map_err(|error| Error::disk("list blobs", error))?;
            // A record that moved meanwhile is found where it went.
            let header = match read {
                Some((_, header)) if self.hash(&Key::of(&header)).resembles(hash) => Some(header),
                _ => self.moved_header(hash)?,
            };
            let Some(header) = header.filter(|header| header.namespace == namespace) else {
                continue;
            };
            let row = self.blob_info(&header, hash);
            if let Some(row) = row.filter(|row| after.is_none_or(|a| row.digest.hash > a.hash)) {
                rows.insert(row.digest.hash, row);
                if rows.len() > limit {
                    rows.pop_last();
                }
            }
        }
        Ok(rows.into_values().collect())
    }

    fn moved_header(&self, hash: KeyHash) -> Result<Option<Header>> {
        for view in self.index.find(hash).iter().filter(|view| !view.tombstone) {
            let read = self.read_header(view.location);
            let read = read.map_err(|error| Error::disk("list blobs", error))?;
            if let Some((_, header)) = read
                && self.hash(&Key::of(&header)).resembles(hash)
            {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// The row of a blob that is still served; `None` also for one whose key is a hash of its hash.
    fn blob_info(&self, header: &Header, hash: KeyHash) -> Option<BlobInfo> {
        if !matches!(header.kind, Kind::Blob | Kind::Manifest) || header.is_tombstone() {
            return None;
        }
        let found = self.index.find(hash);
        let view = found.iter().find(|view| !view.tombstone)?;
        if self.is_over(header, &view) {
            return None;
        }
        let function = Function::from_number(header.function)?;
        let raw = header.key.get(..function.hash_len())?;
        Some(BlobInfo {
            digest: Digest::sized(Hash::from_bytes(function, raw)?, header.raw_size),
            size_bytes: header.raw_size,
            created: Timestamp(put_millis(header.version)),
        })
    }
}
