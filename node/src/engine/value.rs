//! Values too large for one read: a large record, or the parts of a manifest, read chunk by chunk.
//!
//! A part is found through the index for every chunk that starts in it, so parts may be moved while a value is being
//! read. Losing one part loses the value: the manifest goes, and the reader's stream ends with an error. Not here: what
//! a manifest says (`manifest`), decoding (`encoded`).

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_store::{ChunkSource, Error, Reader, Result};

use super::{
    checksum::{CHECKED_BLOCK, crc},
    encoded::FramesSource,
    manifest::PartsOf,
    read::{Loaded, Lookup, Wait, read_around_cache, read_file},
    record::{Encoding, Header},
    segment::Segment,
    shared::Shared,
    slot::{KeyHash, Location},
};

/// Most bytes of one chunk: small enough that what was read is still in the processor's cache when it is sent.
pub(crate) const CHUNK_BYTES: u64 = 256 << 10;

/// A record whose payload is read in chunks.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    segment: Arc<Segment>,
    header: Header,
    location: Location,
    sums: Bytes,
    /// The payload, if it was read with the header.
    payload: Option<Bytes>,
}

impl Extent {
    pub(crate) fn of(loaded: &Loaded) -> Extent {
        Extent {
            segment: Arc::clone(&loaded.segment),
            header: loaded.header,
            location: loaded.view.location,
            sums: loaded.sums.clone(),
            payload: loaded.payload.clone(),
        }
    }

    /// The whole payload as stored, verified; `None` when that would wait and must not.
    pub(crate) fn read_all(&self, shared: &Shared, wait: Wait) -> Result<Option<Bytes>> {
        if let Some(payload) = &self.payload {
            return Ok(Some(payload.clone()));
        }
        let stored = u64::from(self.header.stored);
        let mut all = Vec::with_capacity(stored as usize);
        while (all.len() as u64) < stored {
            let Some(bytes) = self.read(shared, all.len() as u64, stored, wait)? else {
                return Ok(None);
            };
            all.extend_from_slice(&bytes);
        }
        Ok(Some(all.into()))
    }

    /// Verified payload bytes from `from`, at most up to `to`; `None` when that would wait and must not.
    fn read(&self, shared: &Shared, from: u64, to: u64, wait: Wait) -> Result<Option<Bytes>> {
        if let Some(payload) = &self.payload {
            let end = to.min(payload.len() as u64);
            return Ok(Some(payload.slice(from as usize..end as usize)));
        }
        let block = CHECKED_BLOCK as u64;
        let start = from / block * block;
        let stored = u64::from(self.header.stored);
        let end = to
            .div_ceil(block)
            .saturating_mul(block)
            .min(start + CHUNK_BYTES)
            .min(stored);
        let at = self.location.offset + self.header.payload_offset() as u64 + start;
        let length = (end - start) as usize;
        let read = shared
            .buffers
            .read(length, |buffer| read_file(&self.segment, buffer, at, wait));
        let Some(bytes) = read.map_err(|error| Error::disk("read a value", error))? else {
            return Ok(None);
        };
        let bytes = if self.passes(&bytes, start, length) {
            bytes
        } else if wait == Wait::No {
            return Ok(None);
        } else {
            let again = read_around_cache(&self.segment, at, length);
            let again = again.map_err(|error| Error::disk("read a value again", error))?;
            again
                .filter(|bytes| self.passes(bytes, start, length))
                .ok_or(Error::Corrupt("a stored block fails its checksum"))?
        };
        Ok(Some(bytes.slice(
            (from - start) as usize..(to.min(end) - start) as usize,
        )))
    }

    fn passes(&self, bytes: &[u8], start: u64, length: usize) -> bool {
        let first = start as usize / CHECKED_BLOCK;
        let sums = self.sums[first * 4..].chunks_exact(4);
        bytes.len() == length
            && bytes
                .chunks(CHECKED_BLOCK)
                .zip(sums)
                .all(|(block, sum)| crc(block).to_le_bytes() == sum)
    }
}

/// A large blob in one record.
#[derive(Debug)]
pub(crate) struct RecordSource {
    shared: Arc<Shared>,
    hash: KeyHash,
    extent: Extent,
}

impl RecordSource {
    pub(crate) fn new(shared: Arc<Shared>, hash: KeyHash, loaded: &Loaded) -> RecordSource {
        RecordSource::of_extent(shared, hash, Extent::of(loaded))
    }

    /// The payload of a record as it is stored.
    pub(crate) fn of_extent(shared: Arc<Shared>, hash: KeyHash, extent: Extent) -> RecordSource {
        RecordSource {
            shared,
            hash,
            extent,
        }
    }
}

impl ChunkSource for RecordSource {
    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>> {
        self.extent.read(&self.shared, position, end, Wait::No)
    }

    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes> {
        let read = self.extent.read(&self.shared, position, end, Wait::Yes);
        if matches!(read, Err(Error::Corrupt(_))) {
            self.shared.lose(self.hash, self.extent.location, "payload");
        }
        read?.ok_or(Error::Corrupt("a read that waits came back empty"))
    }
}

/// A value in parts.
#[derive(Debug)]
pub(crate) struct PartsSource {
    shared: Arc<Shared>,
    parts: PartsOf,
    current: Mutex<Option<Piece>>,
}

/// The part that was read last.
#[derive(Debug, Clone)]
struct Piece {
    number: u32,
    extent: Extent,
    decoded: Option<Bytes>,
}

impl PartsSource {
    pub(crate) fn new(shared: Arc<Shared>, parts: PartsOf) -> PartsSource {
        *shared.reading.lock().entry(parts.upload).or_default() += 1;
        PartsSource {
            shared,
            parts,
            current: Mutex::new(None),
        }
    }

    fn read(&self, position: u64, end: u64, wait: Wait) -> Result<Option<Bytes>> {
        let part_bytes = u64::from(self.parts.part_bytes);
        let part = (position / part_bytes) as u32;
        let Some(piece) = self.piece(part, wait)? else {
            return Ok(None);
        };
        let base = u64::from(part) * part_bytes;
        let to = (end - base).min(piece.extent.header.raw_size);
        if position - base >= to {
            return Err(self.lose_value("a part is shorter than its manifest says"));
        }
        let read = self.read_piece(&piece, position - base, to, wait);
        read.map_err(|error| self.settle_damage(&piece, error))
    }

    fn read_piece(&self, piece: &Piece, from: u64, to: u64, wait: Wait) -> Result<Option<Bytes>> {
        if piece.extent.header.encoding == Encoding::Identity {
            return piece.extent.read(&self.shared, from, to, wait);
        }
        if let Some(decoded) = &piece.decoded {
            let to = to.min(from + CHUNK_BYTES);
            return Ok(Some(decoded.slice(from as usize..to as usize)));
        }
        if wait == Wait::No {
            return Ok(None);
        }
        let stored = piece.extent.read_all(&self.shared, wait)?;
        let stored = stored.ok_or(Error::Corrupt("a read that waits came back empty"))?;
        let decoded = self.shared.decode(&piece.extent.header, &stored)?;
        let piece = Piece {
            decoded: Some(decoded),
            ..piece.clone()
        };
        *self.current.lock() = Some(piece.clone());
        self.read_piece(&piece, from, to, wait)
    }

    /// A damaged part is lost, and the value with it.
    fn settle_damage(&self, piece: &Piece, error: Error) -> Error {
        let Error::Corrupt(what) = error else {
            return error;
        };
        let hash = self.shared.hash(&self.parts.key(piece.number));
        self.shared.lose(hash, piece.extent.location, "part");
        self.lose_value(what)
    }

    /// How many parts there are.
    pub(crate) const fn count(&self) -> u32 {
        self.parts.count()
    }

    /// A part as it is stored, waiting for the disk.
    pub(crate) fn stored(&self, part: u32) -> Result<(Encoding, Bytes)> {
        let empty = Error::Corrupt("a read that waits came back empty");
        let Some(piece) = self.piece(part, Wait::Yes)? else {
            return Err(empty);
        };
        let read = piece.extent.read_all(&self.shared, Wait::Yes);
        let stored = read.map_err(|error| self.settle_damage(&piece, error))?;
        Ok((piece.extent.header.encoding, stored.ok_or(empty)?))
    }

    fn piece(&self, part: u32, wait: Wait) -> Result<Option<Piece>> {
        if let Some(piece) = &*self.current.lock()
            && piece.number == part
        {
            return Ok(Some(piece.clone()));
        }
        let key = self.parts.key(part);
        let touch = self.shared.lease_clock();
        match self
            .shared
            .look_up(&key, self.shared.hash(&key), Some(touch), wait)?
        {
            Lookup::Found(loaded) => {
                let piece = Piece {
                    number: part,
                    extent: Extent::of(&loaded),
                    decoded: None,
                };
                *self.current.lock() = Some(piece.clone());
                Ok(Some(piece))
            }
            Lookup::WouldWait => Ok(None),
            Lookup::Absent => Err(self.lose_value("a part is missing")),
        }
    }

    /// One part is gone, so the value is: its manifest must not be found again.
    pub(crate) fn lose_value(&self, what: &'static str) -> Error {
        let (upload, owner) = (self.parts.upload, self.parts.owner);
        while let Some((manifest, _)) = self.shared.manifest_of(upload, owner) {
            let total = Some(self.parts.total);
            self.shared
                .lose_sized(owner, manifest.location, what, total);
        }
        Error::Corrupt(what)
    }
}

impl Drop for PartsSource {
    fn drop(&mut self) {
        let mut reading = self.shared.reading.lock();
        if let Some(readers) = reading.get_mut(&self.parts.upload) {
            *readers -= 1;
            if *readers == 0 {
                reading.remove(&self.parts.upload);
            }
        }
    }
}

impl ChunkSource for PartsSource {
    fn zstd_form(&self) -> Option<Reader> {
        let total = self.parts.zstd_bytes;
        let source = FramesSource::new(Arc::clone(&self.shared), self.parts);
        (total > 0).then(|| Reader::from_source(Arc::new(source), total, 0..total))
    }

    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>> {
        self.read(position, end, Wait::No)
    }

    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes> {
        self.read(position, end, Wait::Yes)?
            .ok_or(Error::Corrupt("a read that waits came back empty"))
    }
}
