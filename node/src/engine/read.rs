//! Reading records: from memory at once where the page cache has them, else on a thread that may wait.
//!
//! Nothing leaves before its checksum was verified. A checksum failure is read once more around the page cache before
//! it counts as damage. A slot that moved while it was being read is looked up again.

use std::{io, sync::Arc};

use bytes::Bytes;
use zimcache_store::{ByteRange, Error, Reader, Result};

use super::{
    buffers::READ_BYTES,
    encoded::{AT_ONCE_BYTES, EncodedSource},
    entry_front::front_len,
    leases::LeaseClock,
    manifest::PartsOf,
    page::{PAGE, PageBuf},
    record::{self, Encoding, Header, Kind},
    segment::Segment,
    shared::{Key, Shared},
    slot::{KeyHash, View},
    value::{PartsSource, RecordSource},
};

/// How often a look-up is repeated because the record moved meanwhile.
pub(crate) const ATTEMPTS: usize = 8;

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    Yes,
}

/// A record that was found and verified.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) header: Header,
    pub(crate) view: View,
    pub(crate) segment: Arc<Segment>,
    /// The checksums of the payload's blocks.
    pub(crate) sums: Bytes,
    /// The payload, verified; not there for a large record, which is read through a source.
    pub(crate) payload: Option<Bytes>,
}

impl Loaded {
    /// The payload. Empty for a large record, which is read through a source.
    pub(crate) fn payload(&self) -> Bytes {
        self.payload.clone().unwrap_or_default()
    }
}

/// What a look-up came to.
#[derive(Debug)]
pub(crate) enum Lookup {
    Found(Box<Loaded>),
    Absent,
    /// The answer is on the disk: ask again with [`Wait::Yes`].
    WouldWait,
}

/// What reading one candidate came to.
enum Attempt {
    Found(Box<Loaded>),
    OtherKey,
    Stale,
    Damaged,
    WouldWait,
}

impl Attempt {
    /// A verified record, if it is the key's.
    fn of(key: &Key, loaded: Loaded) -> Attempt {
        if Key::of(&loaded.header) != *key {
            return Attempt::OtherKey;
        }
        Attempt::Found(Box::new(loaded))
    }
}

impl Shared {
    /// Finds the newest live record of a key.
    pub(crate) fn look_up(
        &self,
        key: &Key,
        hash: KeyHash,
        touch: Option<LeaseClock>,
        wait: Wait,
    ) -> Result<Lookup> {
        for _ in 0..ATTEMPTS {
            let candidates = match touch {
                Some(touch) => self.index.find_and_touch(hash, touch),
                None => self.index.find(hash),
            };
            let mut again = false;
            for view in candidates.iter().filter(|view| !view.tombstone) {
                match self.attempt(key, view, wait)? {
                    Attempt::Found(loaded) => return Ok(Lookup::Found(loaded)),
                    Attempt::WouldWait => return Ok(Lookup::WouldWait),
                    Attempt::OtherKey => {}
                    Attempt::Stale => again = true,
                    Attempt::Damaged => again |= !self.settle_damage(hash, view),
                }
            }
            if !again {
                return Ok(Lookup::Absent);
            }
        }
        Ok(Lookup::Absent)
    }

    /// Finds the newest live record of a key, waiting for the disk off the async threads where needed.
    pub(crate) async fn load(
        self: &Arc<Self>,
        key: Key,
        hash: KeyHash,
        touch: Option<LeaseClock>,
    ) -> Result<Option<Box<Loaded>>> {
        let lookup = match self.look_up(&key, hash, touch, Wait::No)? {
            Lookup::WouldWait => {
                let shared = Arc::clone(self);
                let waiting = move || shared.look_up(&key, hash, None, Wait::Yes);
                tokio::task::spawn_blocking(waiting)
                    .await
                    .unwrap_or(Err(Error::Stopping))?
            }
            settled => settled,
        };
        Ok(match lookup {
            Lookup::Found(loaded) => Some(loaded),
            Lookup::Absent | Lookup::WouldWait => None,
        })
    }

    fn attempt(&self, key: &Key, view: View, wait: Wait) -> Result<Attempt> {
        let Some(segment) = self.segments.get(view.location.segment) else {
            return Ok(Attempt::Stale);
        };
        let offset = view.location.offset;
        let whole = view.size.bytes() <= READ_BYTES;
        let length = if whole {
            view.size.bytes()
        } else {
            record::HEADER + 4 * 17
        };
        let length = length.min(segment.tail().saturating_sub(offset) as usize);
        if whole && let Some(kept) = self.hot.get(&segment, offset) {
            let loaded = Loaded {
                header: kept.header,
                view,
                segment,
                sums: Bytes::new(),
                payload: Some(kept.payload),
            };
            return Ok(Attempt::of(key, loaded));
        }
        let read = self
            .buffers
            .read(length, |buffer| read_file(&segment, buffer, offset, wait));
        let Some(bytes) = read.map_err(|error| Error::disk("read a record", error))? else {
            return Ok(Attempt::WouldWait);
        };
        let bytes = match check(&segment, bytes, offset, whole) {
            Some(checked) => checked,
            None if wait == Wait::No => return Ok(Attempt::WouldWait),
            None => match read_around_cache(&segment, offset, length)
                .map_err(|error| Error::disk("read a record again", error))?
                .and_then(|bytes| check(&segment, bytes, offset, whole))
            {
                Some(checked) => checked,
                None => return Ok(Attempt::Damaged),
            },
        };
        let (header, record) = bytes;
        let at = header.payload_offset();
        let mut loaded = Loaded {
            header,
            view,
            segment,
            sums: record.slice(record::HEADER..at),
            payload: whole.then(|| record.slice(at..at + header.stored as usize)),
        };
        if whole && view.freq > 1 && !self.keep_hot(&mut loaded) {
            return Ok(match wait {
                Wait::No => Attempt::WouldWait,
                Wait::Yes => Attempt::Damaged,
            });
        }
        Ok(Attempt::of(key, loaded))
    }

    /// Offers a record that is read again and again to the RAM tier, decoded if it is small; `false` when it does not
    /// decode. Decoded, because that serves fastest: a hit is neither read, nor checked, nor decoded again.
    fn keep_hot(&self, loaded: &mut Loaded) -> bool {
        let Some(payload) = &loaded.payload else {
            return true;
        };
        let header = &mut loaded.header;
        if header.encoding != Encoding::Identity {
            // A part stays as it is stored: the zstd form of its value is made of that.
            if header.raw_size > AT_ONCE_BYTES || header.kind == Kind::Part {
                return true;
            }
            let Some((front, value)) = value_of(header, payload) else {
                return false;
            };
            let Ok(decoded) = self.decode(header, &value) else {
                return false;
            };
            let mut whole = Vec::with_capacity(front.len() + decoded.len());
            whole.extend_from_slice(&front);
            whole.extend_from_slice(&decoded);
            (header.encoding, header.stored) = (Encoding::Identity, whole.len() as u32);
            loaded.payload = Some(whole.into());
        }
        if let Some(payload) = &loaded.payload {
            let offset = loaded.view.location.offset;
            self.hot
                .offer(&loaded.segment, offset, &loaded.header, payload);
        }
        true
    }

    /// A record failed twice: forget it, unless the slot has moved on. Says whether that settled it.
    fn settle_damage(&self, hash: KeyHash, view: View) -> bool {
        let still_there = self
            .index
            .find(hash)
            .iter()
            .any(|now| now.location == view.location);
        if still_there {
            self.lose(hash, view.location, "record");
        }
        still_there
    }

    /// A reader over the asked range of a blob's record; `None` when parts of it were lost.
    pub(crate) fn blob_reader(
        self: &Arc<Self>,
        hash: KeyHash,
        loaded: &Loaded,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        if loaded.header.kind == Kind::Manifest {
            let parts = PartsOf::decode(&loaded.payload(), hash, &loaded.header)
                .ok_or(Error::Corrupt("a manifest does not parse"))?;
            return self.parts_reader(parts, range);
        }
        let total = loaded.header.raw_size;
        let range = range.resolve(total)?;
        if loaded.header.encoding != Encoding::Identity {
            let source = EncodedSource::of_blob(Arc::clone(self), hash, loaded);
            return Ok(Some(Reader::from_source(Arc::new(source), total, range)));
        }
        if let Some(payload) = &loaded.payload {
            return Ok(Some(Reader::from_bytes_range(payload, range)));
        }
        let source = RecordSource::new(Arc::clone(self), hash, loaded);
        Ok(Some(Reader::from_source(Arc::new(source), total, range)))
    }

    /// A reader over the asked range of a value in parts; `None` when a part was lost: then the value is,
    /// whatever was asked of it.
    pub(crate) fn parts_reader(
        self: &Arc<Self>,
        parts: PartsOf,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        let source = PartsSource::new(Arc::clone(self), parts);
        if !self.has_all_parts(&parts) {
            drop(source);
            self.drop_incomplete(&parts);
            return Ok(None);
        }
        let range = range.resolve(parts.total)?;
        let reader = Reader::from_source(Arc::new(source), parts.total, range);
        Ok(Some(reader))
    }
}

/// A payload as front and value: entries have a front, which is stored as it is.
pub(crate) fn value_of(header: &Header, payload: &Bytes) -> Option<(Bytes, Bytes)> {
    let front = match header.kind {
        Kind::Entry => front_len(payload)?,
        _ => 0,
    };
    Some((payload.slice(..front), payload.slice(front..)))
}

/// The same bytes, straight from the disk.
pub(crate) fn read_around_cache(
    segment: &Segment,
    offset: u64,
    length: usize,
) -> io::Result<Option<Bytes>> {
    let start = offset / PAGE as u64 * PAGE as u64;
    let skip = (offset - start) as usize;
    let mut pages = PageBuf::zeroed((skip + length).div_ceil(PAGE));
    let read = segment.file.read_direct(pages.as_mut_pages(), start)?;
    let end = read.min(skip + length);
    Ok((end > skip).then(|| Bytes::copy_from_slice(&pages.bytes()[skip..end])))
}

/// Reads and verifies a record of at most `length` bytes, waiting for the disk; around the page cache if it fails
/// the first time. `None`: it fails both times.
pub(crate) fn read_whole(
    segment: &Segment,
    offset: u64,
    length: usize,
) -> io::Result<Option<(Header, Bytes)>> {
    let length = length.min(segment.tail().saturating_sub(offset) as usize);
    let mut bytes = vec![0; length];
    let read = segment.file.read_at(&mut bytes, offset)?;
    bytes.truncate(read);
    let checked = match check(segment, bytes.into(), offset, true) {
        Some(checked) => Some(checked),
        None => read_around_cache(segment, offset, length)?
            .and_then(|again| check(segment, again, offset, true)),
    };
    Ok(checked.map(|(header, record)| {
        let at = header.payload_offset();
        (header, record.slice(at..at + header.stored as usize))
    }))
}

/// Reads from memory, or from the disk if that is allowed.
pub(crate) fn read_file(
    segment: &Segment,
    buffer: &mut [u8],
    offset: u64,
    wait: Wait,
) -> io::Result<Option<usize>> {
    match wait {
        Wait::No => segment.file.read_now(buffer, offset),
        Wait::Yes => segment.file.read_at(buffer, offset).map(Some),
    }
}

/// Header and bytes, if everything there is of the record passes.
fn check(segment: &Segment, bytes: Bytes, offset: u64, whole: bool) -> Option<(Header, Bytes)> {
    let header = record::open(&bytes, segment.salt, offset)?;
    let sound = !whole || record::payload_is_sound(&bytes, &header);
    sound.then_some((header, bytes))
}
