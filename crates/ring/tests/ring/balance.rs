//! How even it is without any balancing by load.

use zimcache_ring::{Document, Member, Ring};

use crate::harness::{document, members, points};

const KEYS: u64 = 150_000;

/// Copies and first owners of each node, over its share by weight.
fn fill(document: &Document) -> Vec<(f64, f64)> {
    let ring = Ring::new(document);
    let mut copies = vec![0_u64; ring.len()];
    let mut firsts = vec![0_u64; ring.len()];
    for point in points(KEYS) {
        let owners = ring.owners(point);
        for node in owners {
            copies[node.index()] += 1;
        }
        firsts[owners[0].index()] += 1;
    }
    let total: u32 = document
        .current()
        .members
        .iter()
        .map(|member| member.weight)
        .sum();
    let each = ring.members().map(|(node, member)| {
        let ideal = KEYS as f64 * f64::from(member.weight) / f64::from(total);
        let owners = document.replicas().min(ring.len() as u32);
        let copies = copies[node.index()] as f64 / (ideal * f64::from(owners));
        (copies, firsts[node.index()] as f64 / ideal)
    });
    each.collect()
}

fn fullest(document: &Document) -> (f64, f64) {
    let larger = |(a, b): (f64, f64), (c, d): (f64, f64)| (a.max(c), b.max(d));
    fill(document).into_iter().fold((0.0, 0.0), larger)
}

#[test]
fn the_fullest_of_three_to_fifty_nodes_holds_at_most_15_percent_more_than_the_mean() {
    for nodes in 3..=50 {
        let (copies, firsts) = fullest(&document(2, members("node-", nodes)));
        assert!(copies <= 1.15, "{nodes} nodes: {copies}");
        // One arc per point instead of two: less even. Reads and bytes follow the copies, only uploads the firsts.
        assert!(firsts <= 1.20, "{nodes} nodes: first owners {firsts}");
    }
}

#[test]
fn zones_of_one_size_are_as_even() {
    for nodes in [3, 6, 12, 30, 48] {
        let mut all = members("zimcache-node-", nodes);
        for (n, member) in all.iter_mut().enumerate() {
            member.zone = format!("zone-{}", n % 3);
        }
        let (copies, _) = fullest(&document(2, all));
        assert!(copies <= 1.15, "{nodes} nodes: {copies}");
    }
}

#[test]
fn a_node_of_twice_the_weight_holds_about_twice_as_much() {
    let mut all = members("node-", 12);
    all[3].weight = 200;
    all[7].weight = 50;
    let filled = fill(&document(1, all));
    assert!(
        filled
            .iter()
            .all(|(copies, _)| (0.85..1.15).contains(copies)),
        "{filled:?}"
    );
}

/// What no placement can mend, so that nobody is surprised: copies go to distinct zones first.
#[test]
fn the_only_node_of_a_zone_holds_half_of_two_copies() {
    let mut all = members("node-", 5);
    for member in &mut all {
        "a".clone_into(&mut member.zone);
    }
    all.push(Member {
        zone: "b".to_owned(),
        ..Member::new("alone")
    });
    let ring = Ring::new(&document(2, all));
    let alone = ring.find("alone").unwrap();
    assert!(points(1000).all(|point| ring.owns(alone, point)));
}
