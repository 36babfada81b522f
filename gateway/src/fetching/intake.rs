//! From a download into the store, whose blobs are named by a digest that nobody knows yet.
//!
//! A body whose only checksum is of the wanted function is streamed under that name, and the store verifies it. Others
//! are hashed first: up to 1 MiB in memory; more in the store itself, as an entry that is read back and deleted. So memory
//! is bounded, no other disk than the store's is needed, and what a crash leaves behind is evicted like anything that
//! nobody asks for. Invariant: nothing is visible that no checksum satisfies.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use bytes::Bytes;
use zimcache_store::{self as store, ByteRange, EntryMeta, Precondition, Reader};
use zimcache_types::{Digest, EntryKey, EntryKind, Hash};

use super::{Failure, Sums, Wanted, download::Download};
use crate::{
    Error,
    cache::{Cache, Chunks, Named},
    error::Result as Taken,
    uploads::Put,
};

/// Bodies up to this size are hashed in memory.
const SMALL_BYTES: u64 = 1 << 20;

/// Streams a download into the store; gives the digest under which it is there.
pub(super) async fn store(
    cache: &Cache,
    wanted: &Wanted,
    mut download: Download,
) -> Result<Digest, Failure> {
    let checksums = wanted.checksums.as_ref();
    let stored = match checksums.and_then(|sums| sums.only(wanted.function)) {
        Some(hash) => under_name(cache, wanted, hash, &mut download).await,
        None => hashed(cache, wanted, &mut download).await,
    };
    // What the store says of a body that broke off is not why it broke off.
    stored.map_err(|failure| download.failure().unwrap_or(failure))
}

async fn under_name(
    cache: &Cache,
    wanted: &Wanted,
    hash: Hash,
    download: &mut Download,
) -> Result<Digest, Failure> {
    let named = certain(Digest {
        hash,
        size_bytes: download.length(),
    });
    let put = cache.put_blob(&wanted.namespace, &named, Put::LEASED, download);
    match put.await {
        Ok(()) => Ok(Digest::sized(hash, download.taken_bytes())),
        Err(Error::WrongHash | Error::Store(store::Error::DigestMismatch { .. })) => {
            Err(Failure::WrongChecksum)
        }
        Err(error) => Err(error.into()),
    }
}

async fn hashed(
    cache: &Cache,
    wanted: &Wanted,
    download: &mut Download,
) -> Result<Digest, Failure> {
    let checksums = wanted.checksums.as_ref();
    let sums = Sums::new(wanted.function, checksums, download.length());
    let mut body = Hashed {
        download,
        ahead: VecDeque::new(),
        sums: sums.ok_or(Failure::NoSize)?,
        taken: 0,
    };
    if body.read_ahead().await? {
        let (sums, taken, chunks) = (body.sums, body.taken, body.ahead);
        let digest = sums.finish(taken, checksums);
        let digest = digest.ok_or(Failure::WrongChecksum)?;
        let named = certain(digest);
        let mut body = Small(chunks);
        let put = cache.put_blob(&wanted.namespace, &named, Put::LEASED, &mut body);
        put.await?;
        return Ok(digest);
    }
    let key = spool_key(wanted)?;
    let put = cache.put_entry(&key, EntryMeta::default(), Precondition::None, &mut body);
    put.await?;
    let digest = body.sums.finish(body.taken, checksums);
    let moved = match digest {
        Some(digest) => copy(cache, wanted, &key, digest).await,
        None => Err(Failure::WrongChecksum),
    };
    cache.delete_entry(&key).await?;
    moved
}

/// Copies what lies in an entry to a blob.
async fn copy(
    cache: &Cache,
    wanted: &Wanted,
    key: &EntryKey,
    digest: Digest,
) -> Result<Digest, Failure> {
    let entry = cache.open_entry(key, ByteRange::Full).await?;
    let mut body = Spooled(entry.ok_or(Failure::BrokenOff)?.value);
    let named = certain(digest);
    let put = cache.put_blob(&wanted.namespace, &named, Put::LEASED, &mut body);
    put.await?;
    Ok(digest)
}

/// Where a large body lies until its digest is known. The same download finds the same place again; should another one
/// ever meet it there, the digest is wrong and the download fails.
fn spool_key(wanted: &Wanted) -> Result<EntryKey, Failure> {
    let mut hasher = DefaultHasher::new();
    wanted.hash(&mut hasher);
    let text = format!("download/{:016x}", hasher.finish());
    let key = EntryKey::new(wanted.namespace.clone(), EntryKind::Asset, text);
    key.ok_or(Failure::BrokenOff)
}

const fn certain(digest: Digest) -> Named {
    Named {
        digest,
        certain: true,
    }
}

/// A download that is hashed while it is read.
#[derive(Debug)]
struct Hashed<'a> {
    download: &'a mut Download,
    /// What was read ahead.
    ahead: VecDeque<Bytes>,
    sums: Sums,
    taken: u64,
}

impl Hashed<'_> {
    /// Reads until the end, or until there is more than may be kept in memory; true at the end.
    async fn read_ahead(&mut self) -> Result<bool, Failure> {
        while self.taken <= SMALL_BYTES {
            match self.receive().await.transpose()? {
                Some(chunk) => self.ahead.push_back(chunk),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    async fn receive(&mut self) -> Option<Taken<Bytes>> {
        let chunk = self.download.next().await?;
        Some(chunk.inspect(|chunk| {
            self.sums.update(chunk);
            self.taken += chunk.len() as u64;
        }))
    }
}

impl Chunks for Hashed<'_> {
    async fn next(&mut self) -> Option<Taken<Bytes>> {
        match self.ahead.pop_front() {
            Some(chunk) => Some(Ok(chunk)),
            None => self.receive().await,
        }
    }

    fn announced_bytes(&self) -> Option<u64> {
        self.download.length()
    }
}

/// A body in memory.
#[derive(Debug)]
struct Small(VecDeque<Bytes>);

impl Chunks for Small {
    async fn next(&mut self) -> Option<Taken<Bytes>> {
        self.0.pop_front().map(Ok)
    }
}

/// A body that lies in the store.
#[derive(Debug)]
struct Spooled(Reader);

impl Chunks for Spooled {
    async fn next(&mut self) -> Option<Taken<Bytes>> {
        let chunk = self.0.next_chunk().await?;
        Some(chunk.map_err(Error::from))
    }
}
