//! A store opened by a command itself, while no server uses it.
//!
//! Invariants: a folder without a store is left as it is; opening evicts nothing, whatever limit a server gives the
//! store; the store is closed cleanly.

use std::{path::Path, sync::Arc};

use tokio::runtime::{self, Runtime};
use zimcache_config::StoreConfig;
use zimcache_node::{Node, OpenDiskError, RealDisk};
use zimcache_store::StoreAdmin;
use zimcache_types::{ByteSize, SystemClock};

use crate::error::{Error, Result};

/// The file that every store has.
const META_NAME: &str = "store.meta";

/// An open store.
#[derive(Debug)]
pub(crate) struct LocalStore {
    node: Node,
    runtime: Runtime,
}

impl LocalStore {
    /// Opens the store in the folder, which must hold one.
    pub(crate) fn open(folder: &Path) -> Result<LocalStore> {
        if !holds_store(folder) {
            return Err(Error::NoStore(folder.to_owned()));
        }
        let config = StoreConfig {
            // Limited by what is stored and free alone, so that opening never evicts.
            max_size: ByteSize::gib(1 << 20),
            scrub_interval: None,
            ..StoreConfig::default()
        };
        let node = open_node(folder, &config)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        Ok(LocalStore {
            node,
            runtime: runtime.map_err(Error::Runtime)?,
        })
    }

    /// Runs one operation on the store, then closes it.
    pub(crate) fn run<T>(
        self,
        operation: impl AsyncFnOnce(Arc<dyn StoreAdmin>) -> Result<T>,
    ) -> Result<T> {
        let result = self.runtime.block_on(operation(self.node.admin()));
        self.node.close();
        result
    }
}

/// Whether there is a store in the folder.
pub(crate) fn holds_store(folder: &Path) -> bool {
    folder.join(META_NAME).is_file()
}

/// Opens a node on a folder of this machine, with failures told in terms of what to do.
pub(crate) fn open_node(folder: &Path, config: &StoreConfig) -> Result<Node> {
    let disk = RealDisk::open(folder, config.direct_io).map_err(|error| match error {
        OpenDiskError::InUse(folder) => Error::StoreInUse(folder),
        error @ OpenDiskError::Io { .. } => Error::OpenDisk(error),
    })?;
    let clock = Arc::new(SystemClock);
    Node::open(config, Arc::new(disk), clock).map_err(|source| Error::OpenStore {
        path: folder.to_owned(),
        source,
    })
}
