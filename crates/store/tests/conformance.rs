//! The reference store passes the contract suite.

use std::sync::Arc;

use zimcache_store::{
    memory::MemoryStore,
    testing::conformance::{self, Stores},
};

#[test]
fn the_reference_store_keeps_the_contract() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(conformance::run(&|| {
        let store = Arc::new(MemoryStore::default());
        Stores {
            blobs: store.clone(),
            entries: store.clone(),
            admin: store,
            keep: None,
        }
    }));
}
