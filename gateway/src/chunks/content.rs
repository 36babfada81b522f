//! What chunks make, one after the other: the body of a blob that is spliced.
//!
//! One chunk is open at a time. A chunk that is gone when its turn comes, or that turns out to be damaged, ends the body
//! and is remembered.

use bytes::Bytes;
use zimcache_store::{ByteRange, Reader};
use zimcache_types::{Digest, Namespace};

use crate::{
    Error,
    cache::{Cache, Chunks, alarm},
    error::Result,
};

/// The content of chunks in their order.
#[derive(Debug)]
pub(super) struct Content<'a> {
    cache: &'a Cache,
    namespace: &'a Namespace,
    chunks: std::slice::Iter<'a, Digest>,
    /// The chunk that is being read.
    open: Option<(Digest, Reader)>,
    lost: Option<Digest>,
}

impl<'a> Content<'a> {
    /// The content of these.
    pub(super) fn of(
        cache: &'a Cache,
        namespace: &'a Namespace,
        chunks: &'a [Digest],
    ) -> Content<'a> {
        Content {
            cache,
            namespace,
            chunks: chunks.iter(),
            open: None,
            lost: None,
        }
    }

    /// The chunk that was gone when its turn came.
    pub(super) const fn lost(&self) -> Option<Digest> {
        self.lost
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some((chunk, reader)) = &mut self.open
                && let Some(piece) = reader.next_chunk().await
            {
                let piece = alarm(piece.map(Some), &chunk.hash)?;
                return piece.map(Some).ok_or_else(|| lose(&mut self.lost, *chunk));
            }
            let Some(chunk) = self.chunks.next() else {
                return Ok(None);
            };
            let blobs = &self.cache.blobs;
            let opened = blobs.open(self.namespace, chunk, ByteRange::Full).await;
            let reader = alarm(opened, &chunk.hash)?;
            let reader = reader.ok_or_else(|| lose(&mut self.lost, *chunk))?;
            self.open = Some((*chunk, reader));
        }
    }
}

/// Notes which chunk is gone; what it was to be part of ends here.
fn lose(lost: &mut Option<Digest>, chunk: Digest) -> Error {
    *lost = Some(chunk);
    Error::BodyCut
}

impl Chunks for Content<'_> {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        self.try_next().await.transpose()
    }

    fn announced_bytes(&self) -> Option<u64> {
        let sizes = self.chunks.as_slice().iter().map(|chunk| chunk.size_bytes);
        self.open
            .is_none()
            .then(|| sizes.map(|size| size.unwrap_or(0)).sum())
    }
}
