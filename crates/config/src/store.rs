//! Settings of the segment store.

use std::time::Duration;

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
        checks.finish()
    }
}
