//! Stores that show what they are asked, that hold zstd, and that fail in the middle of a value.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use zimcache_store::{
    BlobStore, BlobWriter, ByteRange, ChunkSource, CreateOptions, Error, Reader, Result, Touch,
    memory::MemoryStore,
};
use zimcache_types::{Digest, Namespace};

use crate::support::Server;

/// What is done with the values of a store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values {
    /// They are given in small chunks, as they are.
    InChunks,
    /// They are stored as zstd, too.
    Packed,
    /// They end in a failure of the disk after so many bytes.
    FailAfter(u64),
    /// They turn out to be damaged at once.
    Damaged,
}

/// A store in RAM whose values are read from a source.
#[derive(Debug)]
pub(super) struct Store {
    inner: MemoryStore,
    values: Values,
    created: Mutex<Vec<CreateOptions>>,
}

impl Store {
    /// A server over it.
    pub(super) async fn serve(values: Values) -> (Server, Arc<Store>) {
        let inner = MemoryStore::default();
        let store = Arc::new(Store {
            inner: inner.clone(),
            values,
            created: Mutex::default(),
        });
        let server = Server::over(store.clone(), inner, |_| {}).await;
        (server, store)
    }

    /// The options of all writers so far.
    pub(super) async fn created(&self) -> Vec<CreateOptions> {
        self.created.lock().await.clone()
    }
}

#[derive(Debug)]
struct Source {
    value: Bytes,
    values: Values,
}

/// Bytes in a chunk, and in a frame of what is packed.
pub(super) const CHUNK_BYTES: usize = 200_000;

/// How a value is stored as zstd.
pub(super) fn pack(value: &[u8]) -> Vec<u8> {
    let frames = value.chunks(CHUNK_BYTES);
    frames
        .flat_map(|frame| zstd::bulk::compress(frame, 1).unwrap())
        .collect()
}

impl ChunkSource for Source {
    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>> {
        let end = end.min(position + CHUNK_BYTES as u64);
        match self.values {
            Values::FailAfter(limit) if end > limit => {
                let gone = std::io::Error::other("sector 17");
                Err(Error::disk("read", gone))
            }
            Values::Damaged => Err(Error::Corrupt("checksum")),
            _ => Ok(Some(self.value.slice(position as usize..end as usize))),
        }
    }

    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes> {
        self.read_now(position, end).map(Option::unwrap)
    }

    fn zstd_form(&self) -> Option<Reader> {
        matches!(self.values, Values::Packed).then(|| {
            let packed = Bytes::from(pack(&self.value));
            let length = packed.len() as u64;
            let source = Source {
                value: packed,
                values: Values::InChunks,
            };
            Reader::from_source(Arc::new(source), length, 0..length)
        })
    }
}

#[async_trait]
impl BlobStore for Store {
    async fn open(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        let opened = self.inner.open(namespace, digest, ByteRange::Full).await?;
        let Some(reader) = opened else {
            return Ok(None);
        };
        let value = reader.as_bytes().unwrap().clone();
        let total = value.len() as u64;
        let range = range.resolve(total)?;
        let values = self.values;
        let source = Arc::new(Source { value, values });
        Ok(Some(Reader::from_source(source, total, range)))
    }

    async fn create(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        options: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>> {
        self.created.lock().await.push(options.clone());
        self.inner.create(namespace, digest, options).await
    }

    async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        self.inner.missing(namespace, digests, touch).await
    }

    async fn delete(&self, namespace: &Namespace, digest: &Digest) -> Result<bool> {
        self.inner.delete(namespace, digest).await
    }
}
