//! What the tests share: clusters, points, and rings in transition.

use proptest::prelude::*;
use zimcache_ring::{Change, Document, Member, Point, Ring, next};

/// Points without any pattern, the same in every run (SplitMix64).
pub(crate) fn points(count: u64) -> impl Iterator<Item = Point> {
    (1..=count).map(|n| {
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Point(z ^ (z >> 31))
    })
}

/// Members `<name><n>` of standard weight, without zones.
pub(crate) fn members(name: &str, count: usize) -> Vec<Member> {
    (0..count)
        .map(|n| Member::new(format!("{name}{n}")))
        .collect()
}

pub(crate) fn document(replicas: u32, members: Vec<Member>) -> Document {
    Document::first(replicas, members).unwrap()
}

/// The ring while the change is under way: the previous placement is what was before.
pub(crate) fn changed(before: &Document, change: &Change) -> Ring {
    Ring::new(&next(before, change).unwrap())
}

/// The ids of nodes.
pub(crate) fn ids(
    ring: &Ring,
    nodes: impl IntoIterator<Item = zimcache_ring::NodeIx>,
) -> Vec<&str> {
    let id = |node| ring.member(node).id.as_str();
    nodes.into_iter().map(id).collect()
}

/// Clusters of up to a dozen nodes with any names, weights and zones, and their R.
pub(crate) fn any_cluster() -> impl Strategy<Value = (u32, Vec<Member>)> {
    let member = (1_u32..150, 0_u8..4);
    let members = prop::collection::btree_map("[a-z]{1,6}(-[0-9]{1,2})?", member, 1..12);
    (1_u32..5, members).prop_map(|(replicas, members)| {
        let member = |(id, (weight, zone)): (String, (u32, u8))| Member {
            weight,
            zone: ["", "a", "b", "c"][usize::from(zone)].to_owned(),
            ..Member::new(id)
        };
        (replicas, members.into_iter().map(member).collect())
    })
}
