//! How much moves: only what has to, to or from the node that changed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use zimcache_ring::{Change, Document, Member, NodeIx, Ring};

use crate::harness::{any_cluster, changed, document, members, points};

const KEYS: u64 = 100_000;

/// Which owners a change takes keys from, and which it gives them to: (lost, gained) for each key that moves.
fn moves(ring: &Ring, keys: u64) -> Vec<(Vec<NodeIx>, Vec<NodeIx>)> {
    let without = |these: &[NodeIx], those: &[NodeIx]| -> Vec<NodeIx> {
        these
            .iter()
            .filter(|node| !those.contains(node))
            .copied()
            .collect()
    };
    let each = points(keys).map(|point| {
        let both = ring.read_set(point);
        (
            without(both.previous, both.current),
            without(both.current, both.previous),
        )
    });
    each.filter(|(lost, gained)| *lost != *gained).collect()
}

/// The share of copies that move.
fn moved(ring: &Ring, keys: u64) -> f64 {
    let copies: usize = moves(ring, keys)
        .iter()
        .map(|(_, gained)| gained.len())
        .sum();
    let owners = ring.owners(zimcache_ring::Point(0)).len();
    copies as f64 / (keys as usize * owners) as f64
}

/// The share of keys whose first owner is another one.
fn first_moved(ring: &Ring, keys: u64) -> f64 {
    let differs = |point: &zimcache_ring::Point| {
        let both = ring.read_set(*point);
        both.current[0] != both.previous[0]
    };
    points(keys).filter(differs).count() as f64 / keys as f64
}

fn join(before: &Document, members: Vec<Member>) -> Ring {
    changed(before, &Change::Join { members })
}

fn leave(before: &Document, id: &str) -> Ring {
    let ids = vec![id.to_owned()];
    changed(before, &Change::Leave { ids })
}

fn reweigh(before: &Document, id: &str, weight: u32) -> Ring {
    let weights = BTreeMap::from([(id.to_owned(), weight)]);
    changed(before, &Change::Reweigh { weights })
}

/// Names as clusters have them.
const NAMES: [&str; 6] = [
    "node-",
    "zimcache-node-",
    "n",
    "cache-a-",
    "zim-",
    "zc-0-node-",
];

#[test]
fn from_three_to_four_nodes_at_most_a_quarter_and_two_percent_moves() {
    for name in NAMES {
        for replicas in 2..=3 {
            let newcomer = Member::new(format!("{name}3"));
            let ring = join(&document(replicas, members(name, 3)), vec![newcomer]);
            let share = moved(&ring, KEYS);
            assert!(
                (0.23..=0.27).contains(&share),
                "{name} R={replicas}: {share}"
            );
        }
    }
}

/// A single copy follows one arc per point instead of two, so that its share varies more: 1.1 % is one deviation.
#[test]
fn single_copies_and_first_owners_move_as_much_on_average() {
    let mut total = [0.0, 0.0];
    for name in NAMES {
        let newcomer = || vec![Member::new(format!("{name}3"))];
        let single = moved(&join(&document(1, members(name, 3)), newcomer()), KEYS);
        let first = first_moved(&join(&document(2, members(name, 3)), newcomer()), KEYS);
        for (sum, share) in total.iter_mut().zip([single, first]) {
            assert!((0.21..=0.29).contains(&share), "{name}: {share}");
            *sum += share / NAMES.len() as f64;
        }
    }
    assert!(total.iter().all(|share| *share <= 0.27), "{total:?}");
}

#[test]
fn joins_and_leaves_move_the_share_of_who_comes_or_goes() {
    for nodes in [3, 5, 10, 30] {
        let before = document(2, members("node-", nodes));
        let ideal = 1.0 / (nodes + 1) as f64;
        let share = moved(&join(&before, vec![Member::new("late")]), KEYS);
        assert!(
            (0.88..1.12).contains(&(share / ideal)),
            "join {nodes}: {share}"
        );
        let ideal = 1.0 / nodes as f64;
        let share = moved(&leave(&before, "node-1"), KEYS);
        assert!(
            (0.88..1.12).contains(&(share / ideal)),
            "leave {nodes}: {share}"
        );
    }
}

#[test]
fn two_that_join_together_move_their_two_shares() {
    let before = document(2, members("node-", 3));
    let share = moved(&join(&before, members("late-", 2)), KEYS);
    assert!((0.37..0.43).contains(&share), "{share}");
}

#[test]
fn a_weight_moves_what_it_adds() {
    let before = document(1, members("node-", 5));
    // From 100 of 500 to 200 of 600.
    let ideal = 2.0 / 6.0 - 1.0 / 5.0;
    let share = moved(&reweigh(&before, "node-2", 200), KEYS);
    assert!((0.85..1.15).contains(&(share / ideal)), "{share}");
    // From 100 of 500 to 50 of 450.
    let ideal = 1.0 / 5.0 - 1.0 / 9.0;
    let share = moved(&reweigh(&before, "node-2", 50), KEYS);
    assert!((0.85..1.15).contains(&(share / ideal)), "{share}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With any names, weights, zones and R: no copy moves between two nodes that stay as they are.
    #[test]
    fn only_who_joins_gains((replicas, mut all) in any_cluster(), weight in 1_u32..200, zone in 0_usize..5) {
        all.retain(|member| member.id != "late");
        prop_assume!(!all.is_empty());
        let zone = ["", "a", "b", "c", "new"][zone].to_owned();
        let late = Member { weight, zone, ..Member::new("late") };
        let ring = join(&document(replicas, all), vec![late]);
        let late = ring.find("late").unwrap();
        for (lost, gained) in moves(&ring, 500) {
            prop_assert_eq!(gained, vec![late]);
            prop_assert!(lost.len() <= 1);
        }
    }

    #[test]
    fn only_who_leaves_loses((replicas, all) in any_cluster(), at in any::<prop::sample::Index>()) {
        prop_assume!(all.len() > 1);
        let id = at.get(&all).id.clone();
        let ring = leave(&document(replicas, all), &id);
        let gone = ring.find(&id).unwrap();
        for (lost, gained) in moves(&ring, 500) {
            prop_assert_eq!(lost, vec![gone]);
            prop_assert!(gained.len() <= 1);
        }
    }

    #[test]
    fn only_whose_weight_changes_gains_or_loses(
        (replicas, all) in any_cluster(),
        at in any::<prop::sample::Index>(),
        weight in 1_u32..200,
    ) {
        let (id, before) = (at.get(&all).id.clone(), at.get(&all).weight);
        prop_assume!(before != weight);
        let ring = reweigh(&document(replicas, all), &id, weight);
        let node = ring.find(&id).unwrap();
        for (lost, gained) in moves(&ring, 500) {
            let own = if weight > before { gained } else { lost };
            prop_assert_eq!(own, vec![node]);
        }
    }
}
