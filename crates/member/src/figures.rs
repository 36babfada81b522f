//! What a member counts of replication. Plain atomics, read when the metrics page is made.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a member did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Records fetched from other nodes.
    pub copied: u64,
    /// Bytes of them.
    pub copied_bytes: u64,
    /// Records that could not be fetched; they are asked for again.
    pub copies_failed: u64,
    /// Hinted records that every owner holds now.
    pub hints_delivered: u64,
    /// Copies that new owners took at ring changes.
    pub handed_over: u64,
    /// Copies that members with a new disk took.
    pub refilled: u64,
}

/// The counters behind [`Figures`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    copied: AtomicU64,
    copied_bytes: AtomicU64,
    copies_failed: AtomicU64,
    hints_delivered: AtomicU64,
    handed_over: AtomicU64,
    refilled: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn copied(&self, bytes: u64) {
        add(&self.copied, 1);
        add(&self.copied_bytes, bytes);
    }

    pub(crate) fn copy_failed(&self) {
        add(&self.copies_failed, 1);
    }

    pub(crate) fn hints_delivered(&self, records: usize) {
        add(&self.hints_delivered, records as u64);
    }

    pub(crate) fn handed_over(&self, copies: usize) {
        add(&self.handed_over, copies as u64);
    }

    pub(crate) fn refilled(&self, copies: usize) {
        add(&self.refilled, copies as u64);
    }

    pub(crate) fn read(&self) -> Figures {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            copied: get(&self.copied),
            copied_bytes: get(&self.copied_bytes),
            copies_failed: get(&self.copies_failed),
            hints_delivered: get(&self.hints_delivered),
            handed_over: get(&self.handed_over),
            refilled: get(&self.refilled),
        }
    }
}
