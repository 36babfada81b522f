//! What a seed decides before anything runs: how large the cluster is, how fast, how eager.

use std::time::Duration;

use rand::RngExt as _;
use zimcache_cluster::{Config, Timing};

use crate::random::generator;

/// The plan of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Nodes at the beginning.
    pub(crate) nodes: u64,
    pub(crate) gateways: u32,
    /// Clients of each gateway.
    pub(crate) clients: u32,
    /// How long clients and faults go on.
    pub(crate) work: Duration,
    /// The longest pause of a client between two calls.
    pub(crate) pause: Duration,
    /// The longest that a message takes while nothing is broken.
    pub(crate) latency: Duration,
    /// Different blobs in use, and entries of each namespace.
    pub(crate) blobs: u64,
    pub(crate) entries: u64,
    /// Faults under way at the same time; none for a calm run.
    pub(crate) faults: usize,
    pub(crate) has_ring_changes: bool,
    pub(crate) has_skew: bool,
    /// Whether one of the namespaces is purged now and then.
    pub(crate) has_purges: bool,
    pub(crate) cluster: Config,
    pub(crate) member: zimcache_member::Settings,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Plan {
        let mut random = generator(seed, "plan");
        let has_ram = random.random_bool(0.2);
        let cluster = Config {
            // So much that nothing is evicted: what is depends on where the program is in memory.
            ram_bytes: if has_ram { 64 << 20 } else { 0 },
            kept_bytes: *pick(&mut random, &[1_000, 10_000, 1 << 20]),
            window_bytes: *pick(&mut random, &[1_000, 512 << 10]),
            strikes: random.random_range(1..=3),
            timing: Timing {
                hedge_small: Duration::from_millis(*pick(&mut random, &[0, 20, 200])),
                poll: Duration::from_millis(*pick(&mut random, &[500, 2000])),
                ..Timing::default()
            },
            ..Config::default()
        };
        let member = zimcache_member::Settings {
            pulls: random.random_range(1..=8),
            retry: Duration::from_millis(*pick(&mut random, &[200, 500, 2000])),
            ..zimcache_member::Settings::default()
        };
        Plan {
            seed,
            nodes: random.random_range(3..=5),
            gateways: 2,
            clients: random.random_range(2..=4),
            work: Duration::from_secs(random.random_range(15..=40)),
            pause: Duration::from_millis(*pick(&mut random, &[100, 300, 600])),
            latency: Duration::from_millis(*pick(&mut random, &[5, 10, 40])),
            blobs: random.random_range(2..=24),
            entries: random.random_range(2..=8),
            faults: *pick(&mut random, &[0, 1, 1, 2, 2, 3]),
            has_ring_changes: random.random_bool(0.4),
            has_skew: random.random_bool(0.3),
            has_purges: random.random_bool(0.2),
            cluster,
            member,
        }
    }
}

/// One of these.
pub(crate) fn pick<'a, T>(random: &mut impl rand::Rng, items: &'a [T]) -> &'a T {
    &items[random.random_range(0..items.len())]
}
