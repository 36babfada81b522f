//! The blob contract over the engine.
//!
//! A body is hashed as it arrives. A small one is written as one record, a large one as parts and a manifest. A body
//! whose blob exists already is verified all the same and then dropped.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{
    BlobStore, BlobWriter, ByteRange, CreateOptions, Error, Reader, Result, Touch,
};
use zimcache_types::{Digest, Function, Hasher, Namespace};

use super::{
    codec::is_marked_compressed,
    lane::{Body, Outcome, Rule},
    record::{Encoding, Header, KeyClass, Kind, flag},
    resume::Resume,
    shared::{Key, LaneId, Shared},
    slot::{KeyHash, View},
    upload::{Received, Target, Upload},
};

const EVICTED: Error = Error::Retry("the blob was evicted while it was being sent again");

/// Blobs on the engine.
#[derive(Debug, Clone)]
pub(crate) struct Blobs(pub(crate) Arc<Shared>);

/// The key of a blob: a hash longer than a record's key is hashed once more.
pub(crate) fn blob_key(namespace: u32, digest: &Digest) -> Key {
    let raw = digest.hash.as_bytes();
    let mut bytes = [0; 32];
    if raw.len() <= bytes.len() {
        bytes[..raw.len()].copy_from_slice(raw);
    } else {
        bytes.copy_from_slice(Digest::of(Function::Sha256, raw).hash.as_bytes());
    }
    let function = digest.hash.function().number();
    Key {
        class: KeyClass::Blob,
        function,
        namespace,
        part: 0,
        bytes,
    }
}

impl Shared {
    /// The key of a blob and its hash.
    fn blob_hash(&self, namespace: u32, digest: &Digest) -> (Key, KeyHash) {
        let key = blob_key(namespace, digest);
        (key, self.hash(&key))
    }
}

impl Blobs {
    fn key(&self, namespace: &Namespace, digest: &Digest) -> Option<(Key, KeyHash)> {
        Some(
            self.0
                .blob_hash(self.0.namespace_number(namespace)?, digest),
        )
    }
}

#[async_trait]
impl BlobStore for Blobs {
    async fn open(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        if digest.is_empty_blob() {
            return range
                .resolve(0)
                .map(|_| Some(Reader::from_bytes(Bytes::new())));
        }
        let Some((key, hash)) = self.key(namespace, digest) else {
            return Ok(None);
        };
        let Some(loaded) = self.0.load(key, hash, Some(self.0.lease_clock())).await? else {
            return Ok(None);
        };
        let total = loaded.header.raw_size;
        let other_size = digest.size_bytes.is_some_and(|size| size != total);
        if other_size || self.0.is_over(&loaded.header, &loaded.view) {
            return Ok(None);
        }
        self.0.blob_reader(hash, &loaded, range)
    }

    async fn create(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        options: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>> {
        let shared = &self.0;
        shared.check_writable()?;
        let function = digest.hash.function();
        let mut hasher = Hasher::for_digest(digest).ok_or(Error::SizeNeeded(function))?;
        let number = shared.namespace_for_writing(namespace).await?;
        let (key, hash) = shared.blob_hash(number, digest);
        let limit = options.limit_bytes.unwrap_or(u64::MAX);
        let target = Target {
            owner: hash,
            namespace: number,
            function: key.function,
            pieces_bytes: shared.geometry.small_bytes,
            limit_bytes: digest.size_bytes.map_or(limit, |size| limit.min(size)),
        };
        let resume = options
            .resume_as
            .map(|name| Resume::new(shared, number, digest, &name));
        let upload = match &resume {
            Some(resume) => resume.take_up(shared, target, &mut hasher).await?,
            None => Upload::new(Arc::clone(shared), target),
        };
        let offset = upload.total();
        Ok(Box::new(Writer {
            shared: Arc::clone(shared),
            digest: *digest,
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
        }))
    }

    async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        let Some(number) = self.0.namespace_number(namespace) else {
            return Ok(digests
                .iter()
                .map(|digest| !digest.is_empty_blob())
                .collect());
        };
        let mut presence = self.0.look_for(number, digests, touch);
        for at in presence.unsettled {
            let (key, hash) = self.0.blob_hash(number, &digests[at]);
            if self.is_whole(key, hash).await? {
                presence.missing[at] = false;
                if touch != Touch::No {
                    self.0.index.find_and_touch(hash, self.0.lease_clock());
                }
                if touch == Touch::Lease && self.0.needs_lease(hash) {
                    presence.unleased.push(at);
                }
            }
        }
        self.lease(number, digests, &presence.unleased, &mut presence.missing)
            .await?;
        Ok(presence.missing)
    }

    async fn delete(&self, namespace: &Namespace, digest: &Digest) -> Result<bool> {
        let Some((key, hash)) = self.key(namespace, digest) else {
            return Ok(false);
        };
        let Some(found) = self.0.load(key, hash, None).await? else {
            return Ok(false);
        };
        let size = found.header.raw_size;
        if digest.size_bytes.is_some_and(|wanted| wanted != size) {
            return Ok(false);
        }
        let expired = self.0.is_over(&found.header, &found.view);
        let header = Header {
            kind: Kind::Blob,
            function: key.function,
            encoding: Encoding::Identity,
            flags: flag::TOMBSTONE,
            namespace: key.namespace,
            part: 0,
            stored: 0,
            raw_size: 0,
            version: 0,
            key: key.bytes,
        };
        let body = Body::Pieces(Vec::new());
        let outcome = self
            .0
            .write(LaneId::Entries, hash, header, body, Rule::IfPresent)
            .await?;
        Ok(outcome != Outcome::Refused && !expired)
    }
}

impl Blobs {
    /// Leases some of the digests before anybody is told that they are there. What is gone by then is missing.
    async fn lease(
        &self,
        namespace: u32,
        digests: &[Digest],
        unleased: &[usize],
        missing: &mut [bool],
    ) -> Result<()> {
        if unleased.is_empty() {
            return Ok(());
        }
        let hash = |at: &usize| self.0.blob_hash(namespace, &digests[*at]).1;
        let hashes: Vec<KeyHash> = unleased.iter().map(hash).collect();
        let there = self.0.lease(namespace, &hashes).await?;
        for (at, there) in unleased.iter().zip(there) {
            missing[*at] = !there;
        }
        Ok(())
    }

    /// Whether a blob is served, and has all its parts if it is in parts; from the disk.
    async fn is_whole(&self, key: Key, hash: KeyHash) -> Result<bool> {
        let loaded = self.0.load(key, hash, None).await?;
        Ok(loaded.is_some_and(|loaded| {
            !self.0.is_over(&loaded.header, &loaded.view) && self.0.is_whole(hash, &loaded)
        }))
    }
}

#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    digest: Digest,
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

    async fn commit(mut self: Box<Self>) -> Result<u64> {
        let total = self.exists.unwrap_or_else(|| self.upload.total());
        if let Some(expected) = self.digest.size_bytes.filter(|expected| *expected != total) {
            return Err(Error::SizeMismatch {
                expected,
                actual: total,
            });
        }
        let actual = self.hasher.clone().finish();
        if actual != self.digest.hash {
            self.forget_resume().await;
            return Err(Error::DigestMismatch {
                expected: self.digest.hash,
                actual,
            });
        }
        let stored = self.exists.is_none() && total > 0 && !self.exists().await?;
        if stored {
            self.store().await?;
        } else if self.exists.is_some() && !self.is_there(|_| true).await? {
            return Err(EVICTED);
        } else if self.lease && total > 0 {
            self.renew().await?;
        }
        self.forget_resume().await;
        Ok(total)
    }
}

impl Writer {
    /// Refuses a body that has become too large, by the limit or by its own announcement.
    fn check_size(&self, total: u64) -> Result<()> {
        if total > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        match self.digest.size_bytes {
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

    async fn store(&mut self) -> Result<()> {
        let received = self.upload.finish(true).await?;
        let total = self.upload.total();
        let mut header = Header {
            kind: Kind::Blob,
            function: self.key.function,
            encoding: Encoding::Identity,
            flags: if self.is_leased() { flag::LEASED } else { 0 },
            namespace: self.key.namespace,
            part: 0,
            stored: total as u32,
            raw_size: total,
            version: 0,
            key: self.key.bytes,
        };
        let mut _memory = None;
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
                (LaneId::Small, Body::Pieces(vec![manifest]))
            }
        };
        self.shared
            .write(lane, self.hash, header, body, Rule::Newest)
            .await
            .map(drop)
    }
}
