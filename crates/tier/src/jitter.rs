//! Waiting times that differ from node to node: full jitter, from a seed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A stream of random numbers for waiting times. Not for secrets.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

/// Step of SplitMix64: the golden ratio's fraction.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Jitter {
        Jitter(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any time up to `first`, doubled for each failure before, but never above `most`.
    pub(crate) fn wait(&self, first: Duration, failures: u32, most: Duration) -> Duration {
        let cap = first.saturating_mul(1 << failures.min(16)).min(most);
        let millis = u64::try_from(cap.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.next() % millis.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_cap_and_differ() {
        let jitter = Jitter::new(7);
        let longest = |failures| {
            (0..200)
                .map(|_| jitter.wait(Duration::from_millis(100), failures, Duration::from_secs(1)))
                .max()
                .unwrap()
        };
        let (none, two, many) = (longest(0), longest(2), longest(60));
        assert!(none <= Duration::from_millis(100) && none > Duration::from_millis(80));
        assert!(two <= Duration::from_millis(400) && two > Duration::from_millis(320));
        assert!(many <= Duration::from_secs(1) && many > Duration::from_millis(800));
    }
}
