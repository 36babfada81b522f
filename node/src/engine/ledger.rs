//! What is held, by namespace and kind: a counter per pair, changed with every value that comes or goes.
//!
//! Values are counted, not records: a blob in parts is one blob, at its manifest. The counters follow the index but for
//! slots that vanish without their record being read (damage, an index at its ceiling); what that adds up to is taken
//! off in proportion when somebody asks, and opening the store counts anew.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use zimcache_store::{Usage, UsageKind};
use zimcache_types::{EntryKind, Namespace};

use super::{
    manifest::PartsOf,
    record::{Header, Kind},
    shared::Shared,
    slot,
};

/// One counter: whose, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    namespace: u32,
    /// The number of the entry kind; `None` for blobs.
    entry: Option<u8>,
}

impl Row {
    /// Where a record's value is counted, and its bytes; `None` for records that are not values of their own.
    fn of(header: &Header) -> Option<(Row, u64)> {
        let entry = match header.kind {
            _ if header.is_tombstone() || header.is_note() => return None,
            Kind::Blob | Kind::Manifest => None,
            Kind::Entry | Kind::EntryManifest => Some(header.function),
            Kind::Part | Kind::Namespace => return None,
        };
        let namespace = header.namespace;
        Some((Row { namespace, entry }, header.raw_size))
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    count: u64,
    bytes: u64,
}

/// All counters.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: Mutex<HashMap<Row, Held>>,
    /// The store's own notes: nobody's values, but slots of the index like those of entries.
    notes: AtomicU64,
}

impl Ledger {
    /// A record was published.
    pub(crate) fn add(&self, header: &Header) {
        self.notes.fetch_add(u64::from(header.is_note()), Relaxed);
        if let Some((row, bytes)) = Row::of(header) {
            let mut rows = self.rows.lock();
            let held = rows.entry(row).or_default();
            held.count += 1;
            held.bytes = held.bytes.saturating_add(bytes);
        }
    }

    /// A record that was published is gone from the index.
    pub(crate) fn sub(&self, header: &Header) {
        self.notes.fetch_sub(u64::from(header.is_note()), Relaxed);
        if let Some((row, bytes)) = Row::of(header) {
            self.take(row, bytes);
        }
    }

    /// A value in parts is gone from the index.
    pub(crate) fn sub_value(&self, manifest: slot::Kind, parts: &PartsOf) {
        let entry = (manifest == slot::Kind::Entry).then_some(parts.function);
        let namespace = parts.namespace;
        self.take(Row { namespace, entry }, parts.total);
    }

    fn take(&self, row: Row, bytes: u64) {
        let mut rows = self.rows.lock();
        if let Some(held) = rows.get_mut(&row) {
            held.count = held.count.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(bytes);
            if held.count == 0 {
                rows.remove(&row);
            }
        }
    }

    /// How many slots are of notes.
    pub(crate) fn notes(&self) -> u64 {
        self.notes.load(Relaxed)
    }

    /// Bytes of values in a namespace.
    pub(crate) fn bytes_of(&self, namespace: u32) -> u64 {
        let rows = self.rows.lock();
        let own = rows.iter().filter(|(row, _)| row.namespace == namespace);
        own.fold(0, |sum, (_, held)| sum.saturating_add(held.bytes))
    }
}

impl Shared {
    /// What is held, by namespace and kind.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        let names: HashMap<u32, Namespace> = self
            .namespaces
            .read()
            .iter()
            .map(|(name, number)| (*number, name.clone()))
            .collect();
        let rows: Vec<(Row, Held)> = self
            .ledger
            .rows
            .lock()
            .iter()
            .map(|(row, held)| (*row, *held))
            .collect();
        let counted = |entries: bool| -> u64 {
            let same = rows
                .iter()
                .filter(|(row, _)| row.entry.is_some() == entries);
            same.map(|(_, held)| held.count).sum()
        };
        let blobs = Share::new(self.blob_count(), counted(false));
        let entries = Share::new(self.entry_count(), counted(true));
        let mut usage = BTreeMap::new();
        for (row, held) in rows {
            let (kind, share) = match row.entry {
                None => (Some(UsageKind::Blob), blobs),
                Some(number) => (
                    EntryKind::from_number(number).map(UsageKind::Entry),
                    entries,
                ),
            };
            let (Some(kind), Some(namespace)) = (kind, names.get(&row.namespace)) else {
                continue;
            };
            usage.insert(
                (namespace.clone(), kind),
                (share.of(held.count), share.of(held.bytes)),
            );
        }
        let rows = usage.into_iter();
        rows.map(|((namespace, kind), (count, bytes))| Usage {
            namespace,
            kind,
            count,
            bytes,
        })
        .collect()
    }
}

/// What the index holds of what was counted: less where slots vanished unread.
#[derive(Debug, Clone, Copy)]
struct Share {
    held: u64,
    counted: u64,
}

impl Share {
    fn new(held: u64, counted: u64) -> Share {
        let held = held.min(counted);
        Share { held, counted }
    }

    fn of(self, amount: u64) -> u64 {
        if self.held == self.counted {
            return amount;
        }
        let scaled = u128::from(amount) * u128::from(self.held) / u128::from(self.counted.max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}
