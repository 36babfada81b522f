//! The operator's contract over the engine: figures, retention, and the way to `collect`, `ledger` and `scrub`.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use async_trait::async_trait;
use zimcache_store::{
    BlobInfo, Error, GcOptions, GcReport, Result, Retention, StoreAdmin, StoreStats, Usage,
    VerifyReport, admin::OnProgress,
};
use zimcache_types::{Digest, Namespace};

use super::{shared::Shared, slot::Kind};

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
        let (raw_bytes, stored_bytes) = shared.live_payload();
        StoreStats {
            capacity_bytes: limit as u64 * shared.geometry.segment_bytes,
            live_bytes: shared.live_bytes(),
            disk_bytes: files as u64 * shared.geometry.segment_bytes,
            blobs: shared.blob_count(),
            entries: shared.entry_count(),
            raw_bytes,
            stored_bytes,
            index_bytes: shared.index.bytes(),
            pinned_bytes: shared.pinned.disk_bytes(),
            written_payload_bytes: counters.payload_bytes.load(Relaxed),
            written_disk_bytes: counters.disk_bytes.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            evicted_records: counters.evicted_records.load(Relaxed),
            evicted_bytes: counters.evicted_bytes.load(Relaxed),
            expired_records: counters.expired_records.load(Relaxed),
            leases_broken: counters.leases_broken.load(Relaxed),
            corrupt_records: counters.corrupt_records.load(Relaxed),
            read_only: shared.read_only.get().map(|why| (*why).to_owned()),
            recovery_millis: self.recovery_millis,
        }
    }

    async fn gc(&self, options: GcOptions) -> Result<GcReport> {
        let shared = Arc::clone(&self.shared);
        let collected = tokio::task::spawn_blocking(move || shared.collect_garbage(&options)).await;
        collected.unwrap_or(Err(Error::Stopping))
    }

    fn set_retention(&self, retention: Retention) {
        self.shared.set_retention(retention);
    }

    async fn usage(&self) -> Result<Vec<Usage>> {
        Ok(self.shared.usage())
    }

    async fn list_blobs(
        &self,
        namespace: &Namespace,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        let Some(number) = self.shared.namespace_number(namespace) else {
            return Ok(Vec::new());
        };
        let (shared, after) = (Arc::clone(&self.shared), after.copied());
        let listing = move || shared.list_blobs(number, after, limit);
        let listed = tokio::task::spawn_blocking(listing).await;
        listed.unwrap_or(Err(Error::Stopping))
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

    /// Payload bytes of live records as clients sent them, and as they are stored.
    fn live_payload(&self) -> (u64, u64) {
        let segments = self.segments.all();
        let payloads = segments.iter().map(|segment| segment.live_payload());
        payloads.fold((0, 0), |(raw, stored), (r, s)| (raw + r, stored + s))
    }

    /// Live blobs, in one record or in parts.
    pub(crate) fn blob_count(&self) -> u64 {
        self.index.count(Kind::Blob) + self.index.count(Kind::Manifest)
    }

    /// Live entries.
    pub(crate) fn entry_count(&self) -> u64 {
        let own = self.namespace_records() + self.ledger.notes();
        self.index.count(Kind::Entry).saturating_sub(own)
    }
}
