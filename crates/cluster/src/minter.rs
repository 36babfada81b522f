//! Versions of entries: a hybrid logical clock and the number of this gateway.
//!
//! Invariants: every version minted is higher than all minted or seen before, also when the wall clock is set back; a
//! version from further in the future than a minute is refused, so that one broken clock cannot drag all others along.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use zimcache_store::Version;
use zimcache_types::{Clock, Timestamp};

/// Bits of the counter below the milliseconds.
const COUNTER_BITS: u32 = 16;
/// How far ahead of our own time a version may be.
const MOST_AHEAD: Duration = Duration::from_mins(1);

/// A version from too far in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the entry has a version from the future; a clock in the cluster is wrong")]
pub(crate) struct FromTheFuture;

/// Gives out versions.
#[derive(Debug)]
pub(crate) struct Minter {
    clock: Arc<dyn Clock>,
    writer: u32,
    last: AtomicU64,
}

impl Minter {
    /// A minter whose versions carry `writer`, which no other start of a gateway has.
    pub(crate) fn new(clock: Arc<dyn Clock>, writer: u32) -> Minter {
        Minter {
            clock,
            writer,
            last: AtomicU64::new(0),
        }
    }

    /// A version higher than all before.
    pub(crate) fn mint(&self) -> Version {
        let now = at(self.clock.now());
        let next = |last: u64| now.max(last.saturating_add(1));
        let step = |last| Some(next(last));
        let before = self
            .last
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        let (Ok(before) | Err(before)) = before;
        Version {
            clock: next(before),
            writer: self.writer,
        }
    }

    /// Takes note of a version that was met, so that those to come are higher.
    ///
    /// # Errors
    /// [`FromTheFuture`], and then nothing is taken note of.
    pub(crate) fn observe(&self, version: Version) -> Result<(), FromTheFuture> {
        if version.clock > at(self.clock.now().plus(MOST_AHEAD)) {
            return Err(FromTheFuture);
        }
        self.last.fetch_max(version.clock, Ordering::AcqRel);
        Ok(())
    }
}

/// The first clock value of a moment.
const fn at(now: Timestamp) -> u64 {
    now.0 << COUNTER_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Dial(AtomicU64);

    impl Clock for Dial {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }
    }

    fn minter(start: u64) -> (Arc<Dial>, Minter) {
        let dial = Arc::new(Dial(AtomicU64::new(start)));
        (Arc::clone(&dial), Minter::new(dial, 7))
    }

    #[test]
    fn versions_follow_the_clock_and_grow_within_a_millisecond() {
        let (dial, minter) = minter(1000);
        let first = minter.mint();
        assert_eq!((first.clock, first.writer), (1000 << 16, 7));
        assert_eq!(minter.mint().clock, (1000 << 16) + 1);
        dial.0.store(1001, Ordering::SeqCst);
        assert_eq!(minter.mint().clock, 1001 << 16);
    }

    #[test]
    fn a_clock_set_back_does_not_take_versions_back() {
        let (dial, minter) = minter(100_000);
        let before = minter.mint();
        dial.0.store(50_000, Ordering::SeqCst);
        let after = minter.mint();
        assert!(after > before);
        assert_eq!(after.clock, before.clock + 1);
    }

    #[test]
    fn a_version_met_is_passed_by_the_next_one() {
        let (_, minter) = minter(100_000);
        let met = Version {
            clock: (130_000 << 16) + 9,
            writer: u32::MAX,
        };
        minter.observe(met).unwrap();
        assert!(minter.mint() > met);
    }

    #[test]
    fn a_version_over_a_minute_ahead_is_refused_and_forgotten() {
        let (_, minter) = minter(100_000);
        let version = |millis: u64, counter: u64| Version {
            clock: (millis << 16) + counter,
            writer: 1,
        };
        assert_eq!(minter.observe(version(160_000, 0)), Ok(()));
        assert_eq!(minter.observe(version(160_000, 1)), Err(FromTheFuture));
        assert_eq!(minter.mint().clock, (160_000 << 16) + 1);
    }

    #[test]
    fn no_two_threads_get_one_version() {
        let (_, minter) = minter(5);
        let minted = || (0..1000).map(|_| minter.mint().clock).collect::<Vec<_>>();
        let mut all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(minted)).collect();
            let joined = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap());
            joined.collect::<Vec<_>>()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4000);
    }
}
