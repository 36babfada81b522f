//! Settings of the gateway: connections, timeouts, limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zimcache_types::ByteSize;

/// How the gateway treats connections and bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct GatewayConfig {
    /// Largest blob or entry value accepted.
    pub max_blob_size: ByteSize,
    /// Most open connections; at the cap the longest-idle one is closed.
    pub max_connections: usize,
    /// How long a new connection may stay silent before its first byte.
    #[serde(with = "crate::gateway::seconds")]
    pub first_byte_timeout: Duration,
    /// How long a request's header may take.
    #[serde(with = "crate::gateway::seconds")]
    pub header_timeout: Duration,
    /// How long a kept-alive connection may stay idle between requests.
    #[serde(with = "crate::gateway::seconds")]
    pub idle_timeout: Duration,
    /// How long a body may pause between two chunks, either way.
    #[serde(with = "crate::gateway::seconds")]
    pub body_timeout: Duration,
    /// How long requests may finish after a stop was asked for.
    #[serde(with = "crate::gateway::seconds")]
    pub drain_timeout: Duration,
    /// Send HTTP/1.1 header names in Title-Case, for clients that compare them literally.
    pub title_case_headers: bool,
    /// Log every request.
    pub access_log: bool,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            max_blob_size: ByteSize::gib(16),
            max_connections: 10_000,
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            body_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            title_case_headers: false,
            access_log: false,
        }
    }
}

/// Durations as text with a unit: `10s`, `500ms`, `5m`, `2h`.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Parses `10s`, `500ms`, `5m`, `2h` or a plain number of seconds.
    ///
    /// # Errors
    /// A sentence that names the accepted forms.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let refused = || format!("{text:?} is not a duration; write a number with ms, s, m or h");
        let text = text.trim();
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..split].parse().map_err(|_| refused())?;
        let millis = match text[split..].trim() {
            "ms" => Some(number),
            "" | "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        millis.map(Duration::from_millis).ok_or_else(refused)
    }

    /// Writes milliseconds, or seconds where that is exact.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = value.as_millis();
        if millis % 1_000 == 0 {
            serializer.collect_str(&format_args!("{}s", millis / 1_000))
        } else {
            serializer.collect_str(&format_args!("{millis}ms"))
        }
    }

    /// Reads what [`parse`] accepts.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
