//! How long small reads take, for the moment at which a second node is asked.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

/// Reads after which the percentile is computed anew.
const WINDOW: usize = 64;

/// The 95th percentile of the last reads, in microseconds.
#[derive(Debug)]
pub(crate) struct Latency {
    least: Duration,
    percentile: AtomicU64,
    window: Mutex<Vec<u64>>,
}

impl Latency {
    /// Nothing is known yet; `least` is the shortest delay that is ever given.
    pub(crate) fn new(least: Duration) -> Latency {
        Latency {
            least,
            percentile: AtomicU64::new(0),
            window: Mutex::new(Vec::with_capacity(WINDOW)),
        }
    }

    /// Takes note of a read.
    pub(crate) fn note(&self, took: Duration) {
        let mut window = self.window.lock();
        window.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if window.len() < WINDOW {
            return;
        }
        window.sort_unstable();
        self.percentile
            .store(window[WINDOW * 95 / 100], Ordering::Relaxed);
        window.clear();
    }

    /// After which time a second node is asked.
    pub(crate) fn hedge_after(&self) -> Duration {
        self.least.max(Duration::from_micros(
            self.percentile.load(Ordering::Relaxed),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_follows_the_slowest_twentieth_but_is_never_too_short() {
        let least = Duration::from_millis(10);
        let latency = Latency::new(least);
        assert_eq!(latency.hedge_after(), least);
        (0..64).for_each(|_| latency.note(Duration::from_millis(1)));
        assert_eq!(latency.hedge_after(), least);
        (1..=64).for_each(|millis| latency.note(Duration::from_millis(millis)));
        assert_eq!(latency.hedge_after(), Duration::from_millis(61));
    }
}
