//! Tells the front of an object from its value, and whether the bytes are right.
//!
//! A blob is right when it hashes to its name, an entry when the sum at its end says so and it is the entry asked for.

use bytes::{Bytes, BytesMut};
use zimcache_store::{RecordKey, RecordKind};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Hasher};

use crate::{
    Error, Result,
    front::{Front, SUM_BYTES},
};

/// Takes an object apart, chunk by chunk.
pub(super) enum Apart {
    Blob {
        hasher: Hasher,
        size_bytes: u64,
    },
    Entry {
        kind: EntryKind,
        hasher: Hasher,
        /// Bytes of the object that are under the sum and have not come yet.
        summed: u64,
        /// Before the front is complete: what came. Behind the value: the sum.
        kept: BytesMut,
        front_read: bool,
    },
}

/// What a chunk of an object held.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The front, when it was completed, and the size of the value in bytes.
    pub(super) front: Option<(Front, u64)>,
    /// Bytes of the value.
    pub(super) value: Bytes,
}

impl Apart {
    pub(super) fn new(key: &RecordKey, object_bytes: u64) -> Result<Apart> {
        match key.kind {
            RecordKind::Blob(function) => Ok(Apart::Blob {
                hasher: Hasher::with_size(function, object_bytes),
                size_bytes: object_bytes,
            }),
            RecordKind::Entry(kind) => {
                let summed = object_bytes.checked_sub(SUM_BYTES);
                let summed = summed.ok_or(Error::Corrupt("too short for an entry"))?;
                Ok(Apart::Entry {
                    kind,
                    hasher: Hasher::with_size(Function::Sha256, summed),
                    summed,
                    kept: BytesMut::new(),
                    front_read: false,
                })
            }
        }
    }

    /// What is known before the first byte: of a blob everything.
    pub(super) fn front(&self) -> Option<(Front, u64)> {
        match self {
            Apart::Blob { size_bytes, .. } => Some((Front::default(), *size_bytes)),
            Apart::Entry { .. } => None,
        }
    }

    /// Takes the next bytes of the object.
    pub(super) fn push(&mut self, key: &RecordKey, mut chunk: Bytes) -> Result<Piece> {
        let (hasher, kind, summed, kept, front_read) = match self {
            Apart::Blob { hasher, .. } => {
                hasher.update(&chunk);
                return Ok(Piece {
                    front: None,
                    value: chunk,
                });
            }
            Apart::Entry {
                hasher,
                kind,
                summed,
                kept,
                front_read,
            } => (hasher, *kind, summed, kept, front_read),
        };
        let under_sum = (*summed).min(chunk.len() as u64);
        let mut piece = Piece::default();
        let body = chunk.split_to(under_sum as usize);
        hasher.update(&body);
        *summed -= under_sum;
        if *front_read {
            piece.value = body;
        } else {
            kept.extend_from_slice(&body);
            if let Some((front, length)) = Front::decode(kept)? {
                is_asked_for(key, kind, &front)?;
                piece.value = kept.split_off(length).freeze();
                kept.clear();
                *front_read = true;
                // What is still to come under the sum, and what came of the value already.
                piece.front = Some((front, *summed + piece.value.len() as u64));
            } else if *summed == 0 {
                return Err(Error::Corrupt("a front cut short"));
            }
        }
        kept.extend_from_slice(&chunk);
        Ok(piece)
    }

    /// Whether all bytes are right.
    pub(super) fn finish(self, key: &RecordKey) -> Result<()> {
        let right = match self {
            Apart::Blob { hasher, .. } => {
                let digest = Digest::unsized_(hasher.finish());
                RecordKey::blob(&key.namespace, &digest) == *key
            }
            Apart::Entry {
                hasher,
                kept,
                front_read,
                ..
            } => front_read && hasher.finish().as_bytes() == &kept[..],
        };
        if right {
            Ok(())
        } else {
            Err(Error::Corrupt("its bytes are not those of its name"))
        }
    }
}

/// Whether a front is of the entry that was asked for. One without a text says nothing about it.
fn is_asked_for(key: &RecordKey, kind: EntryKind, front: &Front) -> Result<()> {
    let text = front.head.text.clone();
    if text.is_empty() {
        return Ok(());
    }
    let named = EntryKey::new(key.namespace.clone(), kind, text);
    if named.is_some_and(|named| RecordKey::entry(&named) == *key) {
        Ok(())
    } else {
        Err(Error::Corrupt("it is another entry"))
    }
}

#[cfg(test)]
mod tests {
    use zimcache_store::{RecordHead, Version};
    use zimcache_types::{Namespace, Timestamp};

    use super::*;

    fn entry() -> (RecordKey, Vec<u8>) {
        let key = EntryKey::new(Namespace::default(), EntryKind::Gradle, "a key").unwrap();
        let front = Front {
            head: RecordHead {
                text: key.text.clone(),
                version: Version {
                    clock: 5,
                    writer: 1,
                },
                ..RecordHead::default()
            },
            created: Timestamp(9),
        };
        let mut object = front.encode().unwrap().to_vec();
        object.extend_from_slice(b"the value");
        let sum = Digest::of(Function::Sha256, &object);
        object.extend_from_slice(sum.hash.as_bytes());
        (RecordKey::entry(&key), object)
    }

    fn read(key: &RecordKey, object: &[u8], step: usize) -> Result<(Option<u64>, Vec<u8>)> {
        let mut apart = Apart::new(key, object.len() as u64)?;
        let mut total = apart.front().map(|(_, total)| total);
        let mut value = Vec::new();
        for chunk in object.chunks(step) {
            let piece = apart.push(key, Bytes::copy_from_slice(chunk))?;
            total = total.or(piece.front.map(|(_, total)| total));
            value.extend_from_slice(&piece.value);
        }
        apart.finish(key)?;
        Ok((total, value))
    }

    #[test]
    fn an_entry_comes_apart_in_chunks_of_any_size() {
        let (key, object) = entry();
        for step in 1..=object.len() {
            let (total, value) = read(&key, &object, step).unwrap();
            assert_eq!((total, &value[..]), (Some(9), &b"the value"[..]), "{step}");
        }
    }

    #[test]
    fn any_flipped_byte_of_an_entry_is_found() {
        let (key, object) = entry();
        for at in 0..object.len() {
            let mut wrong = object.clone();
            wrong[at] ^= 1;
            assert!(read(&key, &wrong, 7).is_err(), "{at}");
        }
        for cut in 0..object.len() {
            assert!(read(&key, &object[..cut], 7).is_err(), "{cut}");
        }
    }

    #[test]
    fn an_entry_under_the_name_of_another_is_refused() {
        let (_, object) = entry();
        let other = EntryKey::new(Namespace::default(), EntryKind::Gradle, "another").unwrap();
        assert!(read(&RecordKey::entry(&other), &object, 64).is_err());
    }

    #[test]
    fn a_blob_is_right_under_its_own_name_only() {
        for function in Function::ALL {
            let key =
                |body: &[u8]| RecordKey::blob(&Namespace::default(), &Digest::of(function, body));
            let (total, value) = read(&key(b"a body"), b"a body", 4).unwrap();
            assert_eq!((total, &value[..]), (Some(6), &b"a body"[..]));
            assert!(read(&key(b"a body"), b"a bodz", 4).is_err(), "{function}");
        }
    }
}
