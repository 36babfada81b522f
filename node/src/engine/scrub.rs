//! Verification: everything live is read and checked, by the way (scrub) or at once (verify).
//!
//! A record must pass its checksums, have the key its slot stands for, and, if it is a blob, hash to its digest. What
//! fails is no longer served. Works from the index, so a record that a segment's table of contents lost is noticed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use zimcache_store::{Progress, VerifyReport, admin::OnProgress};
use zimcache_types::{Digest, Function};

use super::{
    blobs::blob_key,
    manifest::read_parts_of,
    read::{read_whole, value_of},
    record::{Encoding, Header, Kind},
    shared::{Key, Shared},
    slot::{self, KeyHash, View},
};

/// Segments whose slots are collected in one pass over the index.
const SEGMENTS_AT_ONCE: usize = 8;
const PART_MISSING: &str = "is a value with a part missing";
/// Damaged records named in a report.
const EXAMPLES: usize = 10;

impl Shared {
    /// Checks every live record now.
    pub(crate) fn verify(&self, on_progress: &OnProgress) -> VerifyReport {
        let mut report = VerifyReport::default();
        let ids: Vec<u32> = self
            .segments
            .all()
            .iter()
            .map(|segment| segment.id)
            .collect();
        let total_bytes = self
            .segments
            .all()
            .iter()
            .map(|segment| segment.live_bytes())
            .sum();
        for group in ids.chunks(SEGMENTS_AT_ONCE) {
            for (hash, view) in self.slots_in(group) {
                self.verify_record(hash, view, &mut report);
                let done_bytes = report.bytes.min(total_bytes);
                if report.records % 256 == 0 {
                    on_progress(Progress {
                        done_bytes,
                        total_bytes,
                    });
                }
            }
        }
        if report.damaged > 0 {
            self.lose_values_of_lost_parts();
        }
        on_progress(Progress {
            done_bytes: total_bytes,
            total_bytes,
        });
        report
    }

    /// Forgets manifests whose parts were found damaged behind them: one damage, counted once.
    fn lose_values_of_lost_parts(&self) {
        let mut manifests = Vec::new();
        self.index.for_each(|hash, view| {
            if matches!(view.kind, slot::Kind::Manifest | slot::Kind::Entry) && !view.tombstone {
                manifests.push((hash, view));
            }
        });
        for (hash, view) in manifests {
            if self.check_record(hash, view) == Some(PART_MISSING) {
                self.forget(hash, view.location);
            }
        }
    }

    /// The live slots in some segments, in the order they lie on the disk.
    fn slots_in(&self, segments: &[u32]) -> Vec<(KeyHash, View)> {
        let mut slots = Vec::new();
        self.index.for_each(|hash, view| {
            if segments.contains(&view.location.segment) && !view.tombstone {
                slots.push((hash, view));
            }
        });
        slots.sort_by_key(|(_, view)| (view.location.segment, view.location.offset));
        slots
    }

    fn verify_record(&self, hash: KeyHash, view: View, report: &mut VerifyReport) {
        report.records += 1;
        report.bytes += view.size.bytes() as u64;
        let moved = |shared: &Shared| {
            !shared
                .index
                .find(hash)
                .iter()
                .any(|now| now.location == view.location)
        };
        let problem = match self.check_record(hash, view) {
            None => return,
            Some(_) if moved(self) => return,
            // Evicted before the last opening: nothing is wrong with the disk.
            Some(PART_MISSING) if view.unchecked => {
                self.forget(hash, view.location);
                return;
            }
            Some(problem) => problem,
        };
        report.damaged += 1;
        if report.examples.len() < EXAMPLES {
            let place = view.location;
            report.examples.push(format!(
                "segment {} offset {}: {problem}",
                place.segment, place.offset
            ));
        }
        self.lose(hash, view.location, problem);
    }

    /// What is wrong with a record; `None` if nothing is.
    fn check_record(&self, hash: KeyHash, view: View) -> Option<&'static str> {
        let segment = self.segments.get(view.location.segment)?;
        let (header, payload) = match read_whole(&segment, view.location.offset, view.size.bytes())
        {
            Ok(Some(read)) => read,
            Ok(None) => return Some("fails its checksum"),
            Err(_) => return Some("cannot be read"),
        };
        if !self.hash(&Key::of(&header)).resembles(hash) {
            return Some("is another record than expected");
        }
        let Some(payload) = self.decoded_payload(&header, payload) else {
            return Some("does not decode");
        };
        match header.kind {
            Kind::Blob if !blob_is_sound(&header, &payload) => Some("does not hash to its digest"),
            Kind::Manifest | Kind::EntryManifest => self.check_parts(view, &header),
            _ => None,
        }
    }

    /// The value of an encoded record, or the payload of another.
    fn decoded_payload(&self, header: &Header, payload: Bytes) -> Option<Bytes> {
        if header.encoding == Encoding::Identity {
            return Some(payload);
        }
        let (_, value) = value_of(header, &payload)?;
        self.decode(header, &value).ok()
    }

    /// Whether all parts of a value are there; what is in them is checked for each part.
    fn check_parts(&self, view: View, header: &Header) -> Option<&'static str> {
        let segment = self.segments.get(view.location.segment)?;
        let Some(parts) =
            read_parts_of(&segment, view.location, self.hash(&Key::of(header)), header)
        else {
            return Some("is a manifest that does not parse");
        };
        (!self.has_all_parts(&parts)).then_some(PART_MISSING)
    }
}

/// Whether a blob's bytes hash to its key.
fn blob_is_sound(header: &Header, payload: &[u8]) -> bool {
    let Some(function) = Function::from_number(header.function) else {
        return false;
    };
    blob_key(header.namespace, &Digest::of(function, payload)).bytes == header.key
}

/// The slow, endless verification in the background.
#[derive(Debug)]
pub(crate) struct Scrub {
    interval: Duration,
    /// Records of this pass that are still to be checked.
    queue: Vec<(KeyHash, View)>,
    /// Segments of this pass that are still to be queued, newest first.
    segments: Vec<u32>,
}

impl Scrub {
    /// A scrub that takes `interval` for a full pass.
    pub(crate) fn new(interval: Duration) -> Scrub {
        Scrub {
            interval,
            queue: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Checks as much as is due after `elapsed`.
    pub(crate) fn slice(&mut self, shared: &Arc<Shared>, elapsed: Duration) {
        let live: u64 = shared
            .segments
            .all()
            .iter()
            .map(|segment| segment.live_bytes())
            .sum();
        let share = elapsed.as_secs_f64() / self.interval.as_secs_f64().max(1.0);
        #[allow(clippy::cast_sign_loss, reason = "both factors are positive")]
        let mut budget = (live as f64 * share) as u64;
        while budget > 0 {
            let Some((hash, view)) = self.next(shared) else {
                return;
            };
            budget = budget.saturating_sub(view.size.bytes() as u64);
            shared.verify_record(hash, view, &mut VerifyReport::default());
        }
    }

    fn next(&mut self, shared: &Shared) -> Option<(KeyHash, View)> {
        if let Some(next) = self.queue.pop() {
            return Some(next);
        }
        if self.segments.is_empty() {
            self.segments = shared
                .segments
                .all()
                .iter()
                .rev()
                .map(|segment| segment.id)
                .collect();
        }
        let segment = self.segments.pop()?;
        self.queue = shared.slots_in(&[segment]);
        self.queue.reverse();
        self.queue.pop()
    }
}
