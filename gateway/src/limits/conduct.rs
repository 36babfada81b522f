//! How a caller behaves: the share of its requests that succeed, over a window that fades.
//!
//! One atomic: the half-minute of the last request, how many there were and how many failed. Every half-minute that
//! passes halves both, so that a caller who mends its ways is soon treated like any other. A caller nobody knows has
//! a few successes in advance: the first wrong password must not cost anything.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// Nanoseconds after which what was counted weighs half.
const HALF_LIFE: u64 = 30_000_000_000;
/// Successes that everybody has in advance.
const CREDIT: f64 = 10.0;
/// Share of its limits that a caller has left when all it does fails.
const LEAST: f64 = 0.5;

/// How a caller behaves.
#[derive(Debug, Default)]
pub(crate) struct Conduct(AtomicU64);

/// The atomic, taken apart.
#[derive(Debug, Clone, Copy)]
struct Window {
    at: u32,
    requests: u16,
    failures: u16,
}

impl Window {
    fn unpack(packed: u64) -> Window {
        Window {
            at: (packed >> 32) as u32,
            requests: (packed >> 16) as u16,
            failures: packed as u16,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.requests) << 16 | u64::from(self.failures)
    }

    /// The same window, seen later.
    fn faded(self, now: u64) -> Window {
        let at = u32::try_from(now / HALF_LIFE).unwrap_or(u32::MAX);
        let halvings = at.saturating_sub(self.at);
        Window {
            at: at.max(self.at),
            requests: self.requests.checked_shr(halvings).unwrap_or(0),
            failures: self.failures.checked_shr(halvings).unwrap_or(0),
        }
    }

    fn with(self, failed: bool) -> Window {
        let full = self.requests == u16::MAX;
        let halvings = u32::from(full);
        Window {
            at: self.at,
            requests: (self.requests >> halvings) + 1,
            failures: (self.failures >> halvings) + u16::from(failed),
        }
    }
}

impl Conduct {
    /// Counts a request.
    pub(super) fn count(&self, failed: bool, now: u64) {
        let counted = |packed| Some(Window::unpack(packed).faded(now).with(failed).pack());
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted)
            .ok();
    }

    /// The share of its limits that the caller has: 1 when nothing fails, half when everything does.
    pub(super) fn share(&self, now: u64) -> f64 {
        let window = Window::unpack(self.0.load(Ordering::Relaxed)).faded(now);
        let failed = f64::from(window.failures) / (f64::from(window.requests) + CREDIT);
        LEAST + (1.0 - LEAST) * (1.0 - failed)
    }
}

/// Whether an answer tells of a caller who does something wrong. A miss is none, nor is what already exists or a
/// condition that does not hold: those are what a cache's clients ask about.
pub(super) fn is_failure(status: StatusCode) -> bool {
    const ORDINARY: [StatusCode; 4] = [
        StatusCode::NOT_FOUND,
        StatusCode::CONFLICT,
        StatusCode::PRECONDITION_FAILED,
        StatusCode::RANGE_NOT_SATISFIABLE,
    ];
    status.is_client_error() && !ORDINARY.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(failures: u32, successes: u32) -> Conduct {
        let conduct = Conduct::default();
        (0..failures).for_each(|_| conduct.count(true, 0));
        (0..successes).for_each(|_| conduct.count(false, 0));
        conduct
    }

    #[test]
    fn the_share_lies_between_half_and_all() {
        assert!(after(0, 0).share(0) > 0.999);
        assert!(after(0, 100_000).share(0) > 0.999);
        let bad = after(200_000, 0).share(0);
        assert!((0.5..0.51).contains(&bad), "{bad}");
        let mixed = after(45, 45).share(0);
        assert!((mixed - 0.775).abs() < 1e-9, "{mixed}");
    }

    #[test]
    fn one_mistake_costs_almost_nothing() {
        assert!(after(1, 0).share(0) > 0.95);
    }

    #[test]
    fn failures_are_forgotten_with_time() {
        let conduct = after(1_000, 0);
        let shares: Vec<_> = (0..12).map(|n| conduct.share(n * HALF_LIFE)).collect();
        assert!(shares.is_sorted(), "{shares:?}");
        assert!(shares[11] > 0.999);
        conduct.count(false, 3 * HALF_LIFE);
        assert!(conduct.share(3 * HALF_LIFE) < 0.6);
    }

    #[test]
    fn a_miss_is_no_failure() {
        for (status, failure) in [
            (200, false),
            (404, false),
            (409, false),
            (400, true),
            (401, true),
            (403, true),
            (503, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_failure(status), failure, "{status}");
        }
    }
}
