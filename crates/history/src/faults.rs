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
    /// Whether what a node held was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loses_disk: bool,
}

/// The windows with the time to converge after each, merged and in order.
#[derive(Debug)]
pub(crate) struct Faults {
    excused: Vec<(u64, u64)>,
    /// Lost disks, with the time in which they may be filled again.
    lost_disks: Vec<(u64, u64)>,
    /// All else, as it was.
    others: Vec<(u64, u64)>,
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
        let (lost_disks, others): (Vec<_>, Vec<_>) =
            windows.iter().partition(|window| window.loses_disk);
        let as_it_was = |window: &Window| (window.from, window.until);
        Faults {
            excused,
            lost_disks: lost_disks.into_iter().map(widened).collect(),
            others: others.into_iter().map(as_it_was).collect(),
            convergence,
        }
    }

    /// Whether something was broken at this time beside a disk that was lost before and may not be filled again.
    pub(crate) fn are_two_owners_hit(&self, time: u64) -> bool {
        let has = |windows: &[(u64, u64)]| {
            let mut windows = windows.iter();
            windows.any(|window| window.0 <= time && time <= window.1)
        };
        has(&self.lost_disks) && has(&self.others)
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
