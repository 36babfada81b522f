//! How even requests are when nodes with too much in flight are passed over.

use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use zimcache_ring::{
    Point, Ring,
    load::{Seen, bound, choose},
};

use crate::harness::{document, members, points};

const REQUESTS: usize = 100_000;
/// Requests in flight per node, on average.
const DEPTH: usize = 32;

/// The busiest node over the mean: (requests it served, the most it had in flight), with and without bounds.
fn busiest(nodes: usize, bounded: bool, mut key: impl FnMut() -> Point) -> (f64, f64) {
    let ring = Ring::new(&document(2, members("node-", nodes)));
    let (mut served, mut in_flight) = (vec![0_u64; nodes], vec![0_u64; nodes]);
    let (mut queue, mut most) = (VecDeque::new(), 0);
    for _ in 0..REQUESTS {
        if queue.len() == DEPTH * nodes {
            let done: zimcache_ring::NodeIx = queue.pop_front().unwrap();
            in_flight[done.index()] -= 1;
        }
        let candidates = ring.current(key());
        let limit = bound(queue.len() as u64, nodes as u64);
        let seen = |node: zimcache_ring::NodeIx| Seen {
            in_flight: in_flight[node.index()],
            is_near: false,
        };
        let node = if bounded {
            choose(candidates, limit, |node| Some(seen(node))).unwrap()
        } else {
            candidates.owners[0]
        };
        served[node.index()] += 1;
        in_flight[node.index()] += 1;
        most = most.max(in_flight[node.index()]);
        queue.push_back(node);
    }
    let mean = REQUESTS as f64 / nodes as f64;
    let served = served.into_iter().max().unwrap() as f64 / mean;
    (served, most as f64 / DEPTH as f64)
}

#[test]
fn with_bounds_the_busiest_of_three_to_fifty_nodes_serves_at_most_10_percent_more_than_the_mean() {
    for nodes in [3, 4, 5, 7, 10, 20, 35, 50] {
        let mut keys = points(REQUESTS as u64);
        let (served, in_flight) = busiest(nodes, true, || keys.next().unwrap());
        assert!(served <= 1.1, "{nodes} nodes: {served}");
        assert!(
            in_flight <= 1.25 + 1.0 / DEPTH as f64,
            "{nodes} nodes: {in_flight}"
        );
    }
}

/// Keys by a Zipf law of exponent 1.1 over 100,000 ranks.
fn zipf(seed: u64) -> impl FnMut() -> Point {
    let mut random = StdRng::seed_from_u64(seed);
    let spots: Vec<Point> = points(100_000).collect();
    let mut sum = 0.0;
    let up_to: Vec<f64> = (1..=spots.len())
        .map(|rank| {
            sum += (rank as f64).powf(-1.1);
            sum
        })
        .collect();
    move || {
        let at = random.random::<f64>() * sum;
        let rank = up_to.partition_point(|end| *end < at);
        spots[rank.min(spots.len() - 1)]
    }
}

#[test]
fn hot_keys_overload_a_node_without_bounds_and_not_with_them() {
    for nodes in [10, 20] {
        let (alone, _) = busiest(nodes, false, zipf(1));
        let (bounded, in_flight) = busiest(nodes, true, zipf(1));
        assert!(alone > 1.5, "{nodes} nodes: {alone}");
        assert!(bounded <= 1.25, "{nodes} nodes: {bounded}");
        assert!(
            in_flight <= 1.25 + 1.0 / DEPTH as f64,
            "{nodes} nodes: {in_flight}"
        );
    }
}
