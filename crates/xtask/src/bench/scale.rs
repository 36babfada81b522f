//! How much is done per row: the full volumes, and short ones that only show that the tool works.

use std::time::Duration;

/// A figure that is not negative, without its fraction.
#[allow(clippy::cast_sign_loss, reason = "negative figures become 0")]
pub(super) const fn whole(value: f64) -> u64 {
    value as u64
}

/// Volumes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// A shortened run.
    pub(super) quick: bool,
    /// Rounds per row.
    pub(super) rounds: usize,
    /// Not measured, before each steady load.
    pub(super) warm_up: Duration,
    /// Measured.
    pub(super) measure: Duration,
    /// Entries of the memory and restart rows.
    pub(super) entries: usize,
    /// Small blobs held in the rows of the Remote Execution API.
    pub(super) held: usize,
    /// Blobs drawn from the size histogram there.
    pub(super) reapi_blobs: usize,
    /// Entries of the index row.
    pub(super) index_entries: usize,
    /// Streams at once.
    pub(super) streams: usize,
    /// Size of each in bytes.
    pub(super) stream_bytes: u64,
    /// Size of the object of many readers, in bytes.
    pub(super) cold_bytes: u64,
    /// Blobs drawn from the size histogram.
    pub(super) histogram_blobs: usize,
    /// Most bytes of each kind of build output.
    pub(super) codec_bytes: usize,
    /// Measured time of a store row.
    pub(super) store_measure: Duration,
}

impl Scale {
    /// The volumes the report is about.
    pub(super) const fn full(rounds: usize) -> Scale {
        Scale {
            quick: false,
            rounds,
            warm_up: Duration::from_millis(500),
            measure: Duration::from_secs(4),
            entries: 1_000_000,
            held: 1_000_000,
            reapi_blobs: 12_000,
            index_entries: 10_000_000,
            streams: 64,
            stream_bytes: 256 << 20,
            cold_bytes: 64 << 20,
            histogram_blobs: 5_000,
            codec_bytes: 64 << 20,
            store_measure: Duration::from_millis(1_500),
        }
    }

    /// Volumes for a look whether everything works.
    pub(super) const fn quick(rounds: usize) -> Scale {
        Scale {
            quick: true,
            rounds,
            warm_up: Duration::from_millis(100),
            measure: Duration::from_millis(500),
            entries: 20_000,
            held: 20_000,
            reapi_blobs: 500,
            index_entries: 200_000,
            streams: 8,
            stream_bytes: 16 << 20,
            cold_bytes: 20 << 20,
            histogram_blobs: 500,
            codec_bytes: 4 << 20,
            store_measure: Duration::from_millis(300),
        }
    }
}
