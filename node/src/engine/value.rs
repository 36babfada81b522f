//! Values too large for one read: a large record, or the parts of a manifest, read chunk by chunk.
//!
//! A part is found through the index for every chunk that starts in it, so parts may be moved while a value is being
//! read. Losing one part loses the value: the manifest goes, and the reader's stream ends with an error.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_store::{ChunkSource, Error, Result};

use super::{
    checksum::{CHECKED_BLOCK, crc},
    read::{Loaded, Lookup, Wait, read_around_cache, read_file, read_whole},
    record::{self, Header, KeyClass},
    segment::Segment,
    shared::{Key, Newest, Shared},
    slot::{KeyHash, Location, View},
};

/// Most bytes of one chunk: small enough that what was read is still in the processor's cache when it is sent.
const CHUNK_BYTES: u64 = 256 << 10;
/// Bytes of [`PartsOf`] in a manifest.
pub(crate) const ENCODED: usize = 20;

/// Which parts make up a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartsOf {
    pub(crate) upload: [u8; 16],
    pub(crate) part_bytes: u32,
    pub(crate) total: u64,
    /// Version of the manifest; 0 while there is none.
    pub(crate) version: u64,
    pub(crate) namespace: u32,
    pub(crate) function: u8,
    /// Hash of the key whose value this is.
    pub(crate) owner: KeyHash,
}

impl PartsOf {
    /// What a manifest's payload holds of it; the rest is in the record's header.
    pub(crate) fn encode(&self) -> [u8; ENCODED] {
        let mut bytes = [0; ENCODED];
        bytes[..16].copy_from_slice(&self.upload);
        bytes[16..].copy_from_slice(&self.part_bytes.to_le_bytes());
        bytes
    }

    /// Reads the end of a manifest's payload.
    pub(crate) fn decode(payload: &[u8], owner: KeyHash, header: &Header) -> Option<PartsOf> {
        let bytes = payload.get(payload.len().checked_sub(ENCODED)?..)?;
        let part_bytes = u32::from_le_bytes(bytes[16..].try_into().ok()?);
        if part_bytes == 0 || part_bytes as usize > record::MAX_PAYLOAD {
            return None;
        }
        Some(PartsOf {
            upload: bytes[..16].try_into().ok()?,
            part_bytes,
            total: header.raw_size,
            version: header.version,
            namespace: header.namespace,
            function: header.function,
            owner,
        })
    }

    /// How many parts there are.
    pub(crate) const fn count(&self) -> u32 {
        self.total.div_ceil(self.part_bytes as u64) as u32
    }

    /// The key of a part.
    pub(crate) fn key(&self, part: u32) -> Key {
        Key {
            class: KeyClass::Part,
            function: self.function,
            namespace: self.namespace,
            part,
            bytes: part_key(self.upload, self.owner),
        }
    }
}

/// Reads from a manifest record which parts it has, waiting for the disk.
pub(crate) fn read_parts_of(
    segment: &Segment,
    location: Location,
    owner: KeyHash,
    header: &Header,
) -> Option<PartsOf> {
    let read = read_whole(segment, location.offset, header.record_len());
    let (header, payload) = read.ok().flatten()?;
    PartsOf::decode(&payload, owner, &header)
}

/// The key of an upload's parts: upload id, and whose value it is.
pub(crate) fn part_key(upload: [u8; 16], owner: KeyHash) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&upload);
    key[16..].copy_from_slice(&owner.0.to_le_bytes());
    key
}

/// The inverse of [`part_key`].
pub(crate) fn split_part_key(key: &[u8; 32]) -> ([u8; 16], KeyHash) {
    let (mut upload, mut owner) = ([0; 16], [0; 16]);
    upload.copy_from_slice(&key[..16]);
    owner.copy_from_slice(&key[16..]);
    (upload, KeyHash(u128::from_le_bytes(owner)))
}

impl Shared {
    /// Forgets the parts of a value whose manifest was replaced or deleted.
    pub(crate) fn forget_parts(&self, manifest: &Newest) {
        let has_parts = matches!(
            manifest.header.kind,
            record::Kind::Manifest | record::Kind::EntryManifest
        );
        if !has_parts || manifest.header.is_tombstone() {
            return;
        }
        let hash = self.hash(&Key::of(&manifest.header));
        if let Some(parts) = read_parts_of(
            &manifest.segment,
            manifest.view.location,
            hash,
            &manifest.header,
        ) {
            self.forget_all_parts(&parts);
        }
    }

    /// The visible manifest of an upload.
    pub(crate) fn manifest_of(&self, upload: [u8; 16], owner: KeyHash) -> Option<(View, PartsOf)> {
        for view in self.index.find(owner).iter().filter(|view| !view.tombstone) {
            let Ok(Some((segment, header))) = self.read_header(view.location) else {
                continue;
            };
            if !matches!(
                header.kind,
                record::Kind::Manifest | record::Kind::EntryManifest
            ) {
                continue;
            }
            let parts = read_parts_of(&segment, view.location, owner, &header);
            if let Some(parts) = parts.filter(|parts| parts.upload == upload) {
                return Some((view, parts));
            }
        }
        None
    }

    /// Whether a record found is all of its value: a manifest some of whose parts are gone is dropped.
    pub(crate) fn is_whole(&self, hash: KeyHash, loaded: &Loaded) -> bool {
        let is_manifest = matches!(
            loaded.header.kind,
            record::Kind::Manifest | record::Kind::EntryManifest
        );
        let parts = PartsOf::decode(&loaded.payload(), hash, &loaded.header);
        match parts.filter(|_| is_manifest) {
            Some(parts) if !self.has_all_parts(&parts) => {
                self.drop_incomplete(&parts);
                false
            }
            Some(_) => {
                self.index
                    .update(hash, loaded.view.location, |view| view.unchecked = false);
                true
            }
            None => !is_manifest,
        }
    }

    /// Forgets a value of which parts are gone.
    pub(crate) fn drop_incomplete(&self, parts: &PartsOf) {
        while let Some((manifest, _)) = self.manifest_of(parts.upload, parts.owner) {
            if self.forget(parts.owner, manifest.location).is_some() {
                self.ledger.sub_value(manifest.kind, parts);
                tracing::debug!(
                    total = parts.total,
                    "a value of which parts were evicted is forgotten"
                );
            }
        }
        self.forget_all_parts(parts);
    }

    /// Whether every part has a slot.
    pub(crate) fn has_all_parts(&self, parts: &PartsOf) -> bool {
        let there = |part| {
            self.index
                .find(self.hash(&parts.key(part)))
                .iter()
                .next()
                .is_some()
        };
        (0..parts.count()).all(there)
    }

    /// Forgets the slots of these parts, unless somebody is reading them; then reclaim finds them later.
    pub(crate) fn forget_all_parts(&self, parts: &PartsOf) {
        if self.reading.lock().contains_key(&parts.upload) {
            return;
        }
        for part in 0..parts.count() {
            let hash = self.hash(&parts.key(part));
            for view in self.index.find(hash).iter() {
                self.forget(hash, view.location);
            }
        }
    }
}

/// A record whose payload is read in chunks.
#[derive(Debug, Clone)]
struct Extent {
    segment: Arc<Segment>,
    header: Header,
    location: Location,
    sums: Bytes,
}

impl Extent {
    fn of(loaded: &Loaded) -> Extent {
        Extent {
            segment: Arc::clone(&loaded.segment),
            header: loaded.header,
            location: loaded.view.location,
            sums: loaded
                .record
                .slice(record::HEADER..loaded.header.payload_offset()),
        }
    }

    /// Verified payload bytes from `from`, at most up to `to`; `None` when that would wait and must not.
    fn read(&self, shared: &Shared, from: u64, to: u64, wait: Wait) -> Result<Option<Bytes>> {
        let block = CHECKED_BLOCK as u64;
        let start = from / block * block;
        let stored = u64::from(self.header.stored);
        let end = to
            .div_ceil(block)
            .saturating_mul(block)
            .min(start + CHUNK_BYTES)
            .min(stored);
        let at = self.location.offset + self.header.payload_offset() as u64 + start;
        let length = (end - start) as usize;
        let read = shared
            .buffers
            .read(length, |buffer| read_file(&self.segment, buffer, at, wait));
        let Some(bytes) = read.map_err(|error| Error::disk("read a value", error))? else {
            return Ok(None);
        };
        let bytes = if self.passes(&bytes, start, length) {
            bytes
        } else if wait == Wait::No {
            return Ok(None);
        } else {
            let again = read_around_cache(&self.segment, at, length);
            let again = again.map_err(|error| Error::disk("read a value again", error))?;
            again
                .filter(|bytes| self.passes(bytes, start, length))
                .ok_or(Error::Corrupt("a stored block fails its checksum"))?
        };
        Ok(Some(bytes.slice(
            (from - start) as usize..(to.min(end) - start) as usize,
        )))
    }

    fn passes(&self, bytes: &[u8], start: u64, length: usize) -> bool {
        let first = start as usize / CHECKED_BLOCK;
        let sums = self.sums[first * 4..].chunks_exact(4);
        bytes.len() == length
            && bytes
                .chunks(CHECKED_BLOCK)
                .zip(sums)
                .all(|(block, sum)| crc(block).to_le_bytes() == sum)
    }
}

/// A large blob in one record.
#[derive(Debug)]
pub(crate) struct RecordSource {
    shared: Arc<Shared>,
    hash: KeyHash,
    extent: Extent,
}

impl RecordSource {
    pub(crate) fn new(shared: Arc<Shared>, hash: KeyHash, loaded: &Loaded) -> RecordSource {
        RecordSource {
            shared,
            hash,
            extent: Extent::of(loaded),
        }
    }
}

impl ChunkSource for RecordSource {
    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>> {
        self.extent.read(&self.shared, position, end, Wait::No)
    }

    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes> {
        let read = self.extent.read(&self.shared, position, end, Wait::Yes);
        if matches!(read, Err(Error::Corrupt(_))) {
            self.shared.lose(self.hash, self.extent.location, "payload");
        }
        read?.ok_or(Error::Corrupt("a read that waits came back empty"))
    }
}

/// A value in parts.
#[derive(Debug)]
pub(crate) struct PartsSource {
    shared: Arc<Shared>,
    parts: PartsOf,
    current: Mutex<Option<(u32, Extent)>>,
}

impl PartsSource {
    pub(crate) fn new(shared: Arc<Shared>, parts: PartsOf) -> PartsSource {
        *shared.reading.lock().entry(parts.upload).or_default() += 1;
        PartsSource {
            shared,
            parts,
            current: Mutex::new(None),
        }
    }

    fn read(&self, position: u64, end: u64, wait: Wait) -> Result<Option<Bytes>> {
        let part_bytes = u64::from(self.parts.part_bytes);
        let part = (position / part_bytes) as u32;
        let Some(extent) = self.extent(part, wait)? else {
            return Ok(None);
        };
        let base = u64::from(part) * part_bytes;
        let to = (end - base).min(u64::from(extent.header.stored));
        if position - base >= to {
            return Err(self.lose_value("a part is shorter than its manifest says"));
        }
        match extent.read(&self.shared, position - base, to, wait) {
            Err(Error::Corrupt(what)) => {
                self.shared.lose(
                    self.shared.hash(&self.parts.key(part)),
                    extent.location,
                    "part",
                );
                Err(self.lose_value(what))
            }
            other => other,
        }
    }

    fn extent(&self, part: u32, wait: Wait) -> Result<Option<Extent>> {
        if let Some((number, extent)) = &*self.current.lock()
            && *number == part
        {
            return Ok(Some(extent.clone()));
        }
        let key = self.parts.key(part);
        let touch = self.shared.touch_now(false);
        match self
            .shared
            .look_up(&key, self.shared.hash(&key), Some(touch), wait)?
        {
            Lookup::Found(loaded) => {
                let extent = Extent::of(&loaded);
                *self.current.lock() = Some((part, extent.clone()));
                Ok(Some(extent))
            }
            Lookup::WouldWait => Ok(None),
            Lookup::Absent => Err(self.lose_value("a part is missing")),
        }
    }

    /// One part is gone, so the value is: its manifest must not be found again.
    pub(crate) fn lose_value(&self, what: &'static str) -> Error {
        let (upload, owner) = (self.parts.upload, self.parts.owner);
        while let Some((manifest, _)) = self.shared.manifest_of(upload, owner) {
            self.shared.lose(owner, manifest.location, what);
        }
        Error::Corrupt(what)
    }
}

impl Drop for PartsSource {
    fn drop(&mut self) {
        let mut reading = self.shared.reading.lock();
        if let Some(readers) = reading.get_mut(&self.parts.upload) {
            *readers -= 1;
            if *readers == 0 {
                reading.remove(&self.parts.upload);
            }
        }
    }
}

impl ChunkSource for PartsSource {
    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>> {
        self.read(position, end, Wait::No)
    }

    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes> {
        self.read(position, end, Wait::Yes)?
            .ok_or(Error::Corrupt("a read that waits came back empty"))
    }
}
