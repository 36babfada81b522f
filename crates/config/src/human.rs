//! Sizes and durations as people write them: `100GB`, `64MiB`, `10s`, `500ms`, `14d`, and `off` for a duration that
//! may be absent. Each module serves as `#[serde(with = "…")]`.
//!
//! Invariant: what is written reads back as exactly the same value, in the largest unit that is exact.

use std::time::Duration;

use zimcache_types::ByteSize;

/// Names and factors a size may be written with, largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
];

/// Names and milliseconds of the units of a duration, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A size in the largest unit that is exact, such as `100GB` or `64MiB`.
pub fn size_text(value: ByteSize) -> String {
    let bytes = value.as_u64();
    let exact = |(_, factor): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*factor);
    match SIZE_UNITS.iter().find(exact) {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// A duration in the largest unit that is exact, such as `10s` or `14d`; parts of a millisecond are dropped.
pub fn duration_text(value: Duration) -> String {
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let exact = |(_, factor): &&(&str, u64)| millis.is_multiple_of(*factor);
    match DURATION_UNITS.iter().find(exact) {
        Some((name, factor)) => format!("{}{name}", millis / factor),
        None => format!("{millis}ms"),
    }
}

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write a whole number with ms, s, m, h or d, such as 10s")]
pub struct DurationError(String);

/// Reads `500ms`, `10s`, `5m`, `2h`, `14d`, or a plain number of seconds.
///
/// # Errors
/// [`DurationError`], which names the accepted forms.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let refused = || DurationError(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = trimmed.split_at(split.unwrap_or(trimmed.len()));
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit = match unit.trim() {
        "" => "s",
        unit => unit,
    };
    let (_, factor) = DURATION_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(refused)?;
    let millis = number.checked_mul(*factor).ok_or_else(refused)?;
    Ok(Duration::from_millis(millis))
}

/// Durations, as text with a unit.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes [`super::duration_text`].
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::duration_text(*value))
    }

    /// Reads what [`super::parse_duration`] accepts.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Durations that may be `off`.
pub mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes [`super::duration_text`], or `off`.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = value.map_or_else(|| "off".to_owned(), super::duration_text);
        serializer.serialize_str(&text)
    }

    /// Reads what [`super::parse_duration`] accepts, and `off`.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim() == "off" {
            return Ok(None);
        }
        super::parse_duration(&text)
            .map(Some)
            .map_err(D::Error::custom)
    }
}

/// Sizes, as text with a unit; a plain number of bytes is read too.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer};
    use zimcache_types::ByteSize;

    /// Writes [`super::size_text`].
    pub fn serialize<S: Serializer>(value: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::size_text(*value))
    }

    /// Reads any form of [`ByteSize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        ByteSize::deserialize(deserializer)
    }
}

/// Sizes that may be absent: the setting is left out then.
pub mod optional_size {
    use serde::{Deserialize, Deserializer, Serializer};
    use zimcache_types::ByteSize;

    /// Writes [`super::size_text`], or nothing.
    pub fn serialize<S: Serializer>(
        value: &Option<ByteSize>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(size) => serializer.serialize_some(&super::size_text(*size)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads any form of [`ByteSize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ByteSize>, D::Error> {
        ByteSize::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    proptest! {
        #[test]
        fn every_size_reads_back_as_written(bytes in any::<u64>(), zeros in 0_u32..60) {
            let size = ByteSize(bytes >> zeros << zeros);
            assert_eq!(size_text(size).parse::<ByteSize>().unwrap(), size);
        }

        #[test]
        fn every_duration_reads_back_as_written(millis in any::<u64>(), factor in 1_u64..100_000_000) {
            let duration = Duration::from_millis(millis / factor * factor);
            assert_eq!(parse_duration(&duration_text(duration)).unwrap(), duration);
        }
    }

    #[test]
    fn values_are_written_in_the_largest_exact_unit() {
        for (bytes, text) in [
            (0, "0B"),
            (100_000_000_000, "100GB"),
            (16 << 30, "16GiB"),
            (1025, "1025B"),
        ] {
            assert_eq!(size_text(ByteSize(bytes)), text);
        }
        for (millis, text) in [
            (0, "0s"),
            (1_209_600_000, "14d"),
            (90_000, "90s"),
            (1_500, "1500ms"),
        ] {
            assert_eq!(duration_text(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn durations_need_a_whole_number_and_a_known_unit() {
        assert_eq!(parse_duration(" 90 ").unwrap(), Duration::from_secs(90));
        for bad in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1w",
            "99999999999999999999s",
            "300000000000d",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
