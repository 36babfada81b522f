//! A node: one disk, one segment store, the blob and entry contracts over it.
//!
//! Not here: routing, dialects, rights (`gateway`). See `engine/mod.rs` for how the store works.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "ZimCache's store needs Linux (O_DIRECT, preadv2, fdatasync); run it in a Linux VM or container"
);

pub mod engine;
pub mod testing;

use std::sync::Arc;

use engine::{admin::Admin, blobs::Blobs, entries::Entries, open::Engine, replica::Records};
use zimcache_config::StoreConfig;
use zimcache_store::{BlobStore, EntryStore, Replica, StoreAdmin};
use zimcache_types::Clock;

pub use engine::{
    disk::{Disk, OpenDiskError, RealDisk},
    open::{OpenError, OpenReport},
};

/// An open store. Dropping it closes it.
#[derive(Debug)]
pub struct Node {
    engine: Engine,
}

impl Node {
    /// Opens or makes the store on this disk and recovers it. Blocks; afterwards the store answers at once.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and what to do about it.
    pub fn open(
        config: &StoreConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Node, OpenError> {
        Ok(Node {
            engine: Engine::open(config, disk, clock)?,
        })
    }

    /// The blobs.
    pub fn blobs(&self) -> Arc<dyn BlobStore> {
        Arc::new(Blobs(Arc::clone(&self.engine.shared)))
    }

    /// The entries.
    pub fn entries(&self) -> Arc<dyn EntryStore> {
        Arc::new(Entries(Arc::clone(&self.engine.shared)))
    }

    /// The records, for a store that is one of several.
    pub fn replica(&self) -> Arc<dyn Replica> {
        Arc::new(Records(Arc::clone(&self.engine.shared)))
    }

    /// Figures, garbage collection, verification.
    pub fn admin(&self) -> Arc<dyn StoreAdmin> {
        let millis = u64::try_from(self.engine.report.recovery.as_millis()).unwrap_or(u64::MAX);
        Arc::new(Admin {
            shared: Arc::clone(&self.engine.shared),
            recovery_millis: millis,
        })
    }

    /// What was found when the store was opened.
    pub const fn report(&self) -> OpenReport {
        self.engine.report
    }

    /// Commits what is queued and stops cleanly; further writes are refused. Blocks.
    pub fn close(mut self) {
        self.engine.close();
    }
}
