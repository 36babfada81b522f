//! The engine keeps the contract of every store, on a simulated disk and on real ones.

use std::sync::Arc;

use zimcache_config::{Compression, StoreConfig};
use zimcache_node::{Disk, Node, RealDisk, testing::SimDisk};
use zimcache_store::testing::conformance::{self, Content, Stores};

use crate::harness::{clock, config, runtime, stores};

fn made_on(disk: Arc<dyn Disk>, compression: Compression) -> Stores {
    let (clock, config) = (clock(), config(64));
    let config = StoreConfig {
        compression,
        ..config
    };
    let node = Node::open(&config, disk, clock.clone()).unwrap();
    stores(&node, &clock).kept_by(node)
}

#[test]
fn the_engine_keeps_the_contract_on_a_simulated_disk() {
    runtime().block_on(conformance::run(&|| {
        let disk = SimDisk::new(1);
        disk.set_read_now_misses(500);
        made_on(Arc::new(disk), Compression::Auto)
    }));
}

#[test]
fn the_engine_keeps_the_contract_with_every_codec_and_kind_of_content() {
    for (compression, content) in [
        (Compression::Off, Content::Text),
        (Compression::Auto, Content::Text),
        (Compression::Auto, Content::Mixed),
        (Compression::Zstd, Content::Text),
        (Compression::Lz4, Content::Mixed),
        (Compression::Lz4, Content::Text),
    ] {
        runtime().block_on(conformance::run_with(content, &|| {
            let disk = SimDisk::new(1);
            disk.set_read_now_misses(300);
            made_on(Arc::new(disk), compression)
        }));
    }
}

#[test]
fn the_engine_keeps_the_contract_on_real_disks_with_and_without_direct_writes() {
    for direct in [true, false] {
        runtime().block_on(conformance::run(&|| {
            let folder = tempfile::tempdir().unwrap();
            let disk = RealDisk::open(folder.path(), direct).unwrap();
            made_on(Arc::new(disk), Compression::Auto).with(folder)
        }));
    }
}
