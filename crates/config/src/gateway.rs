//! Settings of the gateway: connections, timeouts, limits.

use std::time::Duration;

use zimcache_types::ByteSize;

use crate::{
    IpNetwork,
    field::settings,
    human::{duration_text, size_text},
    problem::{Checks, Problems},
};

settings! {
    /// How the gateway treats connections and bodies.
    pub struct GatewayConfig in "gateway" {
        /// Largest blob or entry value accepted.
        #[serde(with = "crate::human::size")]
        max_blob_size: ByteSize = ByteSize::gib(16),
            accepts "a size such as 500MB or 16GiB, at least 1KiB", flag "--max-blob-size";
        /// Most open connections; at the cap the longest-idle one is closed.
        max_connections: usize = 10_000,
            accepts "a number from 1 to 1000000", flag "--max-connections";
        /// How long a new connection may stay silent before its first byte.
        #[serde(with = "crate::human::duration")]
        first_byte_timeout: Duration = Duration::from_secs(10),
            accepts "a duration such as 500ms, 10s or 5m, from 1ms to 1d";
        /// How long a request's header may take.
        #[serde(with = "crate::human::duration")]
        header_timeout: Duration = Duration::from_secs(10),
            accepts "a duration such as 500ms, 10s or 5m, from 1ms to 1d";
        /// How long a kept-alive connection may stay idle between requests.
        #[serde(with = "crate::human::duration")]
        idle_timeout: Duration = Duration::from_mins(5),
            accepts "a duration such as 500ms, 10s or 5m, from 1ms to 1d";
        /// How long an HTTP/2 connection is kept, more or less a tenth, until its client is asked to make another one: else
        /// gateways that are added get nothing to do. `off`: for ever.
        #[serde(with = "crate::human::optional_duration")]
        max_connection_age: Option<Duration> = None,
            accepts "a duration such as 5m, at least 1s, or off", flag "--max-connection-age";
        /// How long a body may pause between two chunks, either way.
        #[serde(with = "crate::human::duration")]
        body_timeout: Duration = Duration::from_secs(30),
            accepts "a duration such as 500ms, 10s or 5m, from 1ms to 1d";
        /// How long requests may finish after a stop was asked for.
        #[serde(with = "crate::human::duration")]
        drain_timeout: Duration = Duration::from_secs(10),
            accepts "a duration such as 0s, 10s or 5m, up to 1d", flag "--drain-timeout";
        /// Send HTTP/1.1 header names in Title-Case, for clients that compare them literally.
        title_case_headers: bool = false,
            accepts "true or false", flag "--title-case-headers";
        /// Verify blobs named by MD5, too. It is broken: whoever may write can make two files with one name.
        md5_digests: bool = false,
            accepts "true or false";
        /// Log every request.
        access_log: bool = false,
            accepts "true or false", flag "--access-log";
        /// Serve `/metrics`.
        metrics: bool = true,
            accepts "true or false";
        /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
        trusted_proxies: Vec<IpNetwork> = Vec::new(),
            accepts "IP addresses or networks, such as 10.0.0.7 or 10.0.0.0/8", flag "--trusted-proxy";
        /// Origins whose pages a browser may let use the cache; `*` is every origin.
        cors_origins: Vec<String> = Vec::new(),
            accepts "origins such as https://app.example, or *";
        /// Where clients reach this server, for the URLs it hands out; absent, it is taken from each request.
        public_url: Option<String> = None,
            accepts "a URL such as https://cache.example, without a query", flag "--public-url";
    }
}

/// Longest timeout accepted: more is a typing error.
const LONGEST: Duration = Duration::from_hours(24);

impl GatewayConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        checks.require(
            "max_blob_size",
            self.max_blob_size >= ByteSize(1 << 10),
            size_text(self.max_blob_size),
        );
        checks.require(
            "max_connections",
            (1..=1_000_000).contains(&self.max_connections),
            self.max_connections,
        );
        for (ident, value) in [
            ("first_byte_timeout", self.first_byte_timeout),
            ("header_timeout", self.header_timeout),
            ("idle_timeout", self.idle_timeout),
            ("body_timeout", self.body_timeout),
        ] {
            let holds = (Duration::from_millis(1)..=LONGEST).contains(&value);
            checks.require(ident, holds, duration_text(value));
        }
        checks.require(
            "drain_timeout",
            self.drain_timeout <= LONGEST,
            duration_text(self.drain_timeout),
        );
        if let Some(age) = self.max_connection_age {
            let holds = (Duration::from_secs(1)..=LONGEST).contains(&age);
            checks.require("max_connection_age", holds, duration_text(age));
        }
        if let Some(url) = &self.public_url {
            checks.require("public_url", is_public_url(url), url);
        }
        checks.finish()
    }
}

fn is_public_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', ' ']))
}
