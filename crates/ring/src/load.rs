//! Which of the nodes that may have a key is asked first: bounded load.
//!
//! Consistent hashing spreads keys, not requests. A node whose requests in flight exceed 5/4 of the mean is passed over,
//! and the next owner or stand-in is asked, which fills itself from an owner (Mirrokni, Thorup, Zadimoghaddam 2018).
//! Pure: the caller counts what is in flight and knows whom it can reach.

use crate::ring::{NodeIx, Owners};

/// What the caller knows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Requests to it that have no answer yet.
    pub in_flight: u64,
    /// Whether it is in the caller's own zone.
    pub is_near: bool,
}

/// The most that may be in flight to one node before others are asked: 5/4 of the mean over `nodes`, this request
/// included, rounded up. So it is at least 1, and an idle cluster passes nobody over.
pub const fn bound(in_flight: u64, nodes: u64) -> u64 {
    let nodes = if nodes == 0 { 1 } else { nodes };
    ((in_flight + 1) * 5).div_ceil(nodes * 4)
}

/// Whom to ask first: of the owners below the bound a near one, then the one with the least in flight, then the first;
/// else the first stand-in below the bound; else the least busy owner, and only then a stand-in. `seen` gives `None`
/// for a node that cannot be reached. `None` when nobody can.
pub fn choose(
    candidates: Owners<'_>,
    bound: u64,
    seen: impl Fn(NodeIx) -> Option<Seen>,
) -> Option<NodeIx> {
    let known = |nodes: &[NodeIx]| -> Vec<(NodeIx, Seen)> {
        let reached = nodes.iter().filter_map(|node| Some((*node, seen(*node)?)));
        reached.collect()
    };
    let has_room = |(_, seen): &&(NodeIx, Seen)| seen.in_flight < bound;
    let least = |(_, seen): &&(NodeIx, Seen)| seen.in_flight;
    let owners = known(candidates.owners);
    let with_room = owners.iter().filter(has_room);
    let best = with_room.min_by_key(|(_, seen)| (!seen.is_near, seen.in_flight));
    if let Some((node, _)) = best {
        return Some(*node);
    }
    let stand_ins = known(candidates.stand_ins);
    let chosen = stand_ins.iter().find(has_room);
    let chosen = chosen.or_else(|| owners.iter().min_by_key(least));
    let chosen = chosen.or_else(|| stand_ins.iter().min_by_key(least));
    chosen.map(|(node, _)| *node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Member, Point, Ring};

    /// Five nodes; the candidates of some point, of whom the flights are given in order.
    fn chosen(in_flight: [Option<u64>; 4], near: usize, bound: u64) -> Option<usize> {
        let members = ["a", "b", "c", "d", "e"].map(Member::new).to_vec();
        let ring = Ring::new(&Document::first(2, members).unwrap());
        let candidates = ring.current(Point(7));
        let at = |node| candidates.iter().position(|each| each == node).unwrap();
        let seen = |node| {
            let at = at(node);
            let is_near = at == near;
            in_flight[at].map(|in_flight| Seen { in_flight, is_near })
        };
        choose(candidates, bound, seen).map(at)
    }

    const NOWHERE: usize = 9;

    #[test]
    fn the_bound_is_five_quarters_of_the_mean_and_never_nothing() {
        assert_eq!(bound(0, 3), 1);
        assert_eq!(bound(0, 1000), 1);
        assert_eq!(bound(399, 100), 5);
        assert_eq!(bound(400, 100), 6);
        assert_eq!(bound(10, 0), 14);
    }

    #[test]
    fn the_owner_with_the_least_in_flight_is_asked_and_the_first_of_equals() {
        assert_eq!(
            chosen([Some(3), Some(2), Some(0), Some(0)], NOWHERE, 9),
            Some(1)
        );
        assert_eq!(
            chosen([Some(2), Some(2), Some(0), Some(0)], NOWHERE, 9),
            Some(0)
        );
    }

    #[test]
    fn a_near_owner_is_asked_until_it_is_at_the_bound() {
        assert_eq!(chosen([Some(1), Some(8), Some(0), Some(0)], 1, 9), Some(1));
        assert_eq!(chosen([Some(1), Some(9), Some(0), Some(0)], 1, 9), Some(0));
    }

    #[test]
    fn stand_ins_are_asked_only_when_every_owner_is_at_the_bound() {
        assert_eq!(
            chosen([Some(9), Some(9), Some(8), Some(0)], NOWHERE, 9),
            Some(2)
        );
        assert_eq!(
            chosen([Some(9), Some(9), Some(9), Some(0)], NOWHERE, 9),
            Some(3)
        );
        assert_eq!(
            chosen([Some(9), Some(10), Some(9), Some(9)], NOWHERE, 9),
            Some(0)
        );
    }

    #[test]
    fn who_cannot_be_reached_is_not_asked() {
        assert_eq!(chosen([None, Some(9), None, Some(9)], NOWHERE, 9), Some(1));
        assert_eq!(chosen([None, None, Some(12), Some(9)], NOWHERE, 9), Some(3));
        assert_eq!(chosen([None; 4], NOWHERE, 9), None);
    }
}
