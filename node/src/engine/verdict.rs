//! What becomes of each record of a segment that is being emptied, and eviction of whole values.
//!
//! Parts are judged by their manifest, and leave together with it: what is left of a value must never look present.
//! Not here: choosing segments (`reclaim`), moving records (`moving`).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    leases,
    manifest::{PartsOf, read_parts_of, split_part_key},
    record::{Header, Kind, flag},
    segment::Segment,
    shared::{LEASE_TICKS, Shared},
    slot::{self, KeyHash, Location, View},
};

/// Share of the capacity that leases may hold before the oldest end early.
const LEASED_PERCENT: u64 = 60;

/// How often leases are surveyed while as many segments as there are come into use.
const SURVEYS_PER_TURN: u64 = 64;

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
    /// Records whose time was over, and their bytes.
    pub(crate) expired_records: u64,
    pub(crate) expired_bytes: u64,
    /// Bytes of the segment that were dead already.
    pub(crate) dead_bytes: u64,
    /// Bytes that went to a new place.
    pub(crate) moved_bytes: u64,
}

/// What stays although it is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spare {
    Nothing,
    /// What has got a lease since it was judged.
    Leased,
}

impl Mode {
    /// What is spared in this mode.
    pub(crate) const fn spare(self) -> Spare {
        match self {
            Mode::Evict | Mode::Compact => Spare::Leased,
            Mode::Force => Spare::Nothing,
        }
    }
}

/// Records that left the index together, and their bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    records: u64,
    bytes: u64,
}

/// What is to become of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Dead,
    Evict,
    /// Leaves because its time is over.
    Expired,
    /// Moves, whatever it takes: it is pinned, on its way in, or hides an older version.
    Pinned,
    /// Moves if there is room at all: it is leased, or its segment is only being compacted.
    Kept,
    /// Moves because it was used.
    Used,
}

impl Shared {
    /// What is to become of the live record in this slot.
    pub(crate) fn judge(
        &self,
        segment: &Segment,
        view: &View,
        header: &Header,
        mode: Mode,
    ) -> Verdict {
        if header.flags & flag::TOUCHES != 0 && leases::is_over(self.lease_millis(), header.version)
        {
            return Verdict::Dead;
        }
        if header.kind == Kind::Namespace {
            return Verdict::Pinned;
        }
        let is_note_of_pins = header.flags & flag::PINS != 0;
        if !is_note_of_pins && self.is_purged(header.namespace) {
            return Verdict::Dead;
        }
        // The header may say what has been settled since.
        if !is_note_of_pins && view.is_pinned() {
            return Verdict::Pinned;
        }
        if view.tombstone || is_note_of_pins {
            let fence = header.raw_size;
            let is_older =
                |other: &Arc<Segment>| other.id != segment.id && other.salt.generation <= fence;
            let needed = self.segments.all().iter().any(is_older);
            return if needed {
                Verdict::Pinned
            } else {
                Verdict::Dead
            };
        }
        if header.kind == Kind::Part {
            return self.judge_part(view, mode);
        }
        self.judge_use(view, header.namespace, header.version, mode)
    }

    /// Whether nothing of a namespace can be found any more.
    pub(crate) fn is_purged(&self, namespace: u32) -> bool {
        let names = self.namespaces.read();
        !names.values().any(|number| *number == namespace)
    }

    fn judge_use(&self, view: &View, namespace: u32, version: u64, mode: Mode) -> Verdict {
        let leased = self.is_leased(view);
        if self.has_expired(namespace, version) && (mode == Mode::Force || !leased) {
            return Verdict::Expired;
        }
        let spared = mode == Mode::Evict && (leased || self.is_young(version));
        if mode == Mode::Compact || spared {
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
            Some((manifest, parts)) => {
                self.judge_use(&manifest, parts.namespace, parts.version, mode)
            }
            None => Verdict::Dead,
        }
    }

    /// The manifest of the value of a part, and when that was put; nothing while it has none.
    pub(crate) fn value_of_part(&self, location: Location) -> Option<(View, u64)> {
        let (_, header) = self.read_header(location).ok()??;
        let (upload, owner) = split_part_key(&header.key);
        let (manifest, parts) = self.manifest_of(upload, owner)?;
        Some((manifest, parts.version))
    }

    /// Evicts a record, and with a part or manifest the whole value; `false` when it must be spared after all.
    pub(crate) fn evict(
        &self,
        hash: KeyHash,
        view: View,
        header: &Header,
        spare: Spare,
        emptied: &mut Emptied,
    ) -> bool {
        let counted = &self.counters.evicted_records;
        // Counted before it is gone: whoever misses it can tell why.
        counted.fetch_add(1, Relaxed);
        let mut gone = Gone::default();
        let went = self.take_out(hash, view, header, spare, &mut gone);
        let Gone { records, bytes } = gone;
        emptied.evicted_records += records;
        emptied.evicted_bytes += bytes;
        counted.fetch_add(records, Relaxed);
        counted.fetch_sub(1, Relaxed);
        self.counters.evicted_bytes.fetch_add(bytes, Relaxed);
        went
    }

    /// Removes a record whose time is over, and with a part or manifest the whole value; `false` when it must be spared
    /// after all.
    pub(crate) fn remove_expired(
        &self,
        hash: KeyHash,
        view: View,
        header: &Header,
        spare: Spare,
        emptied: &mut Emptied,
    ) -> bool {
        let mut gone = Gone::default();
        let went = self.take_out(hash, view, header, spare, &mut gone);
        let Gone { records, bytes } = gone;
        emptied.expired_records += records;
        emptied.expired_bytes += bytes;
        self.counters.expired_records.fetch_add(records, Relaxed);
        went
    }

    /// Removes a record, and with a part or manifest the whole value: what is left must never look present. `false` when
    /// the record is to be spared; its manifest may have gone all the same, if somebody is still reading the parts.
    fn take_out(
        &self,
        hash: KeyHash,
        view: View,
        header: &Header,
        spare: Spare,
        gone: &mut Gone,
    ) -> bool {
        let in_parts = matches!(
            header.kind,
            Kind::Part | Kind::Manifest | Kind::EntryManifest
        );
        let value = in_parts.then(|| self.value_of(view.location, hash));
        let value = value.flatten();
        if let Some((upload, owner)) = value
            && !self.take_out_value(upload, owner, spare, gone)
        {
            return false;
        }
        // A part whose manifest has just gone by itself is garbage, and must not stay behind either.
        let reading = self.reading.lock();
        let is_read = value.is_some_and(|(upload, _)| reading.contains_key(&upload));
        let stays = header.kind == Kind::Part && is_read;
        if !stays && self.take_out_slot(hash, view.location, spare, gone) {
            self.ledger.sub(header);
            return true;
        }
        !self.index.find(hash).has(view.location)
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

    /// Removes a manifest and its parts; `false` when it is to be spared. The manifest may be on its way to a new place:
    /// until it is gone, look again.
    fn take_out_value(
        &self,
        upload: [u8; 16],
        owner: KeyHash,
        spare: Spare,
        gone: &mut Gone,
    ) -> bool {
        while let Some((manifest, parts)) = self.manifest_of(upload, owner) {
            let leased = spare == Spare::Leased && self.is_leased(&manifest);
            if leased || manifest.is_pinned() {
                return false;
            }
            if self.take_out_slot(owner, manifest.location, spare, gone) {
                self.ledger.sub_value(manifest.kind, &parts);
                self.take_out_parts(&parts, spare, gone);
                break;
            }
        }
        true
    }

    /// Removes all parts of a value while nobody can start to read them: who does so later finds none. If somebody is
    /// reading them they stay, and reclaim finds them later.
    fn take_out_parts(&self, parts: &PartsOf, spare: Spare, gone: &mut Gone) {
        let reading = self.reading.lock();
        if reading.contains_key(&parts.upload) {
            return;
        }
        for part in 0..parts.count() {
            let hash = self.hash(&parts.key(part));
            for view in self.index.find(hash).iter() {
                self.take_out_slot(hash, view.location, spare, gone);
            }
        }
    }

    /// A lease or pin that comes before the slot is gone is a promise, one that comes later finds nothing.
    fn take_out_slot(
        &self,
        hash: KeyHash,
        location: Location,
        spare: Spare,
        gone: &mut Gone,
    ) -> bool {
        let clock = self.lease_clock();
        let may_go =
            |view: &View| !view.is_pinned() && (spare == Spare::Nothing || !clock.holds(view));
        let Some(view) = self.index.remove_if(hash, location, may_go) else {
            return false;
        };
        self.segments.sub_live(location.segment, view.size.bytes());
        gone.records += 1;
        gone.bytes += view.size.bytes() as u64;
        if clock.is_open(&view) {
            self.counters.leases_broken.fetch_add(1, Relaxed);
        }
        true
    }

    /// Ends the oldest leases early when leased and pinned data would fill the store; all of them if `none_holds`.
    /// Goes through the whole index, so not at every segment.
    pub(crate) fn survey_leases(&self, none_holds: bool) {
        let (_, limit) = self.space.files_and_limit();
        let generation = self.space.generation();
        let due = self.surveyed_at.load(Relaxed) + (limit as u64 / SURVEYS_PER_TURN).max(1);
        if generation < due && !none_holds {
            return;
        }
        self.surveyed_at.store(generation, Relaxed);
        let mut by_age = vec![0u64; usize::from(LEASE_TICKS)];
        let mut manifests = vec![0u64; usize::from(LEASE_TICKS)];
        let (mut pinned, mut part_bytes, mut all_manifests) = (0, 0, 0);
        let clock = self.lease_clock();
        self.index.for_each(|_, view| {
            let age = usize::from(clock.age(view.touch));
            let leased = clock.is_open(&view);
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
        let most = limit as u64 * self.geometry.segment_bytes * LEASED_PERCENT / 100;
        // Slots do not tell of the parts of a pinned value.
        let mut held = pinned.max(self.pinned.disk_bytes());
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
