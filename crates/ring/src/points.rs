//! The frozen hash "v1": the points of a member on the ring.
//!
//! Never edit what is here: every node and gateway has to find the same points, now and after an upgrade. Another hash
//! is another name in the document, and a transition.

use std::fmt::Write as _;

use twox_hash::XxHash3_64;

use crate::document::{Member, STANDARD_WEIGHT};

/// Points of a member of standard weight. 400 keep the fullest of 50 nodes within 1.15 of the mean.
const STANDARD_POINTS: u32 = 400;
const POINTS_PER_WEIGHT: u32 = STANDARD_POINTS / STANDARD_WEIGHT;

/// How many points a member of this weight has.
pub(crate) const fn count(weight: u32) -> u32 {
    weight.saturating_mul(POINTS_PER_WEIGHT)
}

/// The points of a member: xxh3-64 of `<id>#<n>`. A member of more weight has all points that it has with less.
pub(crate) fn of(member: &Member) -> impl Iterator<Item = u64> {
    let mut name = format!("{}#", member.id);
    let prefix = name.len();
    (0..count(member.weight)).map(move |n| {
        name.truncate(prefix);
        // Writing to a string cannot fail.
        let _ = write!(name, "{n}");
        XxHash3_64::oneshot(name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(id: &str, weight: u32) -> Vec<u64> {
        let member = Member {
            weight,
            ..Member::new(id)
        };
        of(&member).collect()
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // The reference implementation's answers for an empty input and for two names.
        assert_eq!(XxHash3_64::oneshot(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(points("a", 1)[0], 0x6c9d_a71f_2832_f85e);
        assert_eq!(points("node-0", 1)[3], 0x704e_af2c_bfb2_4a6b);
    }

    #[test]
    fn more_weight_only_adds_points() {
        let light = points("node-0", 50);
        let heavy = points("node-0", 100);
        assert_eq!((light.len(), heavy.len()), (200, 400));
        assert_eq!(light, heavy[..200]);
    }
}
