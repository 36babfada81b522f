//! An entry being written: a small value lies in the entry's record behind its front, a larger one in parts, and the
//! record is their manifest.
//!
//! Not here: versions and preconditions, which the lane of entries decides (`decide`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{EntryWriter, Error, Pins, Result, Version};
use zimcache_types::Timestamp;

use super::{
    entry_front::Front,
    lane::{Body, Outcome, Rule},
    manifest::PartsOf,
    record::{Encoding, Header, Kind},
    retention::put_millis,
    shared::{Key, LaneId, Shared},
    slot::KeyHash,
    upload::{Received, Target, Upload},
};

/// An entry being written.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    upload: Upload,
    key: Key,
    hash: KeyHash,
    front: Front,
    rule: Rule,
    /// The default where the store gives one.
    version: Version,
}

impl Writer {
    /// Starts receiving a value. When it was put is decided at its end.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        key: Key,
        front: Front,
        rule: Rule,
        limit_bytes: Option<u64>,
    ) -> Writer {
        let hash = shared.hash(&key);
        let target = Target {
            owner: hash,
            namespace: key.namespace,
            function: key.function,
            pieces_bytes: shared.geometry.inline_bytes,
            limit_bytes: limit_bytes.unwrap_or(u64::MAX),
        };
        Writer {
            shared: Arc::clone(shared),
            upload: Upload::new(Arc::clone(shared), target),
            key,
            hash,
            front,
            rule,
            version: Version::default(),
        }
    }

    /// The same under a version that somebody else gave.
    pub(crate) fn with_version(self, version: Version) -> Writer {
        Writer { version, ..self }
    }

    /// Bytes received so far.
    pub(crate) const fn total(&self) -> u64 {
        self.upload.total()
    }

    /// Makes the value durable with these pins, then visible. Returns the highest version that is held then.
    pub(crate) async fn finish(mut self, pins: Pins) -> Result<Version> {
        let received = self.upload.finish(false).await?;
        self.front.created = if self.version == Version::default() {
            self.shared.clock.now()
        } else {
            Timestamp(put_millis(self.version.clock))
        };
        let (mut header, mut pieces) = (self.header(pins), Vec::with_capacity(2));
        pieces.push(Bytes::from(self.front.encode()));
        let (mut _memory, mut in_parts) = (None, None);
        match received {
            Received::Pieces(value, reserved) => {
                let (encoding, value) = self.shared.pack_pieces(value).await?;
                header.encoding = encoding;
                pieces.extend(value);
                _memory = reserved;
            }
            Received::Parts(parts) => {
                header.kind = Kind::EntryManifest;
                pieces.push(Bytes::copy_from_slice(&parts.encode()));
                in_parts = Some(parts);
            }
            Received::One(_) => {
                return Err(Error::Corrupt("an entry's value was not cut into parts"));
            }
        }
        header.stored = pieces.iter().map(Bytes::len).sum::<usize>() as u32;
        self.store(header, pieces, in_parts.as_ref(), pins).await
    }

    fn header(&self, pins: Pins) -> Header {
        let mut header = Header {
            kind: Kind::Entry,
            function: self.key.function,
            encoding: Encoding::Identity,
            flags: 0,
            namespace: self.key.namespace,
            part: 0,
            stored: 0,
            raw_size: self.upload.total(),
            version: self.version.clock,
            writer: self.version.writer,
            writing: 0,
            key: self.key.bytes,
        };
        header.set_pins(pins);
        header
    }

    async fn store(
        self,
        header: Header,
        pieces: Vec<Bytes>,
        in_parts: Option<&PartsOf>,
        pins: Pins,
    ) -> Result<Version> {
        let shared = &self.shared;
        let body = Body::Pieces(pieces);
        let outcome = shared
            .write(LaneId::Entries, self.hash, header, body, self.rule)
            .await?;
        if let (Outcome::Held(_) | Outcome::Refused, Some(parts)) = (outcome, in_parts) {
            shared.forget_all_parts(parts);
        }
        match outcome {
            Outcome::Written(clock) => {
                shared.check_pinned_parts(in_parts, pins)?;
                let writer = self.version.writer;
                Ok(Version { clock, writer })
            }
            Outcome::Held(held) => {
                if held == self.version && pins != Pins::default() {
                    shared.add_pins(self.key, Some(held), pins).await?;
                }
                Ok(held)
            }
            Outcome::Refused => Err(Error::Conflict),
        }
    }
}

#[async_trait]
impl EntryWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.upload.write(chunk).await
    }

    async fn commit(self: Box<Self>) -> Result<u64> {
        let version = self.finish(Pins::default()).await?;
        Ok(version.clock)
    }
}
