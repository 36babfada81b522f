//! Manifests: which parts make up a large value, and what becomes of the value when one of them is gone.
//!
//! A part's key holds the upload's id and whose value it is, so a part leads back to its manifest. A manifest of which
//! a part is missing is forgotten with the other parts: what is left of a value must never look present. Not here:
//! reading the bytes of the parts (`value`), evicting them (`verdict`).

use super::{
    entry_front::front_len,
    read::{Loaded, read_whole},
    record::{self, Header, KeyClass},
    segment::Segment,
    shared::{Key, Newest, Shared},
    slot::{KeyHash, Location, View},
};

/// Bytes of [`PartsOf`] in a manifest, and of what format 1 had of it: all but the length of the zstd form.
const ENCODED: usize = 28;
const ENCODED_IN_FORMAT_1: usize = 20;

/// Which parts make up a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartsOf {
    pub(crate) upload: [u8; 16],
    pub(crate) part_bytes: u32,
    pub(crate) total: u64,
    /// Bytes of all parts as zstd frames, those that are stored as they came wrapped in one; 0: none or not known.
    pub(crate) zstd_bytes: u64,
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
        bytes[..8].copy_from_slice(&self.zstd_bytes.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.upload);
        bytes[24..].copy_from_slice(&self.part_bytes.to_le_bytes());
        bytes
    }

    /// Reads the end of a manifest's payload.
    pub(crate) fn decode(payload: &[u8], owner: KeyHash, header: &Header) -> Option<PartsOf> {
        let front = match header.kind {
            record::Kind::EntryManifest => front_len(payload)?,
            _ => 0,
        };
        let (zstd_bytes, bytes) = match payload.get(front..)? {
            all if all.len() == ENCODED => {
                (u64::from_le_bytes(all[..8].try_into().ok()?), &all[8..])
            }
            all if all.len() == ENCODED_IN_FORMAT_1 => (0, all),
            _ => return None,
        };
        let part_bytes = u32::from_le_bytes(bytes[16..].try_into().ok()?);
        if part_bytes == 0 || part_bytes as usize > record::MAX_PAYLOAD {
            return None;
        }
        Some(PartsOf {
            upload: bytes[..16].try_into().ok()?,
            part_bytes,
            total: header.raw_size,
            zstd_bytes,
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
            let total = Some(parts.total);
            let gone = self.forget_sized(parts.owner, manifest.location, total);
            if gone.is_some() {
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
        // Held to the end: who starts to read finds all of them, or none.
        let reading = self.reading.lock();
        if reading.contains_key(&parts.upload) {
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
