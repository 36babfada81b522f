//! Small blobs in RAM, by S3-FIFO.
//!
//! Blobs never change, so that only a deletion can make a copy here wrong. One through this gateway removes it at once,
//! also when a read that began before it is still under way; one through another gateway is noticed after
//! [`crate::Config::ram_lifetime`] at the latest. Nothing here ever answers whether a blob is present. Names carry the
//! namespace, and rights are checked before every read, so that nobody sees what is another's.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;
use zimcache_store::RecordKey;
use zimcache_types::Namespace;

use crate::config::Config;

/// What the names and places of a blob take beside its bytes.
const OVERHEAD_BYTES: u64 = 192;
/// A guess at the size of a blob, for the first size of the tables.
const TYPICAL_BYTES: u64 = 4 << 10;

/// The RAM tier.
#[derive(Debug)]
pub(crate) struct Ram {
    cache: Option<Cache<RecordKey, Kept, ByBytes>>,
    most_bytes: u64,
    lifetime: Duration,
    deletions: AtomicU64,
}

#[derive(Debug, Clone)]
struct Kept {
    value: Bytes,
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<RecordKey, Kept> for ByBytes {
    fn weight(&self, _: &RecordKey, kept: &Kept) -> u64 {
        kept.value.len() as u64 + OVERHEAD_BYTES
    }
}

/// The moment a read began, seen from the deletions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Ram {
    pub(crate) fn new(config: &Config) -> Ram {
        let capacity = config.ram_bytes;
        let items = (capacity / TYPICAL_BYTES).clamp(16, 1 << 16) as usize;
        Ram {
            cache: (capacity > 0).then(|| Cache::with_weighter(items, capacity, ByBytes)),
            most_bytes: config.ram_item_bytes,
            lifetime: config.ram_lifetime,
            deletions: AtomicU64::new(0),
        }
    }

    /// Whether a blob of this size is kept.
    pub(crate) const fn takes(&self, size_bytes: u64) -> bool {
        self.cache.is_some() && size_bytes <= self.most_bytes
    }

    /// A blob, if it is here and not too old.
    pub(crate) fn get(&self, key: &RecordKey) -> Option<Bytes> {
        let cache = self.cache.as_ref()?;
        let kept = cache.get(key)?;
        if kept.since.elapsed() < self.lifetime {
            return Some(kept.value);
        }
        cache.remove(key);
        None
    }

    /// To be taken before a blob is read that is to be kept.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.deletions.load(Ordering::Acquire))
    }

    /// Keeps a blob, unless something was deleted since its reading began.
    pub(crate) fn keep(&self, mark: Mark, key: &RecordKey, value: &Bytes) {
        let Some(cache) = &self.cache else { return };
        let kept = Kept {
            value: value.clone(),
            since: Instant::now(),
        };
        if self.takes(value.len() as u64) && self.mark() == mark {
            cache.insert(key.clone(), kept);
            // A deletion in this very moment has to win.
            if self.mark() != mark {
                cache.remove(key);
            }
        }
    }

    /// Forgets a blob that is being deleted.
    pub(crate) fn delete(&self, key: &RecordKey) {
        self.deletions.fetch_add(1, Ordering::AcqRel);
        if let Some(cache) = &self.cache {
            cache.remove(key);
        }
    }

    /// Forgets all blobs of a namespace that is being purged.
    pub(crate) fn purge(&self, namespace: &Namespace) {
        self.deletions.fetch_add(1, Ordering::AcqRel);
        if let Some(cache) = &self.cache {
            cache.retain(|key, _| key.namespace != *namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use zimcache_types::{Digest, Function};

    use super::*;

    fn ram(bytes: u64) -> Ram {
        Ram::new(&Config {
            ram_bytes: bytes,
            ram_item_bytes: 10,
            ram_lifetime: Duration::from_mins(1),
            ..Config::default()
        })
    }

    fn key(namespace: &str, body: &[u8]) -> RecordKey {
        let namespace = Namespace::new(namespace).unwrap();
        RecordKey::blob(&namespace, &Digest::of(Function::Sha256, body))
    }

    const BODY: Bytes = Bytes::from_static(b"body");

    #[tokio::test(start_paused = true)]
    async fn a_blob_is_kept_for_its_lifetime_in_its_namespace() {
        let (ram, own) = (ram(1 << 20), key("own", b"body"));
        ram.keep(ram.mark(), &own, &BODY);
        assert_eq!(ram.get(&own), Some(BODY));
        assert_eq!(ram.get(&key("other", b"body")), None);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(ram.get(&own), None);
    }

    #[tokio::test]
    async fn large_blobs_are_not_kept_and_zero_keeps_none() {
        let name = key("own", b"body");
        let large = ram(1 << 20);
        large.keep(large.mark(), &name, &Bytes::from_static(b"more than ten"));
        assert_eq!(large.get(&name), None);
        let off = ram(0);
        assert!(!off.takes(1));
        off.keep(off.mark(), &name, &BODY);
        assert_eq!(off.get(&name), None);
    }

    #[tokio::test]
    async fn a_deletion_wins_over_a_read_that_began_before_it() {
        let (ram, name) = (ram(1 << 20), key("own", b"body"));
        let mark = ram.mark();
        ram.delete(&name);
        ram.keep(mark, &name, &BODY);
        assert_eq!(ram.get(&name), None);
        ram.keep(ram.mark(), &name, &BODY);
        ram.purge(&name.namespace);
        assert_eq!(ram.get(&name), None);
    }
}
