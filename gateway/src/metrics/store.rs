//! The store's own figures on the metrics page, read when the page is made.
//!
//! Not here: what they mean (`zimcache_store::StoreStats`). Invariant: names and values are in the same order.

use zimcache_store::StoreAdmin;
use zimcache_telemetry::metrics::{Figure, Kind};

const fn figure(kind: Kind, name: &'static str, help: &'static str) -> Figure {
    Figure { kind, name, help }
}

pub(super) const STORE_FIGURES: &[Figure] = &[
    figure(
        Kind::Gauge,
        "zimcache_store_capacity_bytes",
        "Most bytes the store may take on disk.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_live_bytes",
        "Bytes of live records, headers included.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_disk_bytes",
        "Bytes the store's files take on disk.",
    ),
    figure(Kind::Gauge, "zimcache_store_blobs", "Live blobs."),
    figure(Kind::Gauge, "zimcache_store_entries", "Live entries."),
    figure(
        Kind::Gauge,
        "zimcache_store_index_bytes",
        "RAM taken by the index.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_pinned_bytes",
        "Bytes that must not be evicted.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_written_payload_bytes_total",
        "Payload bytes accepted.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_written_disk_bytes_total",
        "Bytes written to the disk, padding, headers and moves included.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_syncs_total",
        "Syncs of the disk.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_evicted_records_total",
        "Records evicted to make room.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_evicted_bytes_total",
        "Bytes of records evicted.",
    ),
    figure(
        Kind::Counter,
        "zimcache_leases_broken_total",
        "Leases ended early because the store was full of leased data.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_corrupt_records_total",
        "Records found corrupt.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_read_only",
        "1 while the store refuses writes.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_raw_bytes",
        "Payload bytes of live records as clients sent them.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_stored_bytes",
        "Payload bytes of live records as they are stored, after compression.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_expired_records_total",
        "Records that left because their time was over.",
    ),
];

/// The values of [`STORE_FIGURES`], in their order.
pub(super) fn store_values(admin: &dyn StoreAdmin) -> Vec<u64> {
    let stats = admin.stats();
    vec![
        stats.capacity_bytes,
        stats.live_bytes,
        stats.disk_bytes,
        stats.blobs,
        stats.entries,
        stats.index_bytes,
        stats.pinned_bytes,
        stats.written_payload_bytes,
        stats.written_disk_bytes,
        stats.syncs,
        stats.evicted_records,
        stats.evicted_bytes,
        stats.leases_broken,
        stats.corrupt_records,
        u64::from(stats.read_only.is_some()),
        stats.raw_bytes,
        stats.stored_bytes,
        stats.expired_records,
    ]
}

#[cfg(test)]
mod tests {
    use zimcache_store::memory::MemoryStore;

    use super::*;

    #[test]
    fn every_store_figure_has_a_value() {
        let values = store_values(&MemoryStore::default());
        assert_eq!(values.len(), STORE_FIGURES.len());
    }
}
