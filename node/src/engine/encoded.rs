//! Values stored encoded, on their way out: decoded record by record, or handed out as they are stored.
//!
//! A decoded record is never larger than its header declares, at most
//! [`MAX_PAYLOAD`](super::record::MAX_PAYLOAD). Small ones are decoded where they are asked for, larger ones only where
//! waiting is allowed. A record that does not decode to its size is lost like one that fails its checksum.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_store::{ChunkSource, Error, Reader, Result};

use super::{
    codec::wrap_in_zstd,
    manifest::PartsOf,
    read::{Loaded, Wait},
    record::{Encoding, Header},
    shared::Shared,
    slot::{KeyHash, Location},
    value::{CHUNK_BYTES, Extent, PartsSource, RecordSource},
};

/// Largest value decoded on an async thread: a few dozen microseconds.
pub(crate) const AT_ONCE_BYTES: u64 = 64 << 10;

const BAD_FRAME: Error = Error::Corrupt("a stored frame does not decode to its size");

impl Shared {
    /// Decodes the value of a record. `stored` is the value alone, without an entry's front.
    pub(crate) fn decode(&self, header: &Header, stored: &[u8]) -> Result<Bytes> {
        let length = header.raw_size as usize;
        let decoded = self.buffers.read(length, |buffer| {
            let fits = self.codec.decode(header.encoding, stored, buffer);
            if fits {
                Ok(Some(length))
            } else {
                Err(BAD_FRAME)
            }
        })?;
        decoded.ok_or(BAD_FRAME)
    }
}

/// Where the stored form of a value is.
#[derive(Debug)]
enum Stored {
    Here(Bytes),
    OnDisk(Extent),
}

/// A value in one record, encoded.
#[derive(Debug)]
pub(crate) struct EncodedSource {
    shared: Arc<Shared>,
    hash: KeyHash,
    location: Location,
    header: Header,
    stored: Stored,
    decoded: OnceLock<Bytes>,
}

impl EncodedSource {
    /// A blob's record, read whole or not.
    pub(crate) fn of_blob(shared: Arc<Shared>, hash: KeyHash, loaded: &Loaded) -> EncodedSource {
        let stored = match &loaded.payload {
            Some(payload) => Stored::Here(payload.clone()),
            None => Stored::OnDisk(Extent::of(loaded)),
        };
        EncodedSource::new(shared, hash, loaded, stored)
    }

    /// An entry's value, which starts behind its front.
    pub(crate) fn of_entry(
        shared: Arc<Shared>,
        hash: KeyHash,
        loaded: &Loaded,
        value: Bytes,
    ) -> EncodedSource {
        EncodedSource::new(shared, hash, loaded, Stored::Here(value))
    }

    fn new(shared: Arc<Shared>, hash: KeyHash, loaded: &Loaded, stored: Stored) -> EncodedSource {
        EncodedSource {
            shared,
            hash,
            location: loaded.view.location,
            header: loaded.header,
            stored,
            decoded: OnceLock::new(),
        }
    }

    fn decoded(&self, wait: Wait) -> Result<Option<&Bytes>> {
        if let Some(decoded) = self.decoded.get() {
            return Ok(Some(decoded));
        }
        if wait == Wait::No && self.header.raw_size > AT_ONCE_BYTES {
            return Ok(None);
        }
        let stored = match &self.stored {
            Stored::Here(stored) => Some(stored.clone()),
            Stored::OnDisk(extent) => extent.read_all(&self.shared, wait)?,
        };
        let Some(stored) = stored else {
            return Ok(None);
        };
        let decoded = self.shared.decode(&self.header, &stored)?;
        Ok(Some(self.decoded.get_or_init(|| decoded)))
    }

    fn read(&self, position: u64, end: u64, wait: Wait) -> Result<Option<Bytes>> {
        let decoded = self.decoded(wait);
        if wait == Wait::Yes && matches!(decoded, Err(Error::Corrupt(_))) {
            self.shared.lose(self.hash, self.location, "frame");
        }
        Ok(decoded?.map(|decoded| chunk_of(decoded, position, end)))
    }
}

/// A piece of a decoded value small enough to be sent at once.
fn chunk_of(decoded: &Bytes, position: u64, end: u64) -> Bytes {
    let end = end.min(position + CHUNK_BYTES).min(decoded.len() as u64);
    decoded.slice(position as usize..end as usize)
}

impl ChunkSource for EncodedSource {
    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>> {
        match self.read(position, end, Wait::No) {
            // Damage is settled where waiting is allowed.
            Err(Error::Corrupt(_)) => Ok(None),
            read => read,
        }
    }

    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes> {
        let read = self.read(position, end, Wait::Yes)?;
        read.ok_or(Error::Corrupt("a read that waits came back empty"))
    }

    fn zstd_form(&self) -> Option<Reader> {
        if self.header.encoding != Encoding::Zstd {
            return None;
        }
        Some(match &self.stored {
            Stored::Here(stored) => Reader::from_bytes(stored.clone()),
            Stored::OnDisk(extent) => {
                let total = u64::from(self.header.stored);
                let shared = Arc::clone(&self.shared);
                let source = RecordSource::of_extent(shared, self.hash, extent.clone());
                Reader::from_source(Arc::new(source), total, 0..total)
            }
        })
    }
}

/// The zstd form of a value in parts: one frame after the other, parts that are stored as they came wrapped in one.
#[derive(Debug)]
pub(crate) struct FramesSource {
    parts: PartsSource,
    total: u64,
    /// The frame that was read last, where it starts, and the number of its part.
    current: Mutex<Option<(u32, u64, Bytes)>>,
}

impl FramesSource {
    /// The frames of these parts; their manifest says how long they are together.
    pub(crate) fn new(shared: Arc<Shared>, parts: PartsOf) -> FramesSource {
        FramesSource {
            parts: PartsSource::new(shared, parts),
            total: parts.zstd_bytes,
            current: Mutex::new(None),
        }
    }

    /// The frame in which a position lies, and where it starts. Readers go forward, so it is the last one or the next.
    fn frame_at(&self, position: u64) -> Result<(u64, Bytes)> {
        let (mut part, mut start) = match &*self.current.lock() {
            Some((_, start, frame))
                if (*start..*start + frame.len() as u64).contains(&position) =>
            {
                return Ok((*start, frame.clone()));
            }
            Some((part, start, frame)) if position >= *start + frame.len() as u64 => {
                (part + 1, start + frame.len() as u64)
            }
            _ => (0, 0),
        };
        while part < self.parts.count() {
            let frame = self.frame(part)?;
            let end = start + frame.len() as u64;
            *self.current.lock() = Some((part, start, frame.clone()));
            if end > self.total {
                break;
            }
            if position < end {
                return Ok((start, frame));
            }
            (part, start) = (part + 1, end);
        }
        Err(self
            .parts
            .lose_value("frames are not as long as their manifest says"))
    }

    fn frame(&self, part: u32) -> Result<Bytes> {
        let (encoding, stored) = self.parts.stored(part)?;
        match encoding {
            Encoding::Zstd => Ok(stored),
            Encoding::Identity => Ok(wrap_in_zstd(&stored).into()),
            Encoding::Lz4 => Err(self
                .parts
                .lose_value("a part is not encoded as its manifest says")),
        }
    }
}

impl ChunkSource for FramesSource {
    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>> {
        let current = self.current.lock();
        let Some((_, start, frame)) = &*current else {
            return Ok(None);
        };
        let inside = (*start..*start + frame.len() as u64).contains(&position);
        Ok(inside.then(|| chunk_of(frame, position - start, end - start)))
    }

    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes> {
        let (start, frame) = self.frame_at(position)?;
        Ok(chunk_of(&frame, position - start, end - start))
    }
}
