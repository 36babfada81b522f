//! Pins: why a record must stay, until somebody settles that. How much is pinned, and what follows from it.
//!
//! A bit in the slot of each record; the index counts them, here are the bytes. The parts of a value have no pins of
//! their own: they are judged by their manifest. Not here: how pins come and go (`settle`), what they protect from
//! (`verdict`).

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use zimcache_store::{Error, PinnedCounts, Pins, Result};

use super::{
    manifest::PartsOf,
    record::{Header, Kind},
    shared::Shared,
    slot::{KeyHash, View},
};

/// Names looked at in one go.
const AT_ONCE: usize = 1024;
/// Share of the capacity that pinned values may hold before writes are refused.
const PINNED_PERCENT: u64 = 60;

/// What a record adds to what is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PinnedSize {
    /// Bytes of its value.
    value: u64,
    /// Bytes of the disk that cannot be freed.
    disk: u64,
}

impl PinnedSize {
    /// Of a record.
    pub(crate) fn of(header: &Header) -> PinnedSize {
        let value = if header.is_tombstone() {
            0
        } else {
            header.raw_size
        };
        let in_parts = matches!(header.kind, Kind::Manifest | Kind::EntryManifest);
        let parts = if in_parts { value } else { 0 };
        PinnedSize {
            value,
            disk: parts.saturating_add(header.record_len() as u64),
        }
    }
}

/// What is pinned, in all, and who waits for more.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    dirty_bytes: AtomicU64,
    hint_bytes: AtomicU64,
    disk_bytes: AtomicU64,
    /// Blobs that are there and on their way to the disk once more: their pins must not change.
    held: Mutex<HashSet<KeyHash>>,
    more: Notify,
}

impl Pinned {
    /// From now on nobody changes the pins of this blob.
    pub(crate) fn hold(&self, hash: KeyHash) {
        self.held.lock().insert(hash);
    }

    /// Ends [`Pinned::hold`].
    pub(crate) fn let_go(&self, hashes: &[KeyHash]) {
        if !hashes.is_empty() {
            let mut held = self.held.lock();
            for hash in hashes {
                held.remove(hash);
            }
        }
    }

    /// The blobs whose pins must not change, while this is held.
    pub(crate) fn held(&self) -> MutexGuard<'_, HashSet<KeyHash>> {
        self.held.lock()
    }

    /// Bytes of the disk that cannot be freed, by what the values take at most.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Relaxed)
    }

    /// Ends when something is pinned after this call.
    pub(crate) fn more(&self) -> impl Future<Output = ()> + '_ {
        self.more.notified()
    }

    /// The pins of a record changed.
    pub(crate) fn changed(&self, before: Pins, after: Pins, size: PinnedSize) {
        let bytes = [
            (&self.dirty_bytes, before.dirty, after.dirty, size.value),
            (&self.hint_bytes, before.hint, after.hint, size.value),
            (&self.disk_bytes, is_any(before), is_any(after), size.disk),
        ];
        for (sum, was, is, bytes) in bytes {
            match (was, is) {
                (false, true) => change(sum, |sum| sum.saturating_add(bytes)),
                (true, false) => change(sum, |sum| sum.saturating_sub(bytes)),
                _ => {}
            }
        }
        if (after.dirty && !before.dirty) || (after.hint && !before.hint) {
            self.more.notify_waiters();
        }
    }
}

/// Sizes may be hostile: sums end where numbers do.
fn change(sum: &AtomicU64, change: impl Fn(u64) -> u64) {
    sum.fetch_update(Relaxed, Relaxed, |sum| Some(change(sum)))
        .ok();
}

const fn is_any(pins: Pins) -> bool {
    pins.dirty || pins.hint
}

/// Whether some have all that others have.
pub(crate) const fn covers(some: Pins, others: Pins) -> bool {
    (some.dirty || !others.dirty) && (some.hint || !others.hint)
}

impl Shared {
    /// A record with these pins has come into the index.
    pub(crate) fn pins_came(&self, view: &View, header: &Header) {
        if view.is_unsettled() {
            let size = PinnedSize::of(header);
            self.pinned.changed(Pins::default(), view.pins(), size);
        }
    }

    /// A record with these pins has gone from the index.
    pub(crate) fn pins_went(&self, view: &View, header: &Header) {
        if view.is_unsettled() {
            let size = PinnedSize::of(header);
            self.pinned.changed(view.pins(), Pins::default(), size);
        }
    }

    /// A record with these pins has gone that nobody could read; `value` are the bytes of its value, where known.
    pub(crate) fn pins_lost(&self, view: &View, value: Option<u64>) {
        if view.is_unsettled() {
            let record = view.size.bytes() as u64;
            let size = PinnedSize {
                value: value.unwrap_or(record),
                disk: record.saturating_add(value.unwrap_or(0)),
            };
            self.pinned.changed(view.pins(), Pins::default(), size);
        }
    }

    /// How much is pinned. Exact but for records that were lost to damage since the store was opened.
    pub(crate) fn pinned_counts(&self) -> PinnedCounts {
        let (dirty, hints) = (self.index.dirty(), self.index.hints());
        let bytes = |count: u64, sum: &AtomicU64| if count == 0 { 0 } else { sum.load(Relaxed) };
        PinnedCounts {
            dirty,
            dirty_bytes: bytes(dirty, &self.pinned.dirty_bytes),
            hints,
            hint_bytes: bytes(hints, &self.pinned.hint_bytes),
        }
    }

    /// Refuses new values while what is pinned takes too much of the store: it cannot be evicted for them.
    pub(crate) fn check_pinned(&self) -> Result<()> {
        let pinned = self.pinned.disk_bytes();
        if pinned == 0 {
            return Ok(());
        }
        let (_, limit) = self.space.files_and_limit();
        let most = limit as u64 * self.geometry.segment_bytes / 100 * PINNED_PERCENT;
        if pinned > most {
            return Err(Error::OutOfSpace(
                "too much of the store waits to be copied elsewhere",
            ));
        }
        Ok(())
    }

    /// Refuses when the store takes no writes, or no values.
    pub(crate) fn check_takes_values(&self) -> Result<()> {
        self.check_writable()?;
        self.check_pinned()
    }

    /// Whether a record of this key that is not deleted has all these pins; by the index alone.
    pub(crate) fn has_pins(&self, hash: KeyHash, pins: Pins) -> bool {
        let found = self.index.find(hash);
        found
            .iter()
            .any(|view| !view.tombstone && covers(view.pins(), pins))
    }

    /// A pinned value must be as safe as its manifest: refuses it when a part found no place in a full index.
    pub(crate) fn check_pinned_parts(&self, parts: Option<&PartsOf>, pins: Pins) -> Result<()> {
        match parts {
            Some(parts) if is_any(pins) && !self.has_all_parts(parts) => {
                // Somebody who sent the same value has replaced it with other parts: that is as good.
                if self.manifest_of(parts.upload, parts.owner).is_none() {
                    return Ok(());
                }
                self.drop_incomplete(parts);
                Err(Error::OutOfSpace("the index is full"))
            }
            _ => Ok(()),
        }
    }

    /// Forgets what is pinned in namespaces that were purged: nobody can find it to settle it.
    pub(crate) fn drop_purged_pins(&self) {
        let mut from = (self.index.dirty() + self.index.hints() > 0).then_some(0);
        while let Some(next) = from {
            let names;
            (names, from) = self
                .index
                .names_from(next, AT_ONCE, true, View::is_unsettled);
            for hash in names {
                for view in self.index.find(hash).iter().filter(View::is_unsettled) {
                    if let Ok(Some((_, header))) = self.read_header(view.location)
                        && self.is_purged(header.namespace)
                    {
                        self.bury(hash, view.location, &header);
                    }
                }
            }
        }
    }
}
