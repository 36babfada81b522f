//! An entry as an object: a front that says which version it is, the value, and a SHA-256 of both at the end.
//!
//! ```text
//!  0  "ZCE1"          magic and version of this layout
//!  4  u32             length of the front, from the magic to the last field
//!  8  u64  u32        version: clock, writer
//! 20  u64             when it was put, milliseconds since the Unix epoch
//! 28  u8              1: it says that the key is deleted, and there is no value
//! 29  u16 + bytes     key text
//!     u16 + bytes     content type; length 0xffff: none
//!     u16             fields of client metadata, each
//!     u16 + bytes     its name
//!     u16 + bytes     its value
//!     value           object size - front - 32 bytes
//!     32 bytes        SHA-256 of everything before
//! ```
//!
//! Numbers are little-endian. The first 32 bytes are enough to know the version, so that a ranged read of them stands
//! for metadata of the object, which tools that copy buckets may drop. Blobs need no front: their name verifies them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use zimcache_store::{EntryMeta, RecordHead, Version};
use zimcache_types::Timestamp;

use crate::{Error, Result};

const MAGIC: &[u8; 4] = b"ZCE1";
/// Bytes that are enough for [`peek`].
pub(crate) const PEEK_BYTES: u64 = 32;
/// Length of the sum at the end.
pub(crate) const SUM_BYTES: u64 = 32;
/// Longest front we read: the longest key text, all metadata in fields of one byte, and room.
const MAX_FRONT_BYTES: usize = 64 << 10;
const NO_CONTENT_TYPE: u16 = u16::MAX;

/// What stands before a value in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Front {
    pub(crate) head: RecordHead,
    pub(crate) created: Timestamp,
}

impl Front {
    /// Its bytes.
    ///
    /// # Errors
    /// `Corrupt` when a field is longer than any that we accept.
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let mut out = BytesMut::with_capacity(256);
        out.put_slice(MAGIC);
        out.put_u32_le(0);
        out.put_u64_le(self.head.version.clock);
        out.put_u32_le(self.head.version.writer);
        out.put_u64_le(self.created.0);
        out.put_u8(u8::from(self.head.deleted));
        put_text(&mut out, &self.head.text)?;
        match &self.head.meta.content_type {
            Some(text) => put_text(&mut out, text)?,
            None => out.put_u16_le(NO_CONTENT_TYPE),
        }
        let fields = &self.head.meta.client;
        out.put_u16_le(u16::try_from(fields.len()).map_err(|_| too_long())?);
        for (name, value) in fields {
            put_text(&mut out, name)?;
            put_text(&mut out, value)?;
        }
        if out.len() > MAX_FRONT_BYTES {
            return Err(too_long());
        }
        let length = u32::try_from(out.len()).map_err(|_| too_long())?;
        out[4..8].copy_from_slice(&length.to_le_bytes());
        Ok(out.freeze())
    }

    /// Reads a front off the start of an object; `None` while there are too few bytes. With it comes its length.
    ///
    /// # Errors
    /// `Corrupt` when this is no front.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Front, usize)>> {
        let Some(start) = bytes.get(..8) else {
            return Ok(None);
        };
        let mut start = start;
        if start.copy_to_bytes(4) != MAGIC.as_slice() {
            return Err(Error::Corrupt("no entry"));
        }
        let length = start.get_u32_le() as usize;
        if length > MAX_FRONT_BYTES {
            return Err(Error::Corrupt("a front too long"));
        }
        let Some(mut rest) = bytes.get(8..length.max(8)) else {
            return Ok(None);
        };
        let front = Front::read(&mut rest).ok_or(Error::Corrupt("a front cut short"))?;
        if !rest.is_empty() {
            return Err(Error::Corrupt("a front too long"));
        }
        Ok(Some((front, length)))
    }

    fn read(rest: &mut &[u8]) -> Option<Front> {
        let version = Version {
            clock: rest.try_get_u64_le().ok()?,
            writer: rest.try_get_u32_le().ok()?,
        };
        let created = Timestamp(rest.try_get_u64_le().ok()?);
        let deleted = rest.try_get_u8().ok()? == 1;
        let text = get_text(rest)?;
        let content_type = match rest.strip_prefix(&NO_CONTENT_TYPE.to_le_bytes()) {
            Some(after) => {
                *rest = after;
                None
            }
            None => Some(get_text(rest)?),
        };
        let count = rest.try_get_u16_le().ok()?;
        let mut client = Vec::new();
        for _ in 0..count {
            client.push((get_text(rest)?, get_text(rest)?));
        }
        let meta = EntryMeta {
            content_type,
            client,
        };
        let head = RecordHead {
            text,
            meta,
            version,
            deleted,
        };
        Some(Front { head, created })
    }
}

/// The version in the first [`PEEK_BYTES`] of an object.
///
/// # Errors
/// `Corrupt` when this is no front.
pub(crate) fn peek(bytes: &[u8]) -> Result<Version> {
    let mut rest = bytes;
    if bytes.len() < 20 || rest.copy_to_bytes(4) != MAGIC.as_slice() {
        return Err(Error::Corrupt("no entry"));
    }
    rest.advance(4);
    Ok(Version {
        clock: rest.get_u64_le(),
        writer: rest.get_u32_le(),
    })
}

fn too_long() -> Error {
    Error::Corrupt("a field too long for an entry")
}

fn put_text(out: &mut BytesMut, text: &str) -> Result<()> {
    let length = u16::try_from(text.len()).ok();
    let length = length.filter(|length| *length != NO_CONTENT_TYPE);
    out.put_u16_le(length.ok_or_else(too_long)?);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// A text; `None` when the bytes are none.
fn get_text(rest: &mut &[u8]) -> Option<Box<str>> {
    let length = rest.try_get_u16_le().ok()?;
    let (text, after) = rest.split_at_checked(usize::from(length))?;
    *rest = after;
    Some(std::str::from_utf8(text).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front() -> Front {
        Front {
            head: RecordHead {
                text: "a key".into(),
                meta: EntryMeta {
                    content_type: Some("text/plain".into()),
                    client: vec![("a".into(), "1".into()), ("b".into(), "".into())],
                },
                version: Version {
                    clock: 0x0102_0304_0506_0708,
                    writer: 9,
                },
                deleted: false,
            },
            created: Timestamp(12_345),
        }
    }

    #[test]
    fn a_front_reads_back_as_it_was_written() {
        let deletion = Front {
            head: RecordHead {
                deleted: true,
                ..RecordHead::default()
            },
            ..Front::default()
        };
        for front in [front(), deletion, Front::default()] {
            let bytes = front.encode().unwrap();
            let (read, length) = Front::decode(&bytes).unwrap().unwrap();
            assert_eq!((read, length), (front.clone(), bytes.len()));
            assert_eq!(peek(&bytes).unwrap(), front.head.version);
        }
    }

    #[test]
    fn a_front_that_is_cut_waits_for_more_and_one_that_is_wrong_is_refused() {
        let bytes = front().encode().unwrap();
        for cut in 0..bytes.len() {
            assert!(Front::decode(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        let mut longer = bytes.to_vec();
        longer.extend_from_slice(b"value");
        assert_eq!(Front::decode(&longer).unwrap().unwrap().1, bytes.len());
        for (at, value) in [(0, b'X'), (4, 30), (7, 1), (29, 255)] {
            let mut wrong = longer.clone();
            wrong[at] = value;
            assert!(Front::decode(&wrong).is_err(), "{at}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let bytes = front().encode().unwrap();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut wrong = bytes.to_vec();
                wrong[at] = value;
                let _ = Front::decode(&wrong);
                let _ = peek(&wrong[..at]);
            }
        }
    }
}
