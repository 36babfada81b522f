//! Wall clocks of hosts: virtual time, wrong by as much as a fault says.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use zimcache_types::{Clock, Timestamp};

/// Some time in 2026, when every simulation begins.
const BEGIN_MILLIS: i64 = 1_780_000_000_000;

/// The wall clock of a host.
#[derive(Debug, Default)]
pub(crate) struct HostClock {
    skew_millis: AtomicI64,
    last_millis: AtomicU64,
}

impl HostClock {
    /// Makes it wrong from now on.
    pub(crate) fn skew(&self, millis: i64) {
        self.skew_millis.store(millis, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        // Outside of a host's turn time stands still.
        let elapsed = turmoil::sim_elapsed().map(|it| u64::try_from(it.as_millis()).unwrap());
        let millis = elapsed.unwrap_or_else(|| self.last_millis.load(Ordering::Relaxed));
        self.last_millis.store(millis, Ordering::Relaxed);
        let skewed = BEGIN_MILLIS + self.skew_millis.load(Ordering::Relaxed);
        Timestamp(skewed.unsigned_abs() + millis)
    }
}
