//! The operator's contract over the engine: figures, garbage collection, verification.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use async_trait::async_trait;
use zimcache_store::{
    Error, GcReport, Result, StoreAdmin, StoreStats, VerifyReport, admin::OnProgress,
};

use super::{
    segment::{Class, Segment},
    shared::Shared,
    slot::Kind,
    verdict::Mode,
};

/// Passes over all segments towards a target. Use counts go to zero in three; somebody who names a target means it, so
/// leases end early after that. Pinned records stay all the same.
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

/// Administration of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) recovery_millis: u64,
}

#[async_trait]
impl StoreAdmin for Admin {
    fn stats(&self) -> StoreStats {
        let shared = &self.shared;
        let counters = &shared.counters;
        let (files, limit) = shared.space.files_and_limit();
        let namespaces = shared.namespace_records();
        StoreStats {
            capacity_bytes: limit as u64 * shared.geometry.segment_bytes,
            live_bytes: shared.live_bytes(),
            disk_bytes: files as u64 * shared.geometry.segment_bytes,
            blobs: shared.index.count(Kind::Blob) + shared.index.count(Kind::Manifest),
            entries: shared.index.count(Kind::Entry).saturating_sub(namespaces),
            index_bytes: shared.index.bytes(),
            pinned_bytes: 0,
            written_payload_bytes: counters.payload_bytes.load(Relaxed),
            written_disk_bytes: counters.disk_bytes.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            evicted_records: counters.evicted_records.load(Relaxed),
            evicted_bytes: counters.evicted_bytes.load(Relaxed),
            leases_broken: counters.leases_broken.load(Relaxed),
            corrupt_records: counters.corrupt_records.load(Relaxed),
            read_only: shared.read_only.get().map(|why| (*why).to_owned()),
            recovery_millis: self.recovery_millis,
        }
    }

    async fn gc(&self, target_bytes: Option<u64>) -> Result<GcReport> {
        let shared = Arc::clone(&self.shared);
        let collected =
            tokio::task::spawn_blocking(move || shared.collect_garbage(target_bytes)).await;
        collected.unwrap_or(Err(Error::Stopping))
    }

    async fn verify(&self, on_progress: OnProgress) -> Result<VerifyReport> {
        let shared = Arc::clone(&self.shared);
        let verified = tokio::task::spawn_blocking(move || {
            let mut report = shared.verify(&on_progress);
            report.damaged += shared.damaged_at_open.swap(0, Relaxed);
            report
        });
        verified.await.map_err(|_| Error::Stopping)
    }
}

impl Shared {
    /// Bytes of live records, headers included, by size class.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments
            .all()
            .iter()
            .map(|segment| segment.live_bytes())
            .sum()
    }

    /// Compacts sparse segments, then evicts oldest first until at most `target` bytes are live.
    fn collect_garbage(&self, target: Option<u64>) -> Result<GcReport> {
        let _one_at_a_time = self.reclaiming.lock();
        let mut report = GcReport {
            before_bytes: self.live_bytes(),
            ..GcReport::default()
        };
        if let Some(target) = target {
            for mode in GC_PASSES {
                self.evict_pass(target, mode, &mut report)?;
            }
        }
        self.compact(&mut report)?;
        report.after_bytes = self.live_bytes();
        Ok(report)
    }

    /// Goes through all segments once, oldest first, until the target is reached.
    fn evict_pass(&self, target: u64, mode: Mode, report: &mut GcReport) -> Result<()> {
        for segment in self.segments.all() {
            if self.live_bytes() <= target {
                return Ok(());
            }
            let emptied = self.evict_in_place(&segment, target, mode)?;
            report.evicted_records += emptied.evicted_records;
            report.evicted_bytes += emptied.evicted_bytes;
        }
        Ok(())
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
}
