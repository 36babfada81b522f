//! The blob contract over the engine.
//!
//! Not here: writing a blob (`blob_writer`), which of many are there (`presence`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use zimcache_store::{BlobStore, BlobWriter, ByteRange, CreateOptions, Reader, Result, Touch};
use zimcache_types::{Digest, Function, Hash, Namespace};

use super::{
    blob_writer::{Wanted, Writer},
    lane::{Body, Outcome, Rule},
    record::{Encoding, Header, KeyClass, Kind, flag},
    shared::{Key, LaneId, Shared},
    slot::KeyHash,
};

/// Blobs on the engine.
#[derive(Debug, Clone)]
pub(crate) struct Blobs(pub(crate) Arc<Shared>);

/// The key of a blob: a hash longer than a record's key is hashed once more.
pub(crate) fn blob_key(namespace: u32, digest: &Digest) -> Key {
    Key {
        class: KeyClass::Blob,
        function: digest.hash.function().number(),
        namespace,
        part: 0,
        bytes: id_of(&digest.hash),
    }
}

/// What names a hash in a record's key.
pub(crate) fn id_of(hash: &Hash) -> [u8; 32] {
    let raw = hash.as_bytes();
    let mut id = [0; 32];
    if raw.len() <= id.len() {
        id[..raw.len()].copy_from_slice(raw);
    } else {
        id.copy_from_slice(Digest::of(Function::Sha256, raw).hash.as_bytes());
    }
    id
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
        shared.check_takes_values()?;
        let number = shared.namespace_for_writing(namespace).await?;
        let (key, _) = shared.blob_hash(number, digest);
        let wanted = Wanted {
            function: digest.hash.function(),
            hash: Some(digest.hash),
            size_bytes: digest.size_bytes,
        };
        Ok(Box::new(Writer::start(shared, key, wanted, options).await?))
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
        let presence = self.0.look_for(number, digests, touch);
        let key = |at: usize| blob_key(number, &digests[at]);
        self.0.settle_presence(number, presence, key, touch).await
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
        let header = tombstone(&key);
        let body = Body::Pieces(Vec::new());
        let outcome = self
            .0
            .write(LaneId::Entries, hash, header, body, Rule::IfPresent)
            .await?;
        Ok(outcome != Outcome::Refused && !expired)
    }
}

/// The header of a record that says that a key is deleted.
pub(crate) fn tombstone(key: &Key) -> Header {
    Header {
        kind: match key.class {
            KeyClass::Entry => Kind::Entry,
            _ => Kind::Blob,
        },
        function: key.function,
        encoding: Encoding::Identity,
        flags: flag::TOMBSTONE,
        namespace: key.namespace,
        part: 0,
        stored: 0,
        raw_size: 0,
        version: 0,
        writer: 0,
        writing: 0,
        key: key.bytes,
    }
}
