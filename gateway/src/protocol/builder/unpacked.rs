//! Artifacts that came compressed, given back as they were before.
//!
//! Nothing marks them: the value is unpacked once to learn whether all of it is zstd, and how long it is. A short one
//! is kept from that; a long one is unpacked again while it is sent. What is no zstd to its last byte, or unpacks to
//! more than allowed, is given as it is. Not here: who wants it so (`builder`).
//!
//! Invariants: the window is at most 8 MiB, and so many decoders run at once as there are permits; no byte is sent
//! before all of the value was seen to unpack. Cancellation: unpacking for a caller who went away ends at its bounds.

use std::{
    fmt,
    io::{self, BufReader, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use zimcache_store::{self as store, ByteRange, ChunkSource, Entry, Reader};
use zimcache_telemetry::task;
use zimcache_types::EntryKind;
use zstd::stream::read::Decoder;

use crate::{Error, cache, error::Result, room::Room};

/// How a zstd frame begins.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest window that is decoded, as a power of two.
const MAX_WINDOW_LOG: u32 = 23;
/// How many times its size a value may become; build outputs full of zeros come close.
const MAX_RATIO: u64 = 1024;
/// Values up to this size are kept from the first pass.
const KEPT_BYTES: usize = 1 << 20;
/// How much is unpacked at a time.
const PIECE_BYTES: usize = 128 << 10;

/// An entry that may be packed.
#[derive(Debug)]
pub(super) struct Packed<'a> {
    pub(super) room: &'a Room<'a>,
    pub(super) key: &'a str,
    pub(super) entry: Entry,
}

/// What a first pass over a value showed.
#[derive(Debug)]
enum Seen {
    /// It is no zstd, or too much of it.
    NotPacked,
    /// It is short: here it is.
    Whole(Bytes),
    /// It is this long.
    Length(u64),
}

impl Packed<'_> {
    /// The entry as it was before it was packed; as it is when it is not. `None` when it is damaged.
    ///
    /// # Errors
    /// `Unavailable` when it was replaced meanwhile, or cannot be read now.
    pub(super) async fn unpack(
        self,
        permits: &Arc<Semaphore>,
        limit: u64,
    ) -> Result<Option<Entry>> {
        if !self.looks_packed().await? {
            return Ok(Some(self.entry));
        }
        let permit = Arc::clone(permits)
            .acquire_owned()
            .await
            .map_err(stopping)?;
        let limit = limit.min(self.entry.value.total_bytes().saturating_mul(MAX_RATIO));
        let (first, handle) = (self.reopen().await?, Handle::current());
        let look = move || look(Packing::new(first, handle, permit)?, limit);
        let seen = task::spawn_blocking("unpack", look)
            .await
            .map_err(stopping)?;
        let Some(seen) = cache::alarm(seen.map(Some), &self.key)? else {
            return Ok(None);
        };
        let value = match seen {
            Seen::NotPacked => self.reopen().await?,
            Seen::Whole(bytes) => Reader::from_bytes(bytes),
            Seen::Length(length) => {
                let permit = Arc::clone(permits)
                    .acquire_owned()
                    .await
                    .map_err(stopping)?;
                let packing = Packing::new(self.reopen().await?, Handle::current(), permit)?;
                let source = Arc::new(Source(Mutex::new(packing)));
                Reader::from_source(source, length, 0..length)
            }
        };
        Ok(Some(Entry {
            value,
            ..self.entry
        }))
    }

    async fn looks_packed(&self) -> Result<bool> {
        if let Some(bytes) = self.entry.value.as_bytes() {
            return Ok(bytes.starts_with(&MAGIC));
        }
        let start = ByteRange::From {
            first: 0,
            last: Some(MAGIC.len() as u64 - 1),
        };
        let start = self.same_version(start).await?;
        Ok(start
            .read_all(MAGIC.len() as u64)
            .await?
            .starts_with(&MAGIC))
    }

    async fn reopen(&self) -> Result<Reader> {
        match self.entry.value.as_bytes() {
            Some(bytes) => Ok(Reader::from_bytes(bytes.clone())),
            None => self.same_version(ByteRange::Full).await,
        }
    }

    async fn same_version(&self, range: ByteRange) -> Result<Reader> {
        let again = self
            .room
            .open_entry(EntryKind::Builder, self.key, range)
            .await?;
        match again {
            Some(again) if again.version == self.entry.version => Ok(again.value),
            _ => Err(store::Error::Retry("the artifact was replaced meanwhile").into()),
        }
    }
}

/// Nothing is waited for in vain but on the way down.
fn stopping<E>(_: E) -> Error {
    store::Error::Stopping.into()
}

/// Unpacks everything once.
fn look(mut packing: Packing, limit: u64) -> store::Result<Seen> {
    let (mut kept, mut length) = (Vec::new(), 0_u64);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let n = match packing.decoder.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => return failure(error).map_or(Ok(Seen::NotPacked), Err),
        };
        length += n as u64;
        if length > limit {
            return Ok(Seen::NotPacked);
        }
        if length <= KEPT_BYTES as u64 {
            kept.extend_from_slice(&piece[..n]);
        }
    }
    Ok(if length <= KEPT_BYTES as u64 {
        Seen::Whole(kept.into())
    } else {
        Seen::Length(length)
    })
}

/// The store's failure behind a failed read; `None` when the bytes were read and do not unpack.
fn failure(error: io::Error) -> Option<store::Error> {
    let cause = error.into_inner()?.downcast::<store::Error>().ok()?;
    Some(*cause)
}

/// A value being unpacked.
struct Packing {
    decoder: Decoder<'static, BufReader<Chunks>>,
    position: u64,
    _permit: OwnedSemaphorePermit,
}

impl Packing {
    fn new(packed: Reader, handle: Handle, permit: OwnedSemaphorePermit) -> store::Result<Packing> {
        let failed = |error| store::Error::disk("set up a decoder", error);
        let chunks = Chunks {
            packed,
            handle,
            chunk: Bytes::new(),
        };
        let mut decoder = Decoder::new(chunks).map_err(failed)?;
        decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
        Ok(Packing {
            decoder,
            position: 0,
            _permit: permit,
        })
    }
}

impl fmt::Debug for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packing")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// A stored value as a stream that blocks.
struct Chunks {
    packed: Reader,
    handle: Handle,
    chunk: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            match self.handle.block_on(self.packed.next_chunk()) {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
            }
        }
        let n = self.chunk.len().min(buf.len());
        self.chunk.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

/// A packed value, read as if it were not.
#[derive(Debug)]
struct Source(Mutex<Packing>);

impl ChunkSource for Source {
    fn read_now(&self, _position: u64, _end: u64) -> store::Result<Option<Bytes>> {
        Ok(None)
    }

    fn read_blocking(&self, position: u64, end: u64) -> store::Result<Bytes> {
        const CHANGED: store::Error = store::Error::Corrupt("a value unpacked differently twice");
        let mut packing = self.0.lock();
        if packing.position != position {
            return Err(CHANGED);
        }
        let wanted = (end - position).min(PIECE_BYTES as u64);
        let mut piece = vec![0; wanted as usize];
        let read = packing.decoder.read(&mut piece);
        let n = read.map_err(|error| failure(error).unwrap_or(CHANGED))?;
        if n == 0 {
            return Err(CHANGED);
        }
        packing.position += n as u64;
        piece.truncate(n);
        Ok(piece.into())
    }
}
