//! Records being written by their names: a blob, an entry, or a deletion.
//!
//! Each ends with the pins it gets. Not here: what a name has to fit (`replica`), which version wins (`decide`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{
    BlobWriter, EntryWriter, Error, Pins, Precondition, RecordWriter, Result, Version, Written,
};

use super::{
    blob_writer,
    blobs::tombstone,
    entry_writer,
    lane::{Body, Outcome, Rule},
    record::{KeyClass, flag},
    shared::{Key, LaneId, Shared},
};

/// When a version takes effect; the default one is given by the store.
pub(crate) fn rule_of(version: Version, precondition: Precondition) -> Rule {
    match precondition {
        _ if version != Version::default() => Rule::Given(precondition),
        Precondition::None => Rule::Newest,
        Precondition::Absent => Rule::IfAbsent,
    }
}

/// A blob being written.
#[derive(Debug)]
pub(crate) struct BlobRecord(pub(crate) Box<blob_writer::Writer>);

#[async_trait]
impl RecordWriter for BlobRecord {
    fn offset(&self) -> u64 {
        BlobWriter::offset(&*self.0)
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        BlobWriter::write(&mut *self.0, chunk).await
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let size_bytes = self.0.finish(pins).await?;
        Ok(Written {
            size_bytes,
            version: Version::default(),
        })
    }
}

/// An entry being written.
#[derive(Debug)]
pub(crate) struct EntryRecord(pub(crate) entry_writer::Writer);

#[async_trait]
impl RecordWriter for EntryRecord {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        EntryWriter::write(&mut self.0, chunk).await
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let size_bytes = self.0.total();
        let version = self.0.finish(pins).await?;
        Ok(Written {
            size_bytes,
            version,
        })
    }
}

/// A deletion being written; it is, whether there is anything to delete or not.
#[derive(Debug)]
pub(crate) struct Deletion {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) precondition: Precondition,
}

#[async_trait]
impl RecordWriter for Deletion {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        Err(Error::TooLarge { limit: 0 })
    }

    async fn commit(self: Box<Self>, pins: Pins) -> Result<Written> {
        let mut header = tombstone(&self.key);
        (header.version, header.writer) = (self.version.clock, self.version.writer);
        header.flags |= flag::of_pins(pins);
        let (hash, body) = (self.shared.hash(&self.key), Body::Pieces(Vec::new()));
        let rule = rule_of(self.version, self.precondition);
        let outcome = self
            .shared
            .write(LaneId::Entries, hash, header, body, rule)
            .await?;
        let version = match outcome {
            Outcome::Written(clock) => Version {
                clock,
                writer: self.version.writer,
            },
            Outcome::Held(held) => held,
            Outcome::Refused => return Err(Error::Conflict),
        };
        if outcome == Outcome::Held(self.version) && pins != Pins::default() {
            self.shared.add_pins(self.key, Some(version), pins).await?;
        }
        let is_entry = self.key.class == KeyClass::Entry;
        Ok(Written {
            size_bytes: 0,
            version: if is_entry {
                version
            } else {
                Version::default()
            },
        })
    }
}
