//! What a member asks of the durable tier. Uploading is the tier's own work, off the records that are pinned as dirty;
//! what it fetches, it stores here by itself.

use async_trait::async_trait;
use zimcache_link::{Found, Result};
use zimcache_store::{ByteRange, RecordKey};
use zimcache_types::Namespace;

/// A bucket behind the nodes.
#[async_trait]
pub trait DurableTier: Send + Sync + std::fmt::Debug + 'static {
    /// Opens a record from the tier; what it says when there is none counts as this node's word.
    ///
    /// # Errors
    /// When the tier cannot be asked.
    async fn fill(&self, key: &RecordKey, range: ByteRange) -> Result<Found>;

    /// For each of these blobs whether the tier may have it, as far as is known without asking it. Cheap.
    fn may_hold(&self, keys: &[&RecordKey]) -> Vec<bool>;

    /// Whether the tier has a blob, and will have it for hours.
    ///
    /// # Errors
    /// When the tier cannot be asked.
    async fn holds(&self, key: &RecordKey) -> Result<bool>;

    /// Removes a record from the tier. That there is none is a success. It may have been on its way from there: this node
    /// may have it again before this returns, but not later.
    ///
    /// # Errors
    /// When the tier cannot be asked.
    async fn delete(&self, key: &RecordKey) -> Result<()>;

    /// Removes everything of a namespace from the tier. See [`DurableTier::delete`] for what was on its way.
    ///
    /// # Errors
    /// When the tier cannot be asked; then some may be left.
    async fn purge(&self, namespace: &Namespace) -> Result<()>;

    /// Removes what nobody used for its whole life, or only says what that would be: objects, and their bytes.
    ///
    /// # Errors
    /// When the tier cannot be asked.
    async fn sweep(&self, dry_run: bool) -> Result<(u64, u64)>;

    /// A record that is here was used: the tier keeps its object alive. Cheap.
    fn touched(&self, key: &RecordKey);

    /// Another node has brought these into the tier.
    fn learn(&self, keys: &[RecordKey]);

    /// Whether it answers at present. Cheap.
    fn is_reachable(&self) -> bool;
}
