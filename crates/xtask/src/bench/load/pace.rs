//! When the next request is due.
//!
//! Invariant: due times are drawn before the run sees any answer; a slow server does not move them.

use std::time::{Duration, Instant};

use super::super::random::Random;

/// How requests are spread over time.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Pace {
    /// Each connection asks again as soon as it was answered.
    Closed,
    /// So many requests a second on average, whatever the server does.
    Open {
        /// Mean rate.
        per_second: f64,
    },
}

/// The due times of an open loop.
#[derive(Debug)]
pub(super) struct Arrivals {
    random: Random,
    mean_seconds: f64,
    next: Instant,
}

impl Arrivals {
    /// Due times from `start` on; `None` for a closed loop.
    pub(super) fn new(pace: Pace, start: Instant) -> Option<Arrivals> {
        match pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(Arrivals {
                random: Random::new(0x5EED),
                mean_seconds: 1.0 / per_second,
                next: start,
            }),
        }
    }

    /// The due time of the next request if it has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next;
        if due > now {
            return None;
        }
        let wait = -(1.0 - self.random.fraction()).ln() * self.mean_seconds;
        self.next = due + Duration::from_secs_f64(wait);
        Some(due)
    }

    /// How long until the next request is due.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_its_mean_rate_even_when_looked_at_late() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(Pace::Open { per_second: 1e4 }, start).unwrap();
        let late = start + Duration::from_secs(10);
        let mut taken = 0_u32;
        while arrivals.take_due(late).is_some() {
            taken += 1;
        }
        assert!((98_000..102_000).contains(&taken), "{taken} in ten seconds");
    }

    #[test]
    fn a_closed_loop_has_no_due_times() {
        assert!(Arrivals::new(Pace::Closed, Instant::now()).is_none());
    }
}
