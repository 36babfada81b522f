//! Changing the pins of records that lie on the disk already.
//!
//! A record is written with its pins in its header, and with those it has at that time when it moves. What changes in
//! between is written down in a *note*: the key hash and version of each record, and which pins come or go. A note says
//! up to which generation of segments the headers may not know of it; it is needed as long as one of those is in use,
//! and speaks of records in those alone. So for every copy of a record: its header, then the notes that are newer, in
//! their order. The bits in the index change when the note is synced, by the lane that writes all notes, so both agree.
//! Not here: reading notes when the store is opened (`notes`).

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use zimcache_store::{Error, Pins, Result, Version};
use zimcache_types::EntryKind;

use super::{
    lane::{Body, Outcome, Rule},
    pins::{PinnedSize, covers},
    read::ATTEMPTS,
    record::{Encoding, Header, KeyClass, Kind, flag},
    shared::{Key, LaneId, Newest, Shared},
    slot::{KeyHash, Location, View},
};

/// Most records in one note.
pub(crate) const MOST_ITEMS: usize = 2048;
/// Bytes of a record in a note: key hash, version, mark.
pub(crate) const ITEM_BYTES: usize = 28;
/// What a note begins with: which pins, and whether they come.
pub(crate) const CHANGE_BYTES: usize = 4;
/// Bit of a note that sets pins; without it they go.
const SETS: u32 = 1 << 16;
/// What the keys of notes begin with; the rest makes each its own.
const KEY_START: &[u8; 16] = b"zimcache pinning";
/// How far ahead of the newest segment a note's fence lies, and how much of that must be left once the pins have
/// changed: for segments taken by then for records whose headers still say the old.
const FENCE_AHEAD: u64 = 128;
const FENCE_LEFT: u64 = 64;
/// What comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) pins: Pins,
    /// Whether they come.
    pub(crate) set: bool,
}

/// A change of the pins of some records.
#[derive(Debug)]
pub(crate) struct PinChange {
    change: Change,
    items: Vec<PinItem>,
}

/// One record whose pins change, as it was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PinItem {
    key: Key,
    hash: KeyHash,
    version: u64,
    mark: u32,
    location: Location,
    size: PinnedSize,
}

impl Change {
    /// The pins after it.
    pub(crate) const fn of(self, pins: Pins) -> Pins {
        let Pins { dirty, hint } = self.pins;
        if self.set {
            Pins {
                dirty: pins.dirty || dirty,
                hint: pins.hint || hint,
            }
        } else {
            Pins {
                dirty: pins.dirty && !dirty,
                hint: pins.hint && !hint,
            }
        }
    }

    fn encode(self) -> u32 {
        u32::from(flag::of_pins(self.pins)) | if self.set { SETS } else { 0 }
    }

    /// Reads the start of a note.
    pub(crate) const fn decode(bits: u32) -> Change {
        Change {
            pins: Pins {
                dirty: bits & flag::DIRTY as u32 != 0,
                hint: bits & flag::HINT as u32 != 0,
            },
            set: bits & SETS != 0,
        }
    }
}

impl PinChange {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(CHANGE_BYTES + self.items.len() * ITEM_BYTES);
        bytes.put_u32_le(self.change.encode());
        for item in &self.items {
            bytes.put_u128_le(item.hash.0);
            bytes.put_u64_le(item.version);
            bytes.put_u32_le(item.mark);
        }
        bytes.freeze()
    }
}

impl Shared {
    /// The highest generation in which headers may not know of a change of pins that is written down now.
    pub(crate) fn pins_fence(&self) -> u64 {
        self.space.generation() + FENCE_AHEAD
    }

    /// Gives a record the pins it lacks, durably; `false` when it is gone, or no longer this one. With `stamp` only that
    /// version of it.
    pub(crate) async fn add_pins(
        self: &Arc<Self>,
        key: Key,
        stamp: Option<Version>,
        pins: Pins,
    ) -> Result<bool> {
        let hash = self.hash(&key);
        let change = Change { pins, set: true };
        for _ in 0..ATTEMPTS {
            let shared = Arc::clone(self);
            let find = move || shared.newest(&key, hash);
            let found = tokio::task::spawn_blocking(find).await;
            let Some(found) = found.unwrap_or(Err(Error::Stopping))? else {
                return Ok(false);
            };
            let deleted = stamp.is_none() && found.header.is_tombstone();
            if deleted || !is_meant(&found, stamp) {
                return Ok(false);
            }
            if covers(found.view.pins(), pins) {
                return Ok(true);
            }
            self.write_note(change, vec![PinItem::of(key, hash, &found)])
                .await?;
        }
        Err(Error::Retry("the record changed while it was being pinned"))
    }

    /// Takes pins off records, durably, where they still have the version named; blobs whichever they have.
    pub(crate) async fn settle_pins(
        self: &Arc<Self>,
        records: &[(Key, Version)],
        pins: Pins,
    ) -> Result<()> {
        self.check_writable()?;
        let change = Change { pins, set: false };
        for records in records.chunks(MOST_ITEMS) {
            let mut left = usize::MAX;
            for _ in 0..ATTEMPTS {
                let (shared, records) = (Arc::clone(self), records.to_vec());
                let find = move || shared.unsettled(&records, pins);
                let found = tokio::task::spawn_blocking(find).await;
                let items = found.unwrap_or(Err(Error::Stopping))?;
                left = items.len();
                if items.is_empty() {
                    break;
                }
                self.write_note(change, items).await?;
            }
            if left > 0 {
                return Err(Error::Retry(
                    "records changed while they were being settled",
                ));
            }
        }
        Ok(())
    }

    /// Which of these records have some of these pins.
    fn unsettled(&self, records: &[(Key, Version)], pins: Pins) -> Result<Vec<PinItem>> {
        let mut items = Vec::new();
        for (key, version) in records {
            let hash = self.hash(key);
            let stamp = (key.class == KeyClass::Entry).then_some(*version);
            let asked = |view: &View| {
                let Pins { dirty, hint } = view.pins();
                dirty && pins.dirty || hint && pins.hint
            };
            if !self.index.find(hash).iter().any(|view| asked(&view)) {
                continue;
            }
            let found = self.newest(key, hash)?;
            items.extend(
                found
                    .filter(|found| asked(&found.view) && is_meant(found, stamp))
                    .map(|found| PinItem::of(*key, hash, &found)),
            );
        }
        Ok(items)
    }

    /// Writes a note and waits until the pins have changed. Whoever asked looks whether they have: a record may have
    /// moved on meanwhile, or be held.
    async fn write_note(&self, change: Change, items: Vec<PinItem>) -> Result<()> {
        if self.is_any_held(&items) {
            // Blobs are written by these two.
            self.settle(LaneId::Small).await?;
            self.settle(LaneId::Bulk).await?;
        }
        loop {
            let items = items.clone();
            let note = PinChange { change, items };
            let payload = note.encode();
            let header = self.note_header(payload.len());
            let (hash, fence) = (self.hash(&Key::of(&header)), self.pins_fence());
            let (body, rule) = (Body::Pieces(vec![payload]), Rule::Pins(Box::new(note)));
            let written = self
                .write(LaneId::Entries, hash, header, body, rule)
                .await?;
            debug_assert!(
                matches!(written, Outcome::Written(_)),
                "a note is never refused"
            );
            // So many segments came into use meanwhile that some may hold old headers behind the fence: once more.
            if self.space.generation() + FENCE_LEFT <= fence {
                return Ok(());
            }
        }
    }

    fn is_any_held(&self, items: &[PinItem]) -> bool {
        let held = self.pinned.held();
        !held.is_empty() && items.iter().any(|item| held.contains(&item.hash))
    }

    fn note_header(&self, bytes: usize) -> Header {
        let mut key = [0; 32];
        key[..16].copy_from_slice(KEY_START);
        key[16..].copy_from_slice(&self.new_upload_id());
        Header {
            kind: Kind::Entry,
            function: EntryKind::Internal.number(),
            encoding: Encoding::Identity,
            flags: flag::PINS,
            namespace: 0,
            part: 0,
            stored: bytes as u32,
            raw_size: 0,
            version: 0,
            writer: 0,
            writing: 0,
            key,
        }
    }

    /// Changes the pins a synced note names. Only the lane of entries does, so they change in the order of the notes.
    pub(crate) fn apply_pins(&self, note: &PinChange) -> Result<()> {
        for item in &note.items {
            self.apply_to(item, note.change)?;
        }
        Ok(())
    }

    fn apply_to(&self, item: &PinItem, change: Change) -> Result<()> {
        let mut location = item.location;
        for _ in 0..ATTEMPTS {
            let held = self.pinned.held();
            if held.contains(&item.hash) {
                return Ok(());
            }
            let set = |view: &mut View| view.set_pins(change.of(view.pins()));
            let changed = self.index.change(item.hash, location, set);
            drop(held);
            if let Some((before, after)) = changed {
                self.pinned.changed(before.pins(), after.pins(), item.size);
                return Ok(());
            }
            match self.newest(&item.key, item.hash)? {
                Some(found) if item.is_of(&found.header) => location = found.view.location,
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Whether a record found is the one that was meant.
fn is_meant(found: &Newest, stamp: Option<Version>) -> bool {
    stamp.is_none_or(|stamp| found.header.stamp() == stamp)
}

impl PinItem {
    fn is_of(&self, header: &Header) -> bool {
        (header.version, header.mark()) == (self.version, self.mark)
    }

    fn of(key: Key, hash: KeyHash, found: &Newest) -> PinItem {
        PinItem {
            key,
            hash,
            version: found.header.version,
            mark: found.header.mark(),
            location: found.view.location,
            size: PinnedSize::of(&found.header),
        }
    }
}
