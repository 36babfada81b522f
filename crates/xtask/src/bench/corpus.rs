//! What is stored: bodies that differ from each other, cheap to make, with their SHA-256 known beforehand.
//!
//! Every body is a piece of one random payload followed by a tail of its own (up to 32 bytes). The payload is hashed
//! once; each key costs only its tail, so 64 × 256 MiB of distinct uploads need 256 MiB of memory. No server under
//! test looks for equal pieces inside bodies, so the shared part gives nobody an advantage.

use zimcache_types::{Function, Hash, Hasher};

use super::{random::Random, scale};

/// Bytes at the end of a body that are its own.
pub(super) const TAIL_BYTES: usize = 32;

/// Blob sizes seen in real caches: upper bound in bytes and count; the lower bound is the row before, or 1.
const HISTOGRAM: [(u64, u64); 8] = [
    (10, 23),
    (100, 33_611),
    (1_000, 33_498),
    (10_000, 20_473),
    (100_000, 10_036),
    (1_000_000, 3_265),
    (10_000_000, 504),
    (100_000_000, 62),
];

/// A body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob {
    /// Its SHA-256.
    pub(super) hash: Hash,
    /// Its length in bytes.
    pub(super) length: u64,
    salt: u64,
}

impl Blob {
    /// The bytes that are its own, at its end.
    pub(super) fn tail(&self) -> Tail {
        Tail::new(self.salt, self.length)
    }
}

/// The bytes at the end of a body that are its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    bytes: [u8; TAIL_BYTES],
    length: usize,
}

impl Tail {
    fn new(salt: u64, body_bytes: u64) -> Tail {
        let mut random = Random::new(salt);
        let mut bytes = [0; TAIL_BYTES];
        for eight in bytes.chunks_exact_mut(8) {
            eight.copy_from_slice(&random.next().to_le_bytes());
        }
        Tail {
            bytes,
            length: TAIL_BYTES.min(body_bytes as usize),
        }
    }

    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The bytes bodies share.
#[derive(Debug)]
pub(super) struct Payload(Vec<u8>);

impl Payload {
    /// Enough for bodies of up to this many bytes.
    pub(super) fn new(largest_bytes: u64) -> Payload {
        Payload(Random::new(0xB10B).bytes(largest_bytes as usize))
    }

    /// The same of bytes that zstd makes about a third of, as it does with sources and many objects.
    pub(super) fn text(largest_bytes: u64) -> Payload {
        let mut random = Random::new(0xB10C);
        let words: Vec<Vec<u8>> = (0..4_096)
            .map(|_| {
                let length = 3 + random.below(8) as usize;
                (0..length).map(|_| b'a' + random.below(26) as u8).collect()
            })
            .collect();
        let mut text = Vec::with_capacity(largest_bytes as usize + 16);
        while text.len() < largest_bytes as usize {
            text.extend_from_slice(&words[random.below(words.len() as u64) as usize]);
            text.push(b' ');
        }
        text.truncate(largest_bytes as usize);
        Payload(text)
    }

    /// The bytes all shared parts begin with.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The shared part of a body of so many bytes.
    pub(super) fn shared(&self, body_bytes: u64) -> &[u8] {
        &self.0[..(body_bytes as usize).saturating_sub(TAIL_BYTES)]
    }

    /// The whole body.
    pub(super) fn body(&self, blob: &Blob) -> Vec<u8> {
        let mut body = self.shared(blob.length).to_vec();
        body.extend_from_slice(blob.tail().as_bytes());
        body
    }

    /// One blob per length; another seed gives other blobs.
    pub(super) fn blobs(&self, lengths: &[u64], seed: u64) -> Vec<Blob> {
        let mut by_length: Vec<usize> = (0..lengths.len()).collect();
        by_length.sort_by_key(|&index| lengths[index]);
        let mut blobs = vec![None; lengths.len()];
        let mut hasher = Hasher::new(Function::Sha256);
        let mut hashed = 0;
        for index in by_length {
            let length = lengths[index];
            let shared = self.shared(length);
            hasher.update(&shared[hashed..]);
            hashed = shared.len();
            let salt = Random::new(seed.wrapping_mul(0x1_0000_0001) ^ index as u64).next();
            let mut own = hasher.clone();
            own.update(Tail::new(salt, length).as_bytes());
            blobs[index] = Some(Blob {
                hash: own.finish(),
                length,
                salt,
            });
        }
        blobs.into_iter().flatten().collect()
    }

    /// So many blobs of one length.
    pub(super) fn uniform(&self, count: usize, length: u64, seed: u64) -> Vec<Blob> {
        self.blobs(&vec![length; count], seed)
    }
}

/// Blob sizes drawn from the histogram, log-uniform inside a bucket, in random order. The bucket shares are exact
/// (rounded), so two runs differ in detail only.
pub(super) fn histogram_lengths(count: usize, seed: u64) -> Vec<u64> {
    let total: u64 = HISTOGRAM.iter().map(|(_, share)| share).sum();
    let mut random = Random::new(seed);
    let mut lengths = Vec::with_capacity(count);
    let mut low = 1_u64;
    for (high, share) in HISTOGRAM {
        let wanted = scale::whole((share as f64 / total as f64 * count as f64).round());
        let factor = high as f64 / low as f64;
        for _ in 0..wanted {
            lengths.push(scale::whole(low as f64 * factor.powf(random.fraction())));
        }
        low = high;
    }
    random.shuffle(&mut lengths);
    lengths
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use zimcache_types::Digest;

    use super::*;

    #[test]
    fn every_key_is_the_hash_of_its_body_and_bodies_differ() {
        let payload = Payload::new(5_000);
        let lengths = [64, 1, 31, 32, 33, 5_000, 1_024, 1_024];
        let blobs = payload.blobs(&lengths, 7);
        for (blob, length) in blobs.iter().zip(lengths) {
            let body = payload.body(blob);
            assert_eq!(body.len() as u64, length);
            assert_eq!(Digest::of(Function::Sha256, &body).hash, blob.hash);
        }
        let distinct: HashSet<_> = blobs.iter().map(|blob| blob.hash).collect();
        assert_eq!(distinct.len(), blobs.len());
        assert_ne!(payload.blobs(&lengths, 8)[5].hash, blobs[5].hash);
    }

    #[test]
    fn histogram_keeps_the_shares_and_the_bounds() {
        let lengths = histogram_lengths(10_000, 1);
        let up_to_1k = lengths.iter().filter(|&&length| length <= 1_000).count();
        assert!((6_500..6_800).contains(&up_to_1k), "{up_to_1k}");
        assert!(
            lengths
                .iter()
                .all(|&length| (1..=100_000_000).contains(&length))
        );
        assert_eq!(lengths, histogram_lengths(10_000, 1));
    }
}
