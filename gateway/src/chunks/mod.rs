//! Blobs as lists of chunks: what is large is cut where its content says so, so that two versions share most chunks.
//!
//! A chunk is a blob like any other, and so is what is spliced of chunks: everything that can be read as a whole can be
//! read in chunks, and the other way round. Which chunks make a blob is an entry of its own, one per chunking function.
//! It is stored only when the chunks were seen to make the blob, and handed out only when all of them are present, which
//! leases them. Not here: where a blob is cut (`types::chunking`), messages (`protocol::reapi::chunks`). Invariants: of a
//! blob that is cut or spliced only a few chunks are in memory at once; at most [`CUTTINGS`] blobs are cut at once.

mod content;
mod cutter;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use zimcache_proto::{
    Message as _,
    reapi::{self, SplitBlobResponse, chunking_function::Value as Chunking},
    wire::{Field, slices},
};
use zimcache_store::{self as store, ByteRange, CreateOptions, EntryMeta, Precondition, Touch};
use zimcache_types::{
    Digest, EntryKey, EntryKind, Function, Hasher, Namespace,
    chunking::{FastCdc2020Params, Params, RepMaxCdcParams},
};

use self::{content::Content, cutter::Cutter};
use crate::{
    Error,
    action::RawDigest,
    cache::{Cache, Named, alarm},
    error::Result,
    uploads::Put,
};

/// How blobs are cut unless a client asks for the other way.
pub(crate) const FAST_CDC: FastCdc2020Params = FastCdc2020Params::RECOMMENDED;
/// How they are cut for clients that ask for it.
pub(crate) const REP_MAX_CDC: RepMaxCdcParams = RepMaxCdcParams::RECOMMENDED;
/// Longest list, encoded: one answer of 4 MiB takes it.
const MOST_LIST_BYTES: usize = (4 << 20) - (64 << 10);
/// Blobs that are cut at once, over all requests.
pub(crate) const CUTTINGS: usize = 2;
/// Chunks of a blob that are stored at once: they share the store's syncs.
const STORED_AT_ONCE: usize = 8;

/// A blob as chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkList {
    /// By what it was cut.
    pub(crate) chunking: Chunking,
    /// In the order in which they make the blob.
    pub(crate) chunks: Vec<Digest>,
}

/// What became of chunks that were to make a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spliced {
    /// The blob is there.
    Stored,
    /// It is not: this chunk is missing.
    Lost(Digest),
}

impl Cache {
    /// The chunks of a blob, all of them present and leased like the blob itself; `None` when the blob is absent, or
    /// nothing is known of its chunks. Who may write has a blob cut where that is so: a reader causes no writes.
    ///
    /// # Errors
    /// `OutOfSpace`, `Unavailable`.
    pub(crate) async fn split_blob(
        &self,
        namespace: &Namespace,
        named: &Named,
        wanted: Chunking,
        may_write: bool,
    ) -> Result<Option<ChunkList>> {
        let Some(blob) = self.find_blob(namespace, named).await? else {
            return Ok(None);
        };
        let params = params_of(wanted);
        if !params.cuts(size_of(&blob)) {
            return Ok(Some(ChunkList::whole(blob, chunking_of(&params))));
        }
        let whole = Whole {
            cache: self,
            namespace,
            blob,
        };
        if let Some(known) = whole.complete(chunking_of(&params)).await? {
            return Ok(Some(known));
        }
        if wanted == Chunking::Unknown || !may_write {
            for other in [
                Chunking::FastCdc2020,
                Chunking::RepMaxCdc,
                Chunking::Unknown,
            ] {
                if let Some(known) = whole.complete(other).await? {
                    return Ok(Some(known));
                }
            }
        }
        if !may_write {
            return Ok(None);
        }
        whole.cut(params).await
    }

    /// Makes a blob of chunks that are present, and remembers that they make it. Where the blob exists, they are
    /// compared with it.
    ///
    /// # Errors
    /// `Invalid` when the chunks do not make the blob; as [`Cache::put_blob`].
    pub(crate) async fn splice_blob(
        &self,
        namespace: &Namespace,
        named: &Named,
        list: &ChunkList,
    ) -> Result<Spliced> {
        let (expected, actual) = (size_of(&named.digest), list.size_bytes());
        if expected != actual {
            return Err(store::Error::SizeMismatch { expected, actual }.into());
        }
        if list.message().encoded_len() > MOST_LIST_BYTES {
            return Err(Error::Request("the blob has too many chunks"));
        }
        let mut lost = Spliced::Stored;
        for blob in self.readings(namespace, named) {
            let list = list.under(blob.hash.function())?;
            let whole = Whole {
                cache: self,
                namespace,
                blob,
            };
            let spliced = whole.splice(&list).await?;
            match spliced {
                Spliced::Stored => return Ok(spliced),
                // The one that is told is of the likeliest function.
                Spliced::Lost(_) if lost == Spliced::Stored => lost = spliced,
                Spliced::Lost(_) => {}
            }
        }
        Ok(lost)
    }

    /// A blob under the function under which it is present. Leases it.
    async fn find_blob(&self, namespace: &Namespace, named: &Named) -> Result<Option<Digest>> {
        for digest in self.readings(namespace, named) {
            if self.all_there(namespace, &[digest]).await? {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    async fn all_there(&self, namespace: &Namespace, digests: &[Digest]) -> Result<bool> {
        let missing = self.blobs.missing(namespace, digests, Touch::Lease).await?;
        Ok(!missing.contains(&true))
    }
}

impl ChunkList {
    /// A blob that is not cut is its own only chunk.
    fn whole(blob: Digest, chunking: Chunking) -> ChunkList {
        let chunks = Some(blob).filter(|blob| size_of(blob) > 0);
        ChunkList {
            chunking,
            chunks: chunks.into_iter().collect(),
        }
    }

    fn size_bytes(&self) -> u64 {
        self.chunks.iter().map(size_of).fold(0, u64::saturating_add)
    }

    /// The same hashes as those of another function.
    fn under(&self, function: Function) -> Result<ChunkList> {
        let chunks = self.chunks.iter().map(|chunk| {
            let hash = chunk.hash.reinterpret(function);
            let hash = hash.ok_or(Error::Request("a chunk has another digest function"))?;
            Ok(Digest { hash, ..*chunk })
        });
        Ok(ChunkList {
            chunking: self.chunking,
            chunks: chunks.collect::<Result<_>>()?,
        })
    }

    /// As it is answered, and as it is stored.
    pub(crate) fn message(&self) -> SplitBlobResponse {
        let chunk_digests = self.chunks.iter().map(|chunk| reapi::Digest {
            hash: chunk.hash.to_hex(),
            size_bytes: i64::try_from(size_of(chunk)).unwrap_or(i64::MAX),
        });
        SplitBlobResponse {
            chunk_digests: chunk_digests.collect(),
            chunking_function: self.chunking.into(),
        }
    }

    fn read(chunking: Chunking, function: Function, encoded: &[u8]) -> Option<ChunkList> {
        let mut chunks = Vec::new();
        for field in slices(encoded) {
            if let (1, Field::Bytes(digest)) = field.ok()? {
                chunks.push(RawDigest::read(digest).ok()?.under(Some(function)).ok()?);
            }
        }
        Some(ChunkList { chunking, chunks })
    }
}

/// A blob that is, or is to be, there as a whole.
#[derive(Debug, Clone, Copy)]
struct Whole<'a> {
    cache: &'a Cache,
    namespace: &'a Namespace,
    blob: Digest,
}

impl Whole<'_> {
    fn key(&self, chunking: Chunking) -> Result<EntryKey> {
        let (hash, size) = (&self.blob.hash, size_of(&self.blob));
        let function = hash.function();
        let text = format!("{function}/{hash}/{size}/{}", i32::from(chunking));
        EntryKey::new(self.namespace.clone(), EntryKind::Chunks, text)
            .ok_or(Error::Key("the digest is too long"))
    }

    /// The list that is known of this chunking function.
    async fn known(&self, chunking: Chunking) -> Result<Option<ChunkList>> {
        let key = self.key(chunking)?;
        let Some(entry) = self.cache.open_entry(&key, ByteRange::Full).await? else {
            return Ok(None);
        };
        let read = entry.value.read_all(MOST_LIST_BYTES as u64).await;
        let encoded = alarm(read.map(Some), &key.text)?;
        let function = self.blob.hash.function();
        Ok(encoded.and_then(|encoded| ChunkList::read(chunking, function, &encoded)))
    }

    /// The same, if all its chunks are present.
    async fn complete(&self, chunking: Chunking) -> Result<Option<ChunkList>> {
        let Some(known) = self.known(chunking).await? else {
            return Ok(None);
        };
        let complete = self.cache.all_there(self.namespace, &known.chunks).await?;
        Ok(complete.then_some(known))
    }

    async fn remember(&self, list: &ChunkList) -> Result<()> {
        let key = self.key(list.chunking)?;
        let (meta, limit) = (EntryMeta::default(), Some(MOST_LIST_BYTES as u64));
        let put = self
            .cache
            .entries
            .put(&key, meta, Precondition::None, limit);
        let mut writer = put.await?;
        writer.write(list.message().encode_to_vec().into()).await?;
        writer.commit().await?;
        Ok(())
    }

    async fn splice(&self, list: &ChunkList) -> Result<Spliced> {
        let blobs = &self.cache.blobs;
        let missing = blobs
            .missing(self.namespace, &list.chunks, Touch::Lease)
            .await?;
        let mut lost = list.chunks.iter().zip(missing).filter(|(_, gone)| *gone);
        if let Some((chunk, _)) = lost.next() {
            return Ok(Spliced::Lost(*chunk));
        }
        let is_there = self.cache.all_there(self.namespace, &[self.blob]).await?;
        if is_there && self.known(list.chunking).await?.as_ref() == Some(list) {
            return Ok(Spliced::Stored);
        }
        let named = Named {
            digest: self.blob,
            certain: true,
        };
        let mut content = Content::of(self.cache, self.namespace, &list.chunks);
        let put = self
            .cache
            .put_blob(self.namespace, &named, Put::LEASED, &mut content);
        let stored = put.await;
        if let Some(chunk) = content.lost() {
            return Ok(Spliced::Lost(chunk));
        }
        stored?;
        self.remember(list).await?;
        Ok(Spliced::Stored)
    }

    /// Cuts the blob, stores the chunks, and remembers them. `None` when the blob is gone, or has too many.
    async fn cut(&self, params: Params) -> Result<Option<ChunkList>> {
        let _turn = self.cache.cuttings.acquire().await;
        let chunking = chunking_of(&params);
        // Somebody may have done it meanwhile.
        if let Some(known) = self.complete(chunking).await? {
            return Ok(Some(known));
        }
        let blobs = &self.cache.blobs;
        let opened = blobs
            .open(self.namespace, &self.blob, ByteRange::Full)
            .await;
        let Some(mut reader) = alarm(opened, &self.blob.hash)? else {
            return Ok(None);
        };
        let (mut cutter, mut chunks) = (Cutter::new(params), Vec::new());
        let mut storing = FuturesOrdered::new();
        while let Some(piece) = reader.next_chunk().await {
            let Some(piece) = alarm(piece.map(Some), &self.blob.hash)? else {
                return Ok(None);
            };
            for chunk in cutter.push(piece) {
                if storing.len() == STORED_AT_ONCE {
                    chunks.extend(storing.next().await.transpose()?);
                }
                storing.push_back(self.store_chunk(chunk));
            }
        }
        for chunk in cutter.finish() {
            storing.push_back(self.store_chunk(chunk));
        }
        while let Some(stored) = storing.next().await {
            chunks.push(stored?);
        }
        let list = ChunkList { chunking, chunks };
        if list.message().encoded_len() > MOST_LIST_BYTES {
            return Ok(None);
        }
        self.remember(&list).await?;
        Ok(Some(list))
    }

    async fn store_chunk(&self, pieces: Vec<Bytes>) -> Result<Digest> {
        let size = pieces.iter().map(|piece| piece.len() as u64).sum();
        let mut hasher = Hasher::with_size(self.blob.hash.function(), size);
        for piece in &pieces {
            hasher.update(piece);
        }
        let digest = Digest::sized(hasher.finish(), size);
        if self.cache.all_there(self.namespace, &[digest]).await? {
            return Ok(digest);
        }
        let options = CreateOptions {
            lease: true,
            ..CreateOptions::default()
        };
        let created = self.cache.blobs.create(self.namespace, &digest, options);
        let mut writer = created.await?;
        for piece in pieces {
            writer.write(piece).await?;
        }
        writer.commit().await?;
        Ok(digest)
    }
}

fn size_of(digest: &Digest) -> u64 {
    digest.size_bytes.unwrap_or(0)
}

/// The parameters of a function; those that a client leaves to us are FastCDC's.
fn params_of(chunking: Chunking) -> Params {
    match chunking {
        Chunking::Unknown | Chunking::FastCdc2020 => Params::FastCdc2020(FAST_CDC),
        Chunking::RepMaxCdc => Params::RepMaxCdc(REP_MAX_CDC),
    }
}

fn chunking_of(params: &Params) -> Chunking {
    match params {
        Params::FastCdc2020(_) => Chunking::FastCdc2020,
        Params::RepMaxCdc(_) => Chunking::RepMaxCdc,
    }
}
