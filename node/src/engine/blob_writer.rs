//! A blob being written: hashed as it comes, stored as one record or as parts and a manifest, verified before it counts.
//!
//! A body whose blob exists already is verified all the same and then dropped; the blob gets the lease and the pins it
//! lacks. Not here: cutting a body into parts (`upload`), taking up an interrupted one (`resume`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{BlobWriter, CreateOptions, Error, Pins, Result};
use zimcache_types::{Digest, Function, Hash, Hasher};

use super::{
    blobs::id_of,
    codec::is_marked_compressed,
    lane::{Body, Rule},
    record::{Encoding, Header, Kind, flag},
    resume::Resume,
    shared::{Key, LaneId, Shared},
    slot::{KeyHash, View},
    upload::{Received, Target, Upload},
};

const EVICTED: Error = Error::Retry("the blob was evicted while it was being sent again");

/// What a body has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) function: Function,
    /// Its hash; not known where the key holds a hash of that.
    pub(crate) hash: Option<Hash>,
    pub(crate) size_bytes: Option<u64>,
}

impl Wanted {
    /// What a key says of the body.
    pub(crate) fn of(function: Function, id: &[u8; 32], size_bytes: Option<u64>) -> Wanted {
        let raw = id.get(..function.hash_len());
        Wanted {
            function,
            hash: raw.and_then(|raw| Hash::from_bytes(function, raw)),
            size_bytes,
        }
    }

    fn hasher(&self) -> Result<Hasher> {
        let size_bytes = self.size_bytes;
        let hasher = match self.hash {
            Some(hash) => Hasher::for_digest(&Digest { hash, size_bytes }),
            None => Hasher::sized(self.function, size_bytes),
        };
        hasher.ok_or(Error::SizeNeeded(self.function))
    }

    /// The hash as text, or what stands for it.
    fn shown(&self, key: &Key) -> String {
        match self.hash {
            Some(hash) => hash.to_hex(),
            None => format!("{:02x?}", key.bytes),
        }
    }

    /// Whether the bytes that were hashed belong under the key.
    fn verify(&self, key: &Key, hasher: Hasher) -> Result<()> {
        let actual = hasher.finish();
        match self.hash {
            _ if id_of(&actual) == key.bytes => Ok(()),
            Some(expected) if expected != actual => Err(Error::DigestMismatch { expected, actual }),
            _ => Err(Error::NotARecord("the body hashes to another key")),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    wanted: Wanted,
    limit: u64,
    key: Key,
    hash: KeyHash,
    hasher: Hasher,
    offset: u64,
    upload: Upload,
    resume: Option<Resume>,
    /// Bytes seen of a body that is only verified, because the blob exists.
    exists: Option<u64>,
    /// Whether the upload's start has been written down for a later resume.
    announced: bool,
    lease: bool,
}

#[async_trait]
impl BlobWriter for Writer {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.hasher.update(&chunk);
        if let Some(seen) = &mut self.exists {
            *seen += chunk.len() as u64;
            return self.check_size(self.exists.unwrap_or(0));
        }
        self.check_size(self.upload.total() + chunk.len() as u64)?;
        let becomes_large = self.upload.total() as usize <= self.shared.geometry.small_bytes
            && !self.upload.stays_small(chunk.len());
        if becomes_large && self.exists().await? {
            self.exists = Some(self.upload.total() + chunk.len() as u64);
            return Ok(());
        }
        self.upload.write(chunk).await?;
        self.announce().await
    }

    async fn commit(self: Box<Self>) -> Result<u64> {
        self.finish(Pins::default()).await
    }
}

impl Writer {
    /// Starts receiving a body, or goes on where an interrupted upload ended.
    pub(crate) async fn start(
        shared: &Arc<Shared>,
        key: Key,
        wanted: Wanted,
        options: CreateOptions,
    ) -> Result<Writer> {
        let mut hasher = wanted.hasher()?;
        let hash = shared.hash(&key);
        let limit = options.limit_bytes.unwrap_or(u64::MAX);
        let target = Target {
            owner: hash,
            namespace: key.namespace,
            function: key.function,
            pieces_bytes: shared.geometry.small_bytes,
            limit_bytes: wanted.size_bytes.map_or(limit, |size| limit.min(size)),
        };
        let resume = options
            .resume_as
            .map(|name| Resume::new(shared, key, &wanted.shown(&key), &name));
        let upload = match &resume {
            Some(resume) => resume.take_up(shared, target, &mut hasher).await?,
            None => Upload::new(Arc::clone(shared), target),
        };
        let offset = upload.total();
        Ok(Writer {
            shared: Arc::clone(shared),
            wanted,
            limit,
            key,
            hash,
            hasher,
            offset,
            upload,
            resume,
            exists: None,
            announced: false,
            lease: options.lease,
        })
    }

    /// Verifies the body and makes it durable with these pins, then visible. Says how many bytes it has.
    pub(crate) async fn finish(mut self: Box<Self>, pins: Pins) -> Result<u64> {
        let total = self.exists.unwrap_or_else(|| self.upload.total());
        if let Some(expected) = self.wanted.size_bytes.filter(|expected| *expected != total) {
            return Err(Error::SizeMismatch {
                expected,
                actual: total,
            });
        }
        if let Err(error) = self.wanted.verify(&self.key, self.hasher.clone()) {
            self.forget_resume().await;
            return Err(error);
        }
        let stored = self.exists.is_none() && total > 0 && !self.exists().await?;
        if stored {
            self.store(pins).await?;
        } else if self.exists.is_some() && !self.is_there(|_| true).await? {
            return Err(EVICTED);
        } else if self.lease && total > 0 {
            self.renew().await?;
        }
        if pins != Pins::default() && total > 0 {
            self.pin(pins, stored).await?;
        }
        self.forget_resume().await;
        Ok(total)
    }

    /// Gives the blob the pins it lacks: it was there already, or came from two sides at once.
    async fn pin(&self, pins: Pins, stored: bool) -> Result<()> {
        if self.shared.has_pins(self.hash, pins) {
            return Ok(());
        }
        let there = self.shared.add_pins(self.key, None, pins).await?;
        // What was just stored with its pins is gone only if somebody deleted it.
        if there || stored {
            Ok(())
        } else {
            Err(EVICTED)
        }
    }

    /// Refuses a body that has become too large, by the limit or by its own announcement.
    fn check_size(&self, total: u64) -> Result<()> {
        if total > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        match self.wanted.size_bytes {
            Some(expected) if total > expected => Err(Error::SizeMismatch {
                expected,
                actual: total,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the blob is there already; counts as a use. One that has lived half its time is written again, so that
    /// its age counts anew.
    async fn exists(&self) -> Result<bool> {
        let shared = &self.shared;
        self.is_there(|header| !shared.has_half_expired(header.namespace, header.version))
            .await
    }

    /// Whether a record is there that will do.
    async fn is_there(&self, will_do: impl Fn(&Header) -> bool) -> Result<bool> {
        let touch = Some(self.shared.lease_clock());
        let loaded = self.shared.load(self.key, self.hash, touch).await?;
        Ok(loaded.is_some_and(|loaded| {
            will_do(&loaded.header) && self.shared.is_whole(self.hash, &loaded)
        }))
    }

    /// Leases the blob that was there already.
    async fn renew(&self) -> Result<()> {
        let shared = &self.shared;
        if !shared.needs_lease(self.hash) {
            return Ok(());
        }
        let there = shared.lease(self.key.namespace, &[self.hash]).await?;
        if there == [true] {
            Ok(())
        } else {
            Err(EVICTED)
        }
    }

    /// Whether the record about to be written has to say that the blob is leased: it was asked for, or is so already.
    fn is_leased(&self) -> bool {
        let (clock, found) = (self.shared.lease_clock(), self.shared.index.find(self.hash));
        let is_leased = |view: &View| !view.tombstone && clock.is_open(view);
        self.lease || found.iter().any(|view| is_leased(&view))
    }

    /// Writes down which upload this is, before its first part can be durable.
    async fn announce(&mut self) -> Result<()> {
        if let (Some(resume), Some(id), false) = (&self.resume, self.upload.id(), self.announced) {
            resume.announce(&self.shared, id).await?;
            self.announced = true;
        }
        Ok(())
    }

    /// Removes what was written down for a resume. If that fails a later upload of the name finds a blob that exists,
    /// or parts it can use: nothing is lost, and the blob's own fate is settled already.
    async fn forget_resume(&self) {
        if let (Some(resume), Some(id)) = (&self.resume, self.upload.id())
            && let Err(error) = resume.forget(&self.shared, id).await
        {
            tracing::debug!(%error, "the name of a finished upload could not be forgotten");
        }
    }

    async fn store(&mut self, pins: Pins) -> Result<()> {
        let received = self.upload.finish(true).await?;
        let total = self.upload.total();
        let mut header = Header {
            kind: Kind::Blob,
            function: self.key.function,
            encoding: Encoding::Identity,
            flags: flag::of_pins(pins) | if self.is_leased() { flag::LEASED } else { 0 },
            namespace: self.key.namespace,
            part: 0,
            stored: total as u32,
            raw_size: total,
            version: 0,
            writer: 0,
            writing: 0,
            key: self.key.bytes,
        };
        let (mut _memory, mut in_parts) = (None, None);
        let (lane, body) = match received {
            Received::Pieces(pieces, reserved) => {
                _memory = reserved;
                let (encoding, pieces) = self.shared.pack_pieces(pieces).await?;
                header.encoding = encoding;
                header.stored = pieces.iter().map(Bytes::len).sum::<usize>() as u32;
                (LaneId::Small, Body::Pieces(pieces))
            }
            Received::One(part) => {
                let opaque = is_marked_compressed(part.payload());
                let (encoding, part) = self.shared.pack_part(part, opaque).await?;
                header.encoding = encoding;
                header.stored = part.filled() as u32;
                (LaneId::Bulk, Body::Part(part))
            }
            Received::Parts(parts) => {
                let manifest = Bytes::copy_from_slice(&parts.encode());
                header.kind = Kind::Manifest;
                header.stored = manifest.len() as u32;
                in_parts = Some(parts);
                (LaneId::Small, Body::Pieces(vec![manifest]))
            }
        };
        self.shared
            .write(lane, self.hash, header, body, Rule::Newest)
            .await?;
        self.shared.check_pinned_parts(in_parts.as_ref(), pins)
    }
}
