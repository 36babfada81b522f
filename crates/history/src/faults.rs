//! When something was broken, and for how long that excuses an old answer.

use serde::{Deserialize, Serialize};

/// A time in which something was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// What, for people.
    pub what: String,
    /// From when on, in microseconds.
    pub from: u64,
    /// When it was whole again, in microseconds; the largest number when it never was.
    pub until: u64,
}

/// The windows with the time to converge after each, merged and in order.
#[derive(Debug)]
pub(crate) struct Faults {
    excused: Vec<(u64, u64)>,
    convergence: u64,
}

impl Faults {
    pub(crate) fn new(windows: &[Window], convergence: u64) -> Faults {
        let widened = |window: &Window| (window.from, window.until.saturating_add(convergence));
        let mut sorted: Vec<(u64, u64)> = windows.iter().map(widened).collect();
        sorted.sort_unstable();
        let mut excused: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
        for (from, until) in sorted {
            match excused.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => excused.push((from, until)),
            }
        }
        Faults {
            excused,
            convergence,
        }
    }

    /// Whether anything of this time lies in a window, or in the time to converge after one.
    pub(crate) fn excuse(&self, from: u64, until: u64) -> bool {
        let next = self.excused.partition_point(|window| window.1 < from);
        self.excused
            .get(next)
            .is_some_and(|window| window.0 <= until)
    }

    /// When what was true at some time has to be so everywhere.
    pub(crate) fn settled_after(&self, time: u64) -> u64 {
        let mut settled = time.saturating_add(self.convergence);
        let first = self.excused.partition_point(|window| window.1 < time);
        for window in &self.excused[first..] {
            if window.0 > settled {
                break;
            }
            settled = settled.max(window.1);
        }
        settled
    }
}
