//! Settings of the segment store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zimcache_types::ByteSize;

/// How one store uses its disk and RAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct StoreConfig {
    /// Most bytes all files of the store may take. At least 64 MiB.
    pub max_size: ByteSize,
    /// Segment size; `None` chooses by capacity when a store is made. A power of two from 1 MiB to 256 MiB.
    pub segment_size: Option<ByteSize>,
    /// Ceiling of the index in RAM; `None` is 2 % of the machine's RAM, at least 64 MiB.
    pub index_memory: Option<ByteSize>,
    /// RAM that bodies being uploaded may take.
    pub upload_memory: ByteSize,
    /// Write around the page cache where the file system allows it.
    pub direct_io: bool,
    /// A full scrub takes this long; `None` turns the background scrub off.
    #[serde(with = "optional_seconds")]
    pub scrub_interval: Option<Duration>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            max_size: ByteSize(100_000_000_000),
            segment_size: None,
            index_memory: None,
            upload_memory: ByteSize::mib(64),
            direct_io: true,
            scrub_interval: Some(Duration::from_secs(14 * 24 * 3600)),
        }
    }
}

mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::gateway::seconds;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => seconds::serialize(duration, serializer),
            None => serializer.serialize_str("off"),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(None);
        }
        seconds::parse(&text).map(Some).map_err(D::Error::custom)
    }
}
