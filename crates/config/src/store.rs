//! Settings of the segment store.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use zimcache_types::ByteSize;

use crate::{
    field::settings,
    human::{duration_text, size_text},
    problem::{Checks, Problems},
};

settings! {
    /// How one store uses its disk and RAM.
    pub struct StoreConfig in "store" {
        /// Most bytes all files of the store may take. At least 64 MiB.
        #[serde(with = "crate::human::size")]
        max_size: ByteSize = ByteSize(100_000_000_000),
            accepts "a size such as 500MB, 100GB or 2TiB, at least 64MiB", flag "--max-size";
        /// Segment size; absent, it is chosen by capacity when a store is made. A power of two from 1 MiB to 256 MiB.
        #[serde(with = "crate::human::optional_size")]
        segment_size: Option<ByteSize> = None,
            accepts "a power of two from 1MiB to 256MiB";
        /// Ceiling of the index in RAM; absent, it is 2 % of the machine's RAM, at least 64 MiB.
        #[serde(with = "crate::human::optional_size")]
        index_memory: Option<ByteSize> = None,
            accepts "a size such as 64MiB or 2GiB, at least 1MiB";
        /// RAM that bodies being uploaded may take.
        #[serde(with = "crate::human::size")]
        upload_memory: ByteSize = ByteSize::mib(64),
            accepts "a size such as 64MiB, at least 4MiB";
        /// RAM for records that are read again and again; 0 keeps none.
        #[serde(with = "crate::human::size")]
        hot_memory: ByteSize = ByteSize::mib(64),
            accepts "a size such as 64MiB, or 0";
        /// Write around the page cache where the file system allows it.
        direct_io: bool = true,
            accepts "true or false";
        /// A full scrub takes this long; `off` turns the background scrub off.
        #[serde(with = "crate::human::optional_duration")]
        scrub_interval: Option<Duration> = Some(Duration::from_hours(14 * 24)),
            accepts "a duration such as 12h or 14d, at least 1s, or off";
        /// How records are kept small on the disk. `auto` takes the better of both for each value.
        compression: Compression = Compression::Auto,
            accepts "auto, zstd, lz4 or off", flag "--compression";
        /// How long after its put a record is served; namespaces may differ. `off`: as long as it fits.
        #[serde(with = "crate::human::optional_duration")]
        retention: Option<Duration> = None,
            accepts "a duration such as 12h or 30d, at least 1s, or off", flag "--retention";
        /// Eviction spares what is younger than this while anything older can go.
        #[serde(with = "crate::human::duration")]
        min_lifetime: Duration = Duration::ZERO,
            accepts "a duration such as 0s, 30m or 1d";
        /// Which records leave first when the store is full.
        eviction_policy: EvictionPolicy = EvictionPolicy::S3Fifo,
            accepts "s3-fifo";
    }
}

/// How records are kept small on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The better of both for each value, by its size.
    #[default]
    Auto,
    /// zstd wherever it saves enough.
    Zstd,
    /// LZ4 wherever it saves enough.
    Lz4,
    /// Everything is stored as it came.
    Off,
}

/// Which records leave first when the store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum EvictionPolicy {
    /// What was never used again leaves first, in the order it came; what was used stays in turn.
    #[default]
    #[serde(rename = "s3-fifo")]
    S3Fifo,
}

impl<'de> Deserialize<'de> for EvictionPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let why = match name.as_str() {
            "s3-fifo" => return Ok(EvictionPolicy::S3Fifo),
            "lru" | "lfu" => {
                "lru and lfu would write the disk for every read or keep a list of all records in RAM, and \
                 hit no more often (docs/adr/0007); s3-fifo counts uses too"
            }
            "ttl" => "a time to live is set by retention, beside the policy",
            _ => "only s3-fifo is offered",
        };
        Err(D::Error::custom(why))
    }
}

impl StoreConfig {
    /// Least capacity of a store, in bytes.
    pub const MIN_MAX_SIZE: ByteSize = ByteSize::mib(64);

    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        checks.require(
            "max_size",
            self.max_size >= Self::MIN_MAX_SIZE,
            size_text(self.max_size),
        );
        if let Some(size) = self.segment_size {
            let in_range = (ByteSize::mib(1)..=ByteSize::mib(256)).contains(&size);
            let holds = in_range && size.as_u64().is_power_of_two();
            checks.require("segment_size", holds, size_text(size));
        }
        if let Some(size) = self.index_memory {
            checks.require("index_memory", size >= ByteSize::mib(1), size_text(size));
        }
        checks.require(
            "upload_memory",
            self.upload_memory >= ByteSize::mib(4),
            size_text(self.upload_memory),
        );
        if let Some(interval) = self.scrub_interval {
            let holds = interval >= Duration::from_secs(1);
            checks.require("scrub_interval", holds, duration_text(interval));
        }
        if let Some(ttl) = self.retention {
            let holds = ttl >= Duration::from_secs(1);
            checks.require("retention", holds, duration_text(ttl));
        }
        checks.finish()
    }
}
