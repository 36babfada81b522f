//! The entry contract over the engine.
//!
//! Versions are given by the lane of entries, so the order of puts and deletes of a key is the lane's. Not here: writing
//! an entry (`entry_writer`).

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{
    ByteRange, Entry, EntryInfo, EntryMeta, EntryStore, EntryWriter, Error, Precondition, Reader,
    Result,
};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Namespace, Timestamp};

use super::{
    blobs::tombstone,
    encoded::EncodedSource,
    entry_front::Front,
    entry_writer::Writer,
    lane::{Body, Outcome, Rule},
    manifest::PartsOf,
    namespaces::Fresh,
    read::{ATTEMPTS, Loaded, Lookup, Wait},
    record::{Encoding, Header, KeyClass, Kind},
    shared::{Key, LaneId, Shared},
    slot::{self, KeyHash, Location},
};

/// Entries on the engine.
#[derive(Debug, Clone)]
pub(crate) struct Entries(pub(crate) Arc<Shared>);

pub(crate) fn entry_key(namespace: u32, key: &EntryKey) -> Key {
    Key {
        class: KeyClass::Entry,
        function: key.kind.number(),
        namespace,
        part: 0,
        bytes: id_of_text(&key.text),
    }
}

/// What names a key text in a record's key.
pub(crate) fn id_of_text(text: &str) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(
        Digest::of(Function::Sha256, text.as_bytes())
            .hash
            .as_bytes(),
    );
    id
}

#[async_trait]
impl EntryStore for Entries {
    async fn get(&self, key: &EntryKey, range: ByteRange) -> Result<Option<Entry>> {
        let Some(number) = self.0.namespace_number(&key.namespace) else {
            return Ok(None);
        };
        let key = entry_key(number, key);
        let hash = self.0.hash(&key);
        let touch = Some(self.0.lease_clock());
        let Some(loaded) = self.0.load(key, hash, touch).await? else {
            return Ok(None);
        };
        if self.0.is_over(&loaded.header, &loaded.view) {
            return Ok(None);
        }
        self.entry(hash, &loaded, range)
    }

    async fn put(
        &self,
        key: &EntryKey,
        meta: EntryMeta,
        precondition: Precondition,
        limit_bytes: Option<u64>,
    ) -> Result<Box<dyn EntryWriter>> {
        let shared = &self.0;
        check_meta(&meta)?;
        shared.check_takes_values()?;
        let number = shared.namespace_for_writing(&key.namespace).await?;
        let rule = match precondition {
            Precondition::None => Rule::Newest,
            Precondition::Absent => Rule::IfAbsent,
        };
        let front = Front {
            created: Timestamp(0),
            text: key.text.clone(),
            meta,
        };
        let key = entry_key(number, key);
        Ok(Box::new(Writer::start(
            shared,
            key,
            front,
            rule,
            limit_bytes,
        )))
    }

    async fn delete(&self, key: &EntryKey) -> Result<bool> {
        let Some(number) = self.0.namespace_number(&key.namespace) else {
            return Ok(false);
        };
        let key = entry_key(number, key);
        let header = tombstone(&key);
        let (hash, body) = (self.0.hash(&key), Body::Pieces(Vec::new()));
        let found = self.0.load(key, hash, None).await?;
        let expired = found.is_some_and(|found| self.0.is_over(&found.header, &found.view));
        let outcome = self
            .0
            .write(LaneId::Entries, hash, header, body, Rule::IfPresent)
            .await?;
        Ok(outcome != Outcome::Refused && !expired)
    }

    async fn list(
        &self,
        namespace: &Namespace,
        kind: EntryKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EntryInfo>> {
        let Some(number) = self.0.namespace_number(namespace) else {
            return Ok(Vec::new());
        };
        let listing = Listing {
            shared: Arc::clone(&self.0),
            namespace: number,
            kind,
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
        };
        let listed = tokio::task::spawn_blocking(move || listing.run()).await;
        listed.unwrap_or(Err(Error::Stopping))
    }

    async fn purge(&self, namespace: &Namespace) -> Result<()> {
        if self.0.namespace_number(namespace).is_some() {
            self.0.number_namespace(namespace, Fresh::Yes).await?;
            let shared = Arc::clone(&self.0);
            let dropping = move || shared.drop_purged_pins();
            let dropped = tokio::task::spawn_blocking(dropping).await;
            return dropped.map_err(|_| Error::Stopping);
        }
        Ok(())
    }
}

/// Refuses more metadata than an entry may carry.
pub(crate) fn check_meta(meta: &EntryMeta) -> Result<()> {
    let (size, limit) = (meta.size_bytes(), EntryMeta::MAX_BYTES);
    if size > limit {
        return Err(Error::MetadataTooLarge { size, limit });
    }
    Ok(())
}

impl Entries {
    fn entry(&self, hash: KeyHash, loaded: &Loaded, range: ByteRange) -> Result<Option<Entry>> {
        let opened = self.0.open_entry(hash, loaded, range)?;
        Ok(opened.map(|(front, value)| Entry {
            version: loaded.header.version,
            created: front.created,
            meta: front.meta,
            value,
        }))
    }
}

impl Shared {
    /// An entry's front and its value; `None` when parts of that were lost.
    pub(crate) fn open_entry(
        self: &Arc<Self>,
        hash: KeyHash,
        loaded: &Loaded,
        range: ByteRange,
    ) -> Result<Option<(Front, Reader)>> {
        let payload = loaded.payload();
        let (front, value_at) =
            Front::decode(&payload).ok_or(Error::Corrupt("an entry's front does not parse"))?;
        let value = if loaded.header.kind == Kind::EntryManifest {
            let parts = PartsOf::decode(&payload, hash, &loaded.header)
                .ok_or(Error::Corrupt("an entry's manifest does not parse"))?;
            let Some(reader) = self.parts_reader(parts, range)? else {
                return Ok(None);
            };
            reader
        } else {
            let value = payload.slice(value_at..);
            self.inline_value(hash, loaded, value, range)?
        };
        Ok(Some((front, value)))
    }

    fn inline_value(
        self: &Arc<Self>,
        hash: KeyHash,
        loaded: &Loaded,
        value: Bytes,
        range: ByteRange,
    ) -> Result<Reader> {
        if loaded.header.encoding == Encoding::Identity {
            let range = range.resolve(value.len() as u64)?;
            return Ok(Reader::from_bytes_range(&value, range));
        }
        let total = loaded.header.raw_size;
        let range = range.resolve(total)?;
        let source = EncodedSource::of_entry(Arc::clone(self), hash, loaded, value);
        Ok(Reader::from_source(Arc::new(source), total, range))
    }
}

/// A listing under way. Reads every entry record of the store: slow, and off the async threads.
struct Listing {
    shared: Arc<Shared>,
    namespace: u32,
    kind: EntryKind,
    prefix: String,
    after: Option<String>,
    limit: usize,
}

impl Listing {
    fn run(self) -> Result<Vec<EntryInfo>> {
        let mut slots: Vec<(Location, KeyHash)> = Vec::new();
        self.shared.index.for_each(|hash, view| {
            if view.kind == slot::Kind::Entry && !view.tombstone {
                slots.push((view.location, hash));
            }
        });
        slots.sort_by_key(|(location, _)| (location.segment, location.offset));
        let mut rows = BTreeMap::new();
        for (_, hash) in slots {
            for row in self.rows(hash)? {
                rows.insert(row.text.clone(), row);
                if rows.len() > self.limit {
                    rows.pop_last();
                }
            }
        }
        Ok(rows.into_values().collect())
    }

    /// The entries behind a slot: one, but for equal fingerprints. Looked up anew, as records move meanwhile.
    fn rows(&self, hash: KeyHash) -> Result<Vec<EntryInfo>> {
        for _ in 0..ATTEMPTS {
            let mut rows = Vec::new();
            let mut moved = false;
            let candidates = self.shared.index.find(hash);
            for view in candidates.iter().filter(|view| !view.tombstone) {
                let read = self.shared.read_header(view.location);
                match read.map_err(|error| Error::disk("list entries", error))? {
                    Some((_, header)) if self.shared.hash(&Key::of(&header)).resembles(hash) => {
                        rows.extend(self.row(&header)?);
                    }
                    _ => moved = true,
                }
            }
            if !moved {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    fn row(&self, header: &Header) -> Result<Option<EntryInfo>> {
        let wanted = header.namespace == self.namespace
            && header.function == self.kind.number()
            && matches!(header.kind, Kind::Entry | Kind::EntryManifest);
        if !wanted {
            return Ok(None);
        }
        let key = Key::of(header);
        let lookup = self
            .shared
            .look_up(&key, self.shared.hash(&key), None, Wait::Yes)?;
        let Lookup::Found(loaded) = lookup else {
            return Ok(None);
        };
        if self.shared.is_over(&loaded.header, &loaded.view) {
            return Ok(None);
        }
        let Some((front, _)) = Front::decode(&loaded.payload()) else {
            return Ok(None);
        };
        let listed = front.text.starts_with(&self.prefix)
            && self
                .after
                .as_deref()
                .is_none_or(|after| &*front.text > after);
        Ok(listed.then_some(EntryInfo {
            text: front.text,
            size_bytes: loaded.header.raw_size,
            version: loaded.header.version,
            created: front.created,
        }))
    }
}
