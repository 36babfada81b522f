//! What was counted over time: by minute for a day, by hour for ninety days.
//!
//! Only the steps in which something happened are kept, so a quiet series costs nothing. Invariant: times ascend; a
//! clock that was set back adds to the last step instead of writing behind it.

use std::{collections::VecDeque, time::Duration};

use crate::metrics::Counts;

/// What was counted in one step: its number since 1970, and the counts.
pub(super) type Step = (u32, Counts);

/// Steps of one length, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ring(pub(super) VecDeque<Step>);

impl Ring {
    fn add(&mut self, at: u32, counts: Counts, kept: u32) {
        match self.0.back_mut() {
            Some((last, sum)) if *last >= at => *sum += counts,
            _ => self.0.push_back((at, counts)),
        }
        while self
            .0
            .front()
            .is_some_and(|(first, _)| first.saturating_add(kept) <= at)
        {
            self.0.pop_front();
        }
    }
}

/// A length of steps, and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) seconds: u32,
    kept: u32,
}

/// By minute, for a day.
pub(super) const MINUTES: Scale = Scale {
    seconds: 60,
    kept: 24 * 60,
};
/// By hour, for ninety days.
pub(super) const HOURS: Scale = Scale {
    seconds: 3_600,
    kept: 90 * 24,
};

impl Scale {
    /// The longest time that it reaches back.
    pub(super) const fn reach(self) -> Duration {
        Duration::from_secs(self.seconds as u64 * self.kept as u64)
    }
}

/// What was counted of one subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) minutes: Ring,
    pub(super) hours: Ring,
}

impl Series {
    pub(super) fn add(&mut self, now_seconds: u64, counts: Counts) {
        for (ring, scale) in [(&mut self.minutes, MINUTES), (&mut self.hours, HOURS)] {
            let at = now_seconds / u64::from(scale.seconds);
            ring.add(u32::try_from(at).unwrap_or(u32::MAX), counts, scale.kept);
        }
    }

    /// When it was last added to, in hours since 1970.
    pub(super) fn last_hour(&self) -> u32 {
        self.hours.0.back().map_or(0, |(hour, _)| *hour)
    }

    /// What was counted in a window, in steps of so many seconds: start of the step since 1970, and the counts.
    pub(super) fn within(&self, window: &Window) -> Vec<(u64, Counts)> {
        let ring = if window.scale == MINUTES {
            &self.minutes
        } else {
            &self.hours
        };
        let mut steps: Vec<(u64, Counts)> = Vec::new();
        for (at, counts) in &ring.0 {
            let seconds = u64::from(*at) * u64::from(window.scale.seconds);
            if seconds < window.from || seconds > window.until {
                continue;
            }
            let start = seconds - seconds % window.step;
            match steps.last_mut() {
                Some((last, sum)) if *last == start => *sum += *counts,
                _ => steps.push((start, *counts)),
            }
        }
        steps
    }
}

/// A stretch of time until now, cut into steps. All times in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) step: u64,
    scale: Scale,
}

impl Window {
    /// Most steps of a window.
    const MOST_STEPS: u64 = 200;
    const STEPS: [u64; 6] = [60, 600, 3_600, 10_800, 21_600, 43_200];

    /// The last `length` before now: at least a minute, at most what is kept.
    pub(crate) fn last(length: Duration, now_seconds: u64) -> Window {
        let length = length.clamp(Duration::from_mins(1), HOURS.reach());
        let scale = if length <= MINUTES.reach() {
            MINUTES
        } else {
            HOURS
        };
        let seconds = length.as_secs();
        let fits =
            |step: &u64| *step >= u64::from(scale.seconds) && seconds / step <= Self::MOST_STEPS;
        let step = Self::STEPS.into_iter().find(fits).unwrap_or(43_200);
        let from = now_seconds.saturating_sub(seconds);
        Window {
            from: from - from % u64::from(scale.seconds),
            until: now_seconds,
            step,
            scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn hit() -> Counts {
        Counts {
            hits: 1,
            ..Counts::default()
        }
    }

    fn hits(series: &Series, length: Duration, now: u64) -> u64 {
        let steps = series.within(&Window::last(length, now));
        steps.iter().map(|(_, counts)| counts.hits).sum()
    }

    #[test]
    fn a_window_sees_what_happened_in_it() {
        let mut series = Series::default();
        let start = 20_000 * DAY;
        for minute in 0..(3 * 24 * 60) {
            series.add(start + minute * 60, hit());
        }
        let now = start + 3 * DAY - 30;
        for (minutes, at_most) in [(1, 2), (60, 61), (24 * 60, 24 * 60)] {
            let seen = hits(&series, Duration::from_mins(minutes), now);
            assert!(
                (minutes..=at_most).contains(&seen),
                "{seen} in {minutes} minutes"
            );
        }
        assert_eq!(
            hits(&series, Duration::from_hours(7 * 24), now),
            3 * 24 * 60
        );
        assert_eq!(hits(&series, Duration::from_hours(1), now + 2 * DAY), 0);
    }

    #[test]
    fn a_year_of_minutes_keeps_a_day_and_ninety_days() {
        let mut series = Series::default();
        for minute in 0..(365 * 24 * 60) {
            series.add(minute * 60, hit());
        }
        assert_eq!(series.minutes.0.len(), 24 * 60);
        assert_eq!(series.hours.0.len(), 90 * 24);
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let mut series = Series::default();
        series.add(10 * DAY, hit());
        series.add(9 * DAY, hit());
        assert_eq!(hits(&series, Duration::from_hours(1), 10 * DAY), 2);
        assert_eq!(series.hours.0.len(), 1);
    }

    #[test]
    fn every_window_has_a_readable_number_of_steps() {
        for hours in [1, 6, 24, 48, 7 * 24, 30 * 24, 90 * 24, 1_000 * 24] {
            let window = Window::last(Duration::from_hours(hours), 30_000 * DAY);
            let steps = (window.until - window.from) / window.step;
            assert!(
                (6..=Window::MOST_STEPS).contains(&steps),
                "{hours} h: {steps}"
            );
        }
    }
}
