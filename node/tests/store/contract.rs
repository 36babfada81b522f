//! The engine keeps the contract of every store, on a simulated disk and on real ones.

use std::sync::Arc;

use zimcache_node::{Disk, Node, RealDisk, testing::SimDisk};
use zimcache_store::testing::conformance;

use crate::harness::{clock, config, runtime, stores};

fn node_on(disk: Arc<dyn Disk>) -> Node {
    Node::open(&config(64), disk, clock()).unwrap()
}

#[test]
fn the_engine_keeps_the_contract_on_a_simulated_disk() {
    runtime().block_on(conformance::run(&|| {
        let disk = SimDisk::new(1);
        disk.set_read_now_misses(500);
        let node = node_on(Arc::new(disk));
        stores(&node).kept_by(node)
    }));
}

#[test]
fn the_engine_keeps_the_contract_on_real_disks_with_and_without_direct_writes() {
    for direct in [true, false] {
        runtime().block_on(conformance::run(&|| {
            let folder = tempfile::tempdir().unwrap();
            let disk = RealDisk::open(folder.path(), direct).unwrap();
            let node = node_on(Arc::new(disk));
            stores(&node).kept_by((node, folder))
        }));
    }
}
