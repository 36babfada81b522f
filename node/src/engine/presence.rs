//! Which of many blobs are there, answered from the index.
//!
//! A batch is gone through in passes, so that what one look-up waits for is not waited for again by the next: first all
//! key hashes, then the slots, some shards together. What a slot says is enough: fingerprint, size class and low bits of
//! the size. A wrong digest passes once in 2^54; a wrong size of a right hash passes if it is off by a multiple of 32
//! and is not less than what is stored. What only the disk can settle is asked there, one by one.

use std::sync::Arc;

use zimcache_store::{Result, Touch};
use zimcache_types::Digest;

use super::{
    blobs::blob_key,
    leases::LeaseClock,
    record::record_len,
    retention::Age,
    shared::{Key, Shared},
    slot::{self, KeyHash, SizeClass, View},
};

/// What the index tells of a batch.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// For each digest whether it is absent.
    pub(crate) missing: Vec<bool>,
    /// The numbers of those that only the disk can settle; they count as missing until then.
    pub(crate) unsettled: Vec<usize>,
    /// The numbers of those that are there and have to be leased durably before anybody is told so.
    pub(crate) unleased: Vec<usize>,
}

impl Presence {
    /// Notes a blob that is there.
    fn found(&mut self, number: usize, view: &View, touch: Touch, clock: LeaseClock) {
        self.missing[number] = false;
        if touch == Touch::Lease && !clock.promises(view) {
            self.unleased.push(number);
        }
    }
}

impl Shared {
    /// Looks a batch up, and counts the use of what is there.
    pub(crate) fn look_for(&self, namespace: u32, digests: &[Digest], touch: Touch) -> Presence {
        let hash = |digest| self.hash(&blob_key(namespace, digest));
        let hashes: Vec<KeyHash> = digests.iter().map(hash).collect();
        let mut presence =
            self.look_for_hashes(namespace, &hashes, |at| digests[at].size_bytes, touch);
        for (missing, digest) in presence.missing.iter_mut().zip(digests) {
            *missing = *missing && !digest.is_empty_blob();
        }
        presence
    }

    /// The same by the hashes of the keys and the sizes, where they are known. The empty blob is none that is there.
    pub(crate) fn look_for_hashes(
        &self,
        namespace: u32,
        hashes: &[KeyHash],
        size_bytes: impl Fn(usize) -> Option<u64>,
        touch: Touch,
    ) -> Presence {
        let mut presence = Presence {
            missing: vec![true; hashes.len()],
            unsettled: Vec::new(),
            unleased: Vec::new(),
        };
        let (ages, clock) = (self.keeping.expires(namespace), self.lease_clock());
        let mut aged = Vec::new();
        self.index.find_each(hashes, |number, slot| {
            let view = slot.view();
            if view.tombstone || !self.size_fits(&view, size_bytes(number)) {
                return;
            }
            if view.unchecked {
                presence.unsettled.push(number);
            } else if ages {
                aged.push((number, view));
            } else {
                presence.found(number, &view, touch, clock);
                if touch != Touch::No {
                    slot.touch(clock);
                }
            }
        });
        for (number, view) in aged {
            match self.age_of(namespace, &view) {
                Age::Expired if !clock.holds(&view) => {}
                Age::Unknown => presence.unsettled.push(number),
                Age::Expired | Age::Fresh => {
                    presence.found(number, &view, touch, clock);
                    if touch != Touch::No {
                        self.index.find_and_touch(hashes[number], clock);
                    }
                }
            }
        }
        presence
    }

    /// Asks the disk for what the index could not tell, and leases what has to be before anybody is told that it is
    /// there; what is gone by then is missing.
    pub(crate) async fn settle_presence(
        self: &Arc<Self>,
        namespace: u32,
        mut presence: Presence,
        key: impl Fn(usize) -> Key + Send + Sync,
        touch: Touch,
    ) -> Result<Vec<bool>> {
        for at in presence.unsettled {
            let key = key(at);
            let hash = self.hash(&key);
            if self.is_served_whole(key, hash).await? {
                presence.missing[at] = false;
                if touch != Touch::No {
                    self.index.find_and_touch(hash, self.lease_clock());
                }
                if touch == Touch::Lease && self.needs_lease(hash) {
                    presence.unleased.push(at);
                }
            }
        }
        if presence.unleased.is_empty() {
            return Ok(presence.missing);
        }
        let unleased = presence.unleased.iter();
        let hashes: Vec<KeyHash> = unleased.map(|at| self.hash(&key(*at))).collect();
        let there = self.lease(namespace, &hashes).await?;
        for (at, there) in presence.unleased.iter().zip(there) {
            presence.missing[*at] = !there;
        }
        Ok(presence.missing)
    }

    /// Whether a blob is served, and has all its parts if it is in parts; from the disk.
    async fn is_served_whole(self: &Arc<Self>, key: Key, hash: KeyHash) -> Result<bool> {
        let loaded = self.load(key, hash, None).await?;
        Ok(loaded.is_some_and(|loaded| {
            !self.is_over(&loaded.header, &loaded.view) && self.is_whole(hash, &loaded)
        }))
    }

    /// Whether a slot can be of a blob of this size.
    fn size_fits(&self, view: &View, size_bytes: Option<u64>) -> bool {
        let Some(size) = size_bytes else {
            return true;
        };
        let one_record = size <= self.geometry.part_bytes as u64;
        if u64::from(view.size_low) != size & slot::SIZE_LOW_MASK {
            return false;
        }
        match view.kind {
            // Compressed, a record takes less than its value.
            slot::Kind::Blob => {
                one_record && view.size.bytes() <= SizeClass::of(record_len(size as usize)).bytes()
            }
            _ => !one_record,
        }
    }
}
