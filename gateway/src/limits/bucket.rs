//! A token bucket in one atomic: the generic cell rate algorithm.
//!
//! The atomic holds the time at which the bucket would be full again, in nanoseconds of the limiter's own clock. A
//! request moves it by the time that one token takes; a request that would move it further ahead than a whole bucket
//! is refused and moves nothing. Invariant: a bucket never holds more than its burst, whatever pace it had before, so
//! that buckets outlive a change of their limit.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use zimcache_config::Rate;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How long tokens are leased for where gateways share a limit, and for how long a batch lasts, in nanoseconds.
pub(super) const LEASE: u64 = NANOS_PER_SECOND / 10;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Nanoseconds until one token has come back.
    interval: u64,
    /// Tokens in a full bucket.
    burst: u32,
}

impl Pace {
    /// The same bucket, filled at a share of the pace.
    pub(super) fn slowed_to(self, share: f64) -> Pace {
        let slowed = Duration::from_nanos(self.interval).div_f64(share);
        Pace {
            interval: u64::try_from(slowed.as_nanos()).unwrap_or(u64::MAX),
            ..self
        }
    }

    /// This gateway's share of the bucket. As long in time, so that a bucket keeps how full it is.
    pub(super) fn shared_by(self, gateways: u32) -> Pace {
        let gateways = gateways.max(1);
        Pace {
            interval: self.interval.saturating_mul(u64::from(gateways)),
            burst: (self.burst / gateways).max(1),
        }
    }

    /// Tokens that come back during a lease: a batch.
    pub(super) fn in_a_lease(self) -> u32 {
        u32::try_from(LEASE / self.interval).map_or(u32::MAX, |tokens| tokens.max(1))
    }

    pub(super) fn interval(self) -> u64 {
        self.interval
    }

    pub(super) fn burst(self) -> u32 {
        self.burst
    }
}

impl Default for Pace {
    /// One token a second: for a bucket that nobody has asked yet.
    fn default() -> Pace {
        Pace {
            interval: NANOS_PER_SECOND,
            burst: 1,
        }
    }
}

impl From<Rate> for Pace {
    fn from(rate: Rate) -> Pace {
        let period = u64::from(rate.per.seconds()) * NANOS_PER_SECOND;
        Pace {
            interval: (period / u64::from(rate.requests.max(1))).max(1),
            burst: rate.burst,
        }
    }
}

/// How a bucket stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Tokens in a full bucket.
    pub(crate) limit: u32,
    /// Tokens left.
    pub(crate) remaining: u32,
    /// Nanoseconds until it is full again.
    pub(crate) full_in: u64,
    /// Nanoseconds until there is a token, where there was none.
    pub(crate) refused_for: Option<u64>,
}

/// A token bucket.
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token, if there is one.
    pub(super) fn take(&self, pace: Pace, now: u64) -> Standing {
        let depth = pace.interval.saturating_mul(u64::from(pace.burst));
        let brim = now.saturating_add(depth);
        let moved = |full_at: u64| full_at.clamp(now, brim) + pace.interval;
        // A bucket that was emptied at a slower pace is empty, not in debt.
        let settled = |full_at: u64| match moved(full_at) {
            next if next <= brim => next,
            _ => full_at.min(brim),
        };
        let order = Ordering::Relaxed;
        let updated = self
            .0
            .fetch_update(order, order, |full_at| Some(settled(full_at)));
        let before = updated.unwrap_or_else(|full_at| full_at);
        let full_at = settled(before);
        let refused_for = moved(before).checked_sub(brim).filter(|wait| *wait > 0);
        let left = (brim - full_at) / pace.interval;
        Standing {
            limit: pace.burst,
            remaining: u32::try_from(left).unwrap_or(pace.burst),
            full_in: full_at - now,
            refused_for,
        }
    }

    /// Tokens that were taken at this pace and have not come back.
    pub(super) fn missing(&self, pace: Pace, now: u64) -> u32 {
        let missing = self.0.load(Ordering::Relaxed).saturating_sub(now) / pace.interval;
        u32::try_from(missing).map_or(pace.burst, |missing| missing.min(pace.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NANOS_PER_SECOND;

    fn pace(text: &str) -> Pace {
        text.parse::<Rate>().unwrap().into()
    }

    fn passed(bucket: &Bucket, pace: Pace, now: u64, tries: u32) -> u32 {
        let tries = (0..tries).map(|_| bucket.take(pace, now));
        tries.filter(|it| it.refused_for.is_none()).count() as u32
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let (bucket, pace) = (Bucket::default(), pace("10/s burst 100"));
        assert_eq!(passed(&bucket, pace, 0, 200), 100);
        assert_eq!(passed(&bucket, pace, SECOND, 200), 10);
        assert_eq!(passed(&bucket, pace, 3 * SECOND, 200), 20);
        assert_eq!(passed(&bucket, pace, 1000 * SECOND, 200), 100);
    }

    #[test]
    fn a_refused_request_takes_nothing_and_is_told_when_to_come_back() {
        let (bucket, pace) = (Bucket::default(), pace("1/s"));
        let first = bucket.take(pace, 0);
        assert_eq!(
            (first.limit, first.remaining, first.full_in),
            (1, 0, SECOND)
        );
        let half = SECOND / 2;
        for _ in 0..5 {
            let refused = bucket.take(pace, half);
            assert_eq!((refused.refused_for, refused.remaining), (Some(half), 0));
        }
        assert_eq!(bucket.take(pace, SECOND).refused_for, None);
    }

    #[test]
    fn what_remains_counts_down() {
        let (bucket, pace) = (Bucket::default(), pace("1/m burst 3"));
        let remaining: Vec<_> = (0..4).map(|_| bucket.take(pace, 7).remaining).collect();
        assert_eq!(remaining, [2, 1, 0, 0]);
    }

    #[test]
    fn a_bucket_survives_a_change_of_its_pace() {
        let bucket = Bucket::default();
        assert_eq!(passed(&bucket, pace("1/h burst 5"), 0, 9), 5);
        let faster = pace("10/s burst 20");
        let refused = bucket.take(faster, 0);
        assert_eq!(refused.refused_for, Some(SECOND / 10));
        assert_eq!(passed(&bucket, faster, SECOND, 99), 10);
    }

    #[test]
    fn a_slower_pace_has_the_same_burst() {
        let (bucket, slow) = (Bucket::default(), pace("10/s burst 100").slowed_to(0.5));
        assert_eq!(passed(&bucket, slow, 0, 200), 100);
        assert_eq!(passed(&bucket, slow, SECOND, 200), 5);
    }

    #[test]
    fn many_threads_get_no_more_than_the_burst() {
        let (bucket, pace) = (Bucket::default(), pace("1/h burst 1000"));
        let passed: u32 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| passed(&bucket, pace, 0, 1000)))
                .collect();
            workers.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }
}
