//! The reference store passes the contract suite.

use std::sync::Arc;

use zimcache_store::{
    memory::MemoryStore,
    testing::conformance::{self, Stores},
};
use zimcache_types::{ManualClock, Timestamp};

#[test]
fn the_reference_store_keeps_the_contract() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(conformance::run(&|| {
        let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        Stores {
            blobs: store.clone(),
            entries: store.clone(),
            admin: store,
            clock,
            keep: None,
        }
    }));
}
