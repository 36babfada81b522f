//! Figures of rate limits that gateways share through Redis.
//!
//! They are on the page from the first time that a Redis is configured: a server that counts for itself must not look
//! like one whose Redis is down.

use std::time::Duration;

use zimcache_telemetry::metrics::{Counter, Gauge, LatencyHistogram, Registry};

/// Why tokens could not be leased, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseFailure {
    Timeout,
    Connection,
    Refused,
    Nonsense,
    WrongType,
}

impl LeaseFailure {
    const ALL: [LeaseFailure; 5] = [
        LeaseFailure::Timeout,
        LeaseFailure::Connection,
        LeaseFailure::Refused,
        LeaseFailure::Nonsense,
        LeaseFailure::WrongType,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            LeaseFailure::Timeout => "timeout",
            LeaseFailure::Connection => "connection",
            LeaseFailure::Refused => "refused",
            LeaseFailure::Nonsense => "nonsense",
            LeaseFailure::WrongType => "wrong_type",
        }
    }
}

/// Handles of these figures. Clones are the same figures.
#[derive(Debug, Clone)]
pub(crate) struct SharedLimits {
    /// 1 while Redis serves.
    pub(crate) up: Gauge,
    pub(crate) gateways: Gauge,
    pub(crate) tokens: Counter,
    leases: Counter,
    seconds: LatencyHistogram,
    errors: [Counter; LeaseFailure::ALL.len()],
}

impl SharedLimits {
    pub(super) fn new(registry: &Registry) -> SharedLimits {
        SharedLimits {
            up: registry.gauge(
                "zimcache_rate_limit_redis_up",
                "1 while rate limits are shared through Redis, 0 while this gateway keeps to its share.",
                &[],
            ),
            gateways: registry.gauge(
                "zimcache_rate_limit_gateways",
                "Gateways that shared the rate limits when Redis was last heard of.",
                &[],
            ),
            tokens: registry.counter(
                "zimcache_rate_limit_leased_tokens_total",
                "Tokens leased from Redis; those given back are not taken off.",
                &[],
            ),
            leases: registry.counter(
                "zimcache_rate_limit_leases_total",
                "Leases asked of Redis: limits, counted once a round.",
                &[],
            ),
            seconds: registry.latency(
                "zimcache_rate_limit_redis_seconds",
                "Time that Redis took to answer a round of leases.",
                &[],
            ),
            errors: LeaseFailure::ALL.map(|failure| {
                registry.counter(
                    "zimcache_rate_limit_redis_errors_total",
                    "What went wrong with Redis, by kind.",
                    &[("kind", failure.as_str())],
                )
            }),
        }
    }

    /// A round was answered.
    pub(crate) fn round(&self, took: Duration, leases: usize) {
        self.seconds.observe(took.as_secs_f64());
        self.leases.inc_by(leases as u64);
    }

    pub(crate) fn failed(&self, failure: LeaseFailure) {
        self.errors[failure as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_under_their_own_label() {
        let registry = Registry::new();
        let figures = SharedLimits::new(&registry);
        for (times, failure) in LeaseFailure::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| figures.failed(failure));
        }
        let page = registry.render();
        for (times, failure) in LeaseFailure::ALL.into_iter().enumerate() {
            let line = format!(
                "zimcache_rate_limit_redis_errors_total{{kind=\"{}\"}} {}",
                failure.as_str(),
                times + 1
            );
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }
}
