//! What a node in memory holds: the rules of a replica, without disk and network.

use std::collections::BTreeMap;

use bytes::Bytes;
use zimcache_link::{Error, Result};
use zimcache_store::{
    Pins, Precondition, RecordHead, RecordKey, RecordKind, RecordOptions, Version, Written,
};
use zimcache_types::{Code, Digest, Timestamp};

/// A record in memory.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) head: RecordHead,
    pub(crate) value: Bytes,
    pub(crate) pins: Pins,
    pub(crate) created: Timestamp,
}

/// All records of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) held: BTreeMap<RecordKey, Held>,
    /// Interrupted uploads by namespace and name.
    pub(crate) partial: BTreeMap<(RecordKey, Box<str>), Vec<u8>>,
}

pub(crate) fn refused(code: Code) -> Error {
    Error::Refused {
        code,
        message: format!("the node says {}", code.as_str()).into(),
    }
}

impl Records {
    /// Takes a value in, or refuses it.
    pub(crate) fn put(
        &mut self,
        key: &RecordKey,
        head: RecordHead,
        value: Bytes,
        options: &RecordOptions,
        pins: Pins,
    ) -> Result<Written> {
        let size_bytes = value.len() as u64;
        if options.limit_bytes.is_some_and(|limit| size_bytes > limit) {
            return Err(refused(Code::TooLarge));
        }
        let is_size = options.size_bytes.is_none_or(|size| size == size_bytes);
        if !is_size || !is_named(key, &value) {
            return Err(refused(Code::Invalid));
        }
        let new = Held {
            head,
            value,
            pins,
            created: Timestamp(1),
        };
        let Some(held) = self.held.get_mut(key) else {
            let version = new.head.version;
            self.held.insert(key.clone(), new);
            return Ok(Written {
                size_bytes,
                version,
            });
        };
        if options.precondition == Precondition::Absent && !held.head.deleted {
            return Err(refused(Code::Conflict));
        }
        if new.head.version > held.head.version {
            *held = new;
        } else {
            held.pins.hint |= pins.hint;
        }
        Ok(Written {
            size_bytes,
            version: held.head.version,
        })
    }

    /// Takes over a record of another node; held are those not older.
    pub(crate) fn pull(&mut self, key: &RecordKey, theirs: Option<Held>, pins: Pins) -> bool {
        let ours = self.held.get_mut(key);
        let newer = |version: Version| theirs.as_ref().is_none_or(|it| it.head.version <= version);
        match ours {
            Some(ours) if newer(ours.head.version) => {
                ours.pins.hint |= pins.hint;
                true
            }
            _ => match theirs {
                Some(theirs) => {
                    self.held.insert(key.clone(), Held { pins, ..theirs });
                    true
                }
                None => false,
            },
        }
    }
}

/// Whether these are the bytes of that name.
fn is_named(key: &RecordKey, value: &[u8]) -> bool {
    match key.kind {
        RecordKind::Entry(_) => true,
        RecordKind::Blob(function) => {
            RecordKey::blob(&key.namespace, &Digest::of(function, value)).id == key.id
        }
    }
}
