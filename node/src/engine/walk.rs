//! Walks through the records of a store: the next few in the order of their names in the index, whatever comes, goes or
//! moves meanwhile.
//!
//! An index at rest is gone through once in all; while nothing is pinned a walk for what is pinned looks at nothing, and
//! otherwise only at the shards that have something pinned. Each record met costs one read of its header, in the order
//! in which they lie. Not here: the contract (`replica`).

use std::{collections::HashMap, sync::Arc};

use zimcache_store::{Error, RecordInfo, RecordKey, RecordKind, Result, Version, Walk, WalkMark};
use zimcache_types::{EntryKind, Function, Namespace, Timestamp};

use super::{
    entries::id_of_text,
    entry_front::Front,
    leases::LeaseClock,
    read::{ATTEMPTS, read_whole},
    record::{Header, Kind},
    segment::Segment,
    shared::{Key, Shared, TICK_MILLIS},
    slot::{self, KeyHash, View},
};

/// A walk, for one step.
pub(crate) struct Walking {
    shared: Arc<Shared>,
    which: Walk,
    clock: LeaseClock,
    rooms: HashMap<u32, Namespace>,
}

impl Walking {
    pub(crate) fn new(shared: Arc<Shared>, which: Walk) -> Walking {
        let names = shared.namespaces.read();
        let rooms = names.iter().map(|(name, number)| (*number, name.clone()));
        let rooms = rooms.collect();
        drop(names);
        Walking {
            clock: shared.lease_clock(),
            shared,
            which,
            rooms,
        }
    }

    /// The next records, at most `limit`, and where to go on.
    pub(crate) fn step(
        &self,
        after: Option<WalkMark>,
        limit: usize,
    ) -> Result<(Vec<RecordInfo>, Option<WalkMark>)> {
        let mut from = self.is_any().then_some(after.map_or(0, |mark| mark.0));
        let mut rows = Vec::new();
        while let Some(next) = from
            && rows.len() < limit
        {
            let (index, most) = (&self.shared.index, limit - rows.len());
            let pinned = self.which != Walk::All;
            let names;
            (names, from) = index.names_from(next, most, pinned, |view| self.wants(view));
            self.read(names, &mut rows)?;
        }
        Ok((rows, from.map(WalkMark)))
    }

    fn is_any(&self) -> bool {
        match self.which {
            Walk::All => true,
            Walk::Dirty => self.shared.index.dirty() > 0,
            Walk::Hinted => self.shared.index.hints() > 0,
        }
    }

    fn wants(&self, view: &View) -> bool {
        match self.which {
            Walk::All => view.kind != slot::Kind::Part,
            Walk::Dirty => view.dirty,
            Walk::Hinted => view.hint,
        }
    }

    /// Reads what these names stand for, in the order in which it lies.
    fn read(&self, mut names: Vec<KeyHash>, rows: &mut Vec<RecordInfo>) -> Result<()> {
        names.sort_by_cached_key(|hash| {
            let first = self.shared.index.find(*hash).iter().next();
            first.map(|view| (view.location.segment, view.location.offset))
        });
        for hash in names {
            rows.extend(self.records(hash)?);
        }
        Ok(())
    }

    /// The records behind a name: one, but for equal fingerprints. Looked up anew, as records move meanwhile.
    fn records(&self, hash: KeyHash) -> Result<Vec<RecordInfo>> {
        for _ in 0..ATTEMPTS {
            let (mut rows, mut moved) = (Vec::new(), false);
            let found = self.shared.index.find(hash);
            for view in found.iter().filter(|view| self.wants(view)) {
                let read = self.shared.read_header(view.location);
                match read.map_err(|error| Error::disk("walk through the records", error))? {
                    Some((segment, header))
                        if self.shared.hash(&Key::of(&header)).resembles(hash) =>
                    {
                        rows.extend(self.row(&segment, &view, &header)?);
                    }
                    Some(_) => moved = true,
                    None => {
                        self.shared.forget_if_unreadable(hash, view.location);
                        moved = true;
                    }
                }
            }
            if !moved {
                return Ok(rows);
            }
        }
        Err(Error::Retry("a record moves faster than it can be read"))
    }

    /// What is told of a record; `None` of what is none of its own, or not served any more.
    fn row(&self, segment: &Segment, view: &View, header: &Header) -> Result<Option<RecordInfo>> {
        let Some(namespace) = self.rooms.get(&header.namespace) else {
            return Ok(None);
        };
        let kind = match header.kind {
            Kind::Blob | Kind::Manifest => {
                Function::from_number(header.function).map(RecordKind::Blob)
            }
            Kind::Entry | Kind::EntryManifest if !header.is_note() => {
                EntryKind::from_number(header.function).map(RecordKind::Entry)
            }
            _ => None,
        };
        let served = view.is_unsettled() || !self.shared.is_over(header, view);
        let Some(kind) = kind.filter(|_| served) else {
            return Ok(None);
        };
        let internal = kind == RecordKind::Entry(EntryKind::Internal);
        if internal && !is_somebodys(segment, view, header)? {
            return Ok(None);
        }
        let age = u64::from(self.clock.age(view.touch)) * TICK_MILLIS;
        Ok(Some(RecordInfo {
            key: RecordKey {
                namespace: namespace.clone(),
                kind,
                id: header.key,
            },
            size_bytes: if view.tombstone { 0 } else { header.raw_size },
            version: match kind {
                RecordKind::Blob(_) => Version::default(),
                RecordKind::Entry(_) => header.stamp(),
            },
            deleted: view.tombstone,
            pins: view.pins(),
            used: Timestamp(self.shared.clock.now().0.saturating_sub(age)),
        }))
    }
}

/// Whether an internal entry was put by somebody: what the store writes for itself has no key text.
fn is_somebodys(segment: &Segment, view: &View, header: &Header) -> Result<bool> {
    if header.is_tombstone() {
        return Ok(header.writer != 0);
    }
    let read = read_whole(segment, view.location.offset, header.record_len());
    let read = read.map_err(|error| Error::disk("walk through the records", error))?;
    Ok(read.is_some_and(|(header, payload)| {
        let front = Front::decode(&payload);
        front.is_some_and(|(front, _)| id_of_text(&front.text) == header.key)
    }))
}
