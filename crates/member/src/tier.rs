//! What a member asks of the durable tier. Uploading is the tier's own work, off the records that are pinned as dirty.

use async_trait::async_trait;
use zimcache_link::{Body, Result};
use zimcache_store::{RecordHead, RecordKey};

/// A value found in the durable tier.
#[derive(Debug)]
pub struct Filled {
    /// What stands before it.
    pub head: RecordHead,
    /// Size of the value in bytes.
    pub size_bytes: u64,
    /// All of its bytes.
    pub body: Box<dyn Body>,
}

/// A bucket behind the nodes.
#[async_trait]
pub trait DurableTier: Send + Sync + std::fmt::Debug + 'static {
    /// The value of a record, to be stored here; `None` when the tier has none.
    ///
    /// # Errors
    /// When the tier cannot be asked.
    async fn fill(&self, key: &RecordKey) -> Result<Option<Filled>>;

    /// Whether it answers at present. Cheap.
    fn is_reachable(&self) -> bool;
}
