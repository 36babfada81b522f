//! Who follows whom: distinct nodes, distinct zones, and the same as a plain walk round the ring.

use std::collections::BTreeSet;

use proptest::prelude::*;
use zimcache_ring::{Member, NodeIx, Point, Ring};

use crate::harness::{any_cluster, document, members, points};

/// The next distinct nodes from a point on, found by asking for first owners on a ring without zones: each time of the
/// nodes that are left.
fn walk(replicas: u32, all: &[Member], point: Point) -> Vec<String> {
    let mut left: Vec<Member> = all
        .iter()
        .cloned()
        .map(|member| Member {
            zone: String::new(),
            ..member
        })
        .collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let ring = Ring::new(&document(replicas, left.clone()));
        let id = ring.member(ring.owners(point)[0]).id.clone();
        left.retain(|member| member.id != id);
        order.push(id);
    }
    order
}

/// The rule in its own words: always the next of a zone that gave the fewest.
fn by_rule(all: &[Member], walk: &[String], width: usize) -> Vec<String> {
    let zone = |id: &str| &all.iter().find(|member| member.id == id).unwrap().zone;
    let mut chosen: Vec<String> = Vec::new();
    while chosen.len() < width {
        let given = |id: &str| {
            chosen
                .iter()
                .filter(|other| zone(other) == zone(id))
                .count()
        };
        let left = walk.iter().filter(|id| !chosen.contains(id));
        // The first of equals, which is the nearest.
        chosen.push(left.min_by_key(|id| given(id)).unwrap().clone());
    }
    chosen
}

fn zones<'a>(ring: &'a Ring, nodes: &[NodeIx]) -> BTreeSet<&'a str> {
    nodes
        .iter()
        .map(|node| ring.member(*node).zone.as_str())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_table_is_what_a_walk_by_the_rule_gives((replicas, all) in any_cluster(), key in any::<u64>()) {
        let ring = Ring::new(&document(replicas, all.clone()));
        let width = (replicas as usize + 2).min(all.len());
        let expected = by_rule(&all, &walk(replicas, &all, Point(key)), width);
        let found: Vec<_> = ring.current(Point(key)).iter().map(|node| ring.member(node).id.clone()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn nodes_are_distinct_and_zones_as_different_as_they_can_be((replicas, all) in any_cluster()) {
        let ring = Ring::new(&document(replicas, all.clone()));
        let there_are = all.iter().map(|member| &member.zone).collect::<BTreeSet<_>>().len();
        for point in points(200) {
            let found = ring.current(point);
            let distinct: BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(distinct.len(), (replicas as usize + 2).min(all.len()));
            prop_assert_eq!(found.owners.len(), (replicas as usize).min(all.len()));
            prop_assert_eq!(zones(&ring, found.owners).len(), found.owners.len().min(there_are));
        }
    }
}

#[test]
fn with_two_zones_there_is_a_stand_in_for_an_owner_of_either() {
    let mut all = members("node-", 6);
    for (n, member) in all.iter_mut().enumerate() {
        member.zone = ["a", "b"][n % 2].to_owned();
    }
    let ring = Ring::new(&document(2, all));
    for point in points(1000) {
        assert_eq!(zones(&ring, ring.owners(point)).len(), 2);
        assert_eq!(zones(&ring, ring.stand_ins(point)).len(), 2);
    }
}

#[test]
fn a_key_on_a_virtual_node_is_its_own_and_the_ring_closes_at_the_end() {
    let ring = Ring::new(&document(2, members("node-", 3)));
    // Beyond the last virtual node comes the first.
    assert_eq!(ring.current(Point(u64::MAX)), ring.current(Point(0)));
    assert_eq!(ring.virtual_nodes(), 1200);
}

#[test]
fn the_order_of_members_in_the_document_does_not_matter() {
    let mut all = members("node-", 7);
    let one = Ring::new(&document(2, all.clone()));
    all.reverse();
    let other = Ring::new(&document(2, all));
    assert!(points(1000).all(|point| one.current(point) == other.current(point)));
    assert_eq!(one.find("node-3"), other.find("node-3"));
    assert_eq!(one.find("node-9"), None);
}
