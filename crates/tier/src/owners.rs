//! What the tier asks of whoever knows the ring and the other nodes.

use async_trait::async_trait;
use zimcache_store::{RecordKey, Version};

/// Who is responsible for which record. Asked often: answers come from memory.
#[async_trait]
pub trait Owners: Send + Sync + std::fmt::Debug + 'static {
    /// Whether this node is an owner of the record.
    fn owns(&self, key: &RecordKey) -> bool;

    /// Whether this node is the one that uploads the record at once; the others wait for a while.
    fn is_first_owner(&self, key: &RecordKey) -> bool;

    /// Tells the other owners that these are in the bucket now. They take their dirty pins off and tell their tiers
    /// ([`crate::Tier::learn`]). Whoever cannot be told finds out when it uploads the record itself.
    async fn settled(&self, records: &[(RecordKey, Version)]);
}

/// A node that is alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct SoleOwner;

#[async_trait]
impl Owners for SoleOwner {
    fn owns(&self, _key: &RecordKey) -> bool {
        true
    }

    fn is_first_owner(&self, _key: &RecordKey) -> bool {
        true
    }

    async fn settled(&self, _records: &[(RecordKey, Version)]) {}
}
