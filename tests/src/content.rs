//! Bodies that are cheap to make and recognisable: a seed and a length give the same bytes again, and different seeds
//! give different bytes in every block. Also the digests to check them by, and a small seeded random generator.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

const POOL_BYTES: usize = 1 << 20;
/// A prime, so that stamps fall on every alignment.
const STAMP_EVERY_BYTES: usize = 4_093;

/// A small, fast, seeded generator (splitmix64): for choosing, not for secrets.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }

    /// A size as build caches see them: mostly tiny, a few of megabytes; about 20 KB in the mean.
    pub fn blob_size_bytes(&mut self) -> usize {
        let (low, high) = match self.below(1_000) {
            0..450 => (1, 1 << 10),
            450..800 => (1 << 10, 4 << 10),
            800..970 => (4 << 10, 64 << 10),
            970..997 => (64 << 10, 512 << 10),
            _ => (1 << 20, 3 << 20),
        };
        (low + self.below(high - low)) as usize
    }
}

fn pool() -> &'static [u8] {
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut random = Random::new(0x5eed);
        let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
        words.take(POOL_BYTES / 8).flatten().collect()
    })
}

/// The body that belongs to a seed and a length: incompressible, stamped with the seed throughout.
pub fn body(seed: u64, length_bytes: usize) -> Vec<u8> {
    let pool = pool();
    let mut bytes = Vec::with_capacity(length_bytes);
    while bytes.len() < length_bytes {
        let take = (length_bytes - bytes.len()).min(pool.len());
        bytes.extend_from_slice(&pool[..take]);
    }
    let mut at = 0;
    while at < bytes.len() {
        let stamp = (seed ^ (at as u64).rotate_left(40)).to_le_bytes();
        let end = (at + stamp.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&stamp[..end - at]);
        at += STAMP_EVERY_BYTES;
    }
    bytes
}

/// The last place at or before `offset_bytes` where a body differs from every other body.
pub fn stamp_before(offset_bytes: usize) -> usize {
    offset_bytes / STAMP_EVERY_BYTES * STAMP_EVERY_BYTES
}

/// The SHA-256 of bytes as 64 lowercase hexadecimal characters.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(nibble.into(), 16));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_again_and_differs_between_seeds() {
        assert_eq!(body(7, 100_000), body(7, 100_000));
        assert_ne!(body(7, 100_000), body(8, 100_000));
        assert_eq!(body(7, 0).len(), 0);
        assert_eq!(body(7, 3 << 20).len(), 3 << 20);
    }

    #[test]
    fn the_digest_of_the_empty_body_is_the_well_known_one() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), expected);
    }
}
