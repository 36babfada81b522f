//! The front of an entry's payload: what travels with the value. Layout in `docs/format.md`.
//!
//! ```text
//! u32 bytes of the front, this field included | u64 created, ms | u16 key length, key
//! u16 media type length + 1 (0: none), media type | u16 pairs, each: u16 length, name, u16 length, value
//! ```

use zimcache_store::EntryMeta;
use zimcache_types::Timestamp;

/// What precedes an entry's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Front {
    pub(crate) created: Timestamp,
    /// Key text.
    pub(crate) text: Box<str>,
    pub(crate) meta: EntryMeta,
}

/// Where in a payload the value starts; `None` when there is no front.
pub(crate) fn front_len(payload: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?) as usize;
    (4..=payload.len()).contains(&length).then_some(length)
}

impl Front {
    /// The bytes in front of the value. Texts are bounded by [`EntryMeta::MAX_BYTES`] and the key's limit.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&self.created.0.to_le_bytes());
        put_text(&mut bytes, &self.text);
        match &self.meta.content_type {
            Some(text) => {
                bytes.extend_from_slice(&(text.len() as u16 + 1).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            None => bytes.extend_from_slice(&[0, 0]),
        }
        bytes.extend_from_slice(&(self.meta.client.len() as u16).to_le_bytes());
        for (name, value) in &self.meta.client {
            put_text(&mut bytes, name);
            put_text(&mut bytes, value);
        }
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// Reads the front of a payload; also says where the value starts. `None`: not a front.
    pub(crate) fn decode(payload: &[u8]) -> Option<(Front, usize)> {
        let length = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?) as usize;
        let mut rest = payload.get(4..length)?;
        let created = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
        let text = take_text(&mut rest)?;
        let content_type = match take_u16(&mut rest)? {
            0 => None,
            length => Some(
                std::str::from_utf8(take(&mut rest, length - 1)?)
                    .ok()?
                    .into(),
            ),
        };
        let pairs = take_u16(&mut rest)?;
        let mut client = Vec::with_capacity(pairs.min(64));
        for _ in 0..pairs {
            client.push((take_text(&mut rest)?, take_text(&mut rest)?));
        }
        let meta = EntryMeta {
            content_type,
            client,
        };
        rest.is_empty().then_some((
            Front {
                created: Timestamp(created),
                text,
                meta,
            },
            length,
        ))
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_u16(rest: &mut &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(
        take(rest, 2)?.try_into().ok()?,
    )))
}

fn take_text(rest: &mut &[u8]) -> Option<Box<str>> {
    let length = take_u16(rest)?;
    Some(std::str::from_utf8(take(rest, length)?).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_reads_back_and_every_cut_is_noticed() {
        let meta = EntryMeta {
            content_type: Some("application/x-thing".into()),
            client: vec![
                ("x-artifact-tag".into(), "abc".into()),
                ("empty".into(), "".into()),
            ],
        };
        for meta in [meta, EntryMeta::default()] {
            let front = Front {
                created: Timestamp(12345),
                text: "some/key".into(),
                meta,
            };
            let mut bytes = front.encode();
            let length = bytes.len();
            bytes.extend_from_slice(b"value");
            assert_eq!(Front::decode(&bytes), Some((front, length)));
            for cut in 0..length {
                assert_eq!(Front::decode(&bytes[..cut]), None, "cut at {cut}");
            }
        }
    }
}
