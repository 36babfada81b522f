//! Keys and where on the ring they lie.
//!
//! A blob's key is its hash, whatever the function, so that both readings of 64 hex digits have the same owners, and
//! whatever the namespace. An entry's key covers namespace, kind, generation and text, but needs no text: a node finds
//! the owners of what is on its disk from the record alone.
//! The point is the first 8 bytes of the key, not hashed again: every function we verify is a cryptographic one, of
//! which any 8 bytes are as even as any hash of them.

use zimcache_types::{Digest, EntryKey, EntryKind, Function, Hash, Namespace};

/// A place on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point(pub u64);

/// What the ring knows of an item: 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RingKey(pub [u8; 32]);

impl RingKey {
    /// The key of a blob: its hash, padded with zeroes, or hashed once more where it is longer.
    pub fn of_blob(hash: &Hash) -> RingKey {
        let raw = hash.as_bytes();
        let mut key = [0; 32];
        match key.get_mut(..raw.len()) {
            Some(room) => room.copy_from_slice(raw),
            None => key = sha256(raw),
        }
        RingKey(key)
    }

    /// The key of an entry in a generation of its namespace.
    pub fn of_entry(key: &EntryKey, generation: u64) -> RingKey {
        let record = entry_record_key(&key.text, generation);
        RingKey::of_entry_record(&key.namespace, key.kind, &record)
    }

    /// The key of an entry of which only the record is at hand.
    pub fn of_entry_record(namespace: &Namespace, kind: EntryKind, record: &[u8; 32]) -> RingKey {
        let name = namespace.as_str().as_bytes();
        // No name has a zero byte in it, so that no two inputs are the same bytes.
        let bytes = [name, &[0, kind.number()], record].concat();
        RingKey(sha256(&bytes))
    }

    /// Where it lies.
    pub fn point(&self) -> Point {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        Point(u64::from_be_bytes(first))
    }
}

/// The hash that an entry's record is found by in its namespace and kind. In generation 0, where nothing was ever
/// purged, it is SHA-256 of the text alone.
pub fn entry_record_key(text: &str, generation: u64) -> [u8; 32] {
    if generation == 0 {
        return sha256(text.as_bytes());
    }
    // No text begins with 0xFF, which UTF-8 does not have.
    let bytes = [&[0xFF], &generation.to_be_bytes()[..], text.as_bytes()].concat();
    sha256(&bytes)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(Digest::of(Function::Sha256, bytes).hash.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(namespace: &str, kind: EntryKind, text: &str) -> EntryKey {
        EntryKey::new(Namespace::new(namespace).unwrap(), kind, text).unwrap()
    }

    #[test]
    fn the_point_is_the_first_eight_bytes_of_the_hash_in_reading_order() {
        let hash = Hash::parse(Function::Sha1, "0123456789abcdef00000000000000000000ffff").unwrap();
        assert_eq!(
            RingKey::of_blob(&hash).point(),
            Point(0x0123_4567_89ab_cdef)
        );
    }

    #[test]
    fn both_readings_of_sixty_four_digits_have_the_same_owners() {
        let hash = Digest::of(Function::Sha256, b"x").hash;
        let other = hash.reinterpret(Function::Blake3).unwrap();
        assert_eq!(RingKey::of_blob(&hash), RingKey::of_blob(&other));
    }

    #[test]
    fn every_function_has_a_key_and_long_hashes_are_hashed_once_more() {
        for function in Function::ALL {
            let hash = Digest::of(function, b"something").hash;
            let key = RingKey::of_blob(&hash);
            let raw = hash.as_bytes();
            assert_eq!(raw.len() <= 32, key.0.starts_with(&raw[..raw.len().min(8)]));
        }
    }

    #[test]
    fn namespace_kind_generation_and_text_all_count() {
        let base = entry("team", EntryKind::Nx, "key");
        let keys = [
            RingKey::of_entry(&base, 0),
            RingKey::of_entry(&base, 1),
            RingKey::of_entry(&base, 2),
            RingKey::of_entry(&entry("team2", EntryKind::Nx, "key"), 0),
            RingKey::of_entry(&entry("team", EntryKind::Gradle, "key"), 0),
            RingKey::of_entry(&entry("team", EntryKind::Nx, "key2"), 0),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(key), "{at}");
        }
    }

    #[test]
    fn a_record_alone_gives_the_key_of_its_entry() {
        let key = entry("team/a", EntryKind::Gradle, "0123");
        let record = Digest::of(Function::Sha256, b"0123").hash;
        let record = record.as_bytes().try_into().unwrap();
        let by_record = RingKey::of_entry_record(&key.namespace, key.kind, record);
        assert_eq!(by_record, RingKey::of_entry(&key, 0));
    }
}
