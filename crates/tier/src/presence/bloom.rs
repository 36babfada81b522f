//! A growing Bloom filter: a set of keys that says "surely not" or "maybe", and is never wrong about "surely not".
//!
//! 24 bits and 16 probes for each key give one false "maybe" in 10^5: a node that is asked for a thousand things that the
//! bucket lacks asks the bucket for none of them, 99 times in 100. Ten bits, the common choice, would ask for eight.
//! Half of the probes of a key that is not there meet a zero, so most look-ups end after two. Layers grow fourfold; each
//! is claimed from the system page by page, as it fills.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Keys of the first layer.
const FIRST_KEYS: u64 = 1 << 20;
/// Bits for each key of a layer that is full.
const BITS_PER_KEY: u64 = 24;
/// Probes for each key: about `BITS_PER_KEY * ln 2`.
const PROBES: u64 = 16;

/// Two hashes of a key, from which all probes are made.
pub(super) type Hashes = (u64, u64);

#[derive(Debug)]
pub(super) struct Bloom {
    layers: RwLock<Vec<Layer>>,
}

#[derive(Debug)]
struct Layer {
    words: Vec<AtomicU64>,
    capacity: u64,
    keys: AtomicU64,
}

impl Layer {
    fn new(capacity: u64) -> Layer {
        let words = (capacity * BITS_PER_KEY / 64) as usize;
        Layer {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            capacity,
            keys: AtomicU64::new(0),
        }
    }

    /// The words and masks of a key's bits.
    fn probes(&self, (first, step): Hashes) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let bits = self.words.len() as u64 * 64;
        (0..PROBES).map(move |probe| {
            let hash = first.wrapping_add(step.wrapping_mul(probe));
            // The upper half of the product is even over all bits, without a division.
            let bit = ((u128::from(hash) * u128::from(bits)) >> 64) as u64;
            (&self.words[(bit / 64) as usize], 1 << (bit % 64))
        })
    }

    fn contains(&self, hashes: Hashes) -> bool {
        self.probes(hashes).all(is_set)
    }

    /// Whether the first bit of a key is set.
    fn may_contain(&self, hashes: Hashes) -> bool {
        self.probes(hashes).next().is_some_and(is_set)
    }

    fn insert(&self, hashes: Hashes) {
        for (word, mask) in self.probes(hashes) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
        self.keys.fetch_add(1, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.keys.load(Ordering::Relaxed) >= self.capacity
    }
}

fn is_set((word, mask): (&AtomicU64, u64)) -> bool {
    word.load(Ordering::Relaxed) & mask != 0
}

impl Bloom {
    pub(super) fn new() -> Bloom {
        Bloom {
            layers: RwLock::new(vec![Layer::new(FIRST_KEYS)]),
        }
    }

    pub(super) fn contains(&self, hashes: Hashes) -> bool {
        let layers = self.layers.read();
        layers.iter().any(|layer| layer.contains(hashes))
    }

    /// Whether it has each of these. First all are probed once, without a decision in between, so that the memory is
    /// waited for by many at the same time.
    pub(super) fn contains_each(&self, keys: &[Hashes]) -> Vec<bool> {
        let layers = self.layers.read();
        let mut found = vec![false; keys.len()];
        for layer in layers.iter() {
            let probe = |hashes: &Hashes| layer.may_contain(*hashes);
            let first: Vec<bool> = keys.iter().map(probe).collect();
            for ((found, may), hashes) in found.iter_mut().zip(first).zip(keys) {
                *found = *found || may && layer.contains(*hashes);
            }
        }
        found
    }

    pub(super) fn insert(&self, hashes: Hashes) {
        if self.contains(hashes) {
            return;
        }
        {
            let layers = self.layers.read();
            if let Some(layer) = layers.last().filter(|layer| !layer.is_full()) {
                layer.insert(hashes);
                return;
            }
        }
        let mut layers = self.layers.write();
        let capacity = match layers.last() {
            Some(last) if last.is_full() => last.capacity.saturating_mul(4),
            Some(last) => {
                last.insert(hashes);
                return;
            }
            None => FIRST_KEYS,
        };
        let layer = Layer::new(capacity);
        layer.insert(hashes);
        layers.push(layer);
    }

    /// How many keys it has, about.
    pub(super) fn keys(&self) -> u64 {
        let layers = self.layers.read();
        let keys = layers
            .iter()
            .map(|layer| layer.keys.load(Ordering::Relaxed));
        keys.sum()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    fn hashes(state: &RandomState, n: u64) -> Hashes {
        (state.hash_one(n), state.hash_one((n, 1)) | 1)
    }

    #[test]
    fn what_was_put_in_is_found_over_all_layers_and_little_else() {
        let (bloom, state) = (Bloom::new(), RandomState::new());
        let many = FIRST_KEYS + FIRST_KEYS / 4;
        (0..many).for_each(|n| bloom.insert(hashes(&state, n)));
        assert!((0..many).all(|n| bloom.contains(hashes(&state, n))));
        let each: Vec<_> = (0..2 * many).map(|n| hashes(&state, n)).collect();
        let one_by_one = each.iter().map(|hashes| bloom.contains(*hashes));
        assert!(bloom.contains_each(&each).into_iter().eq(one_by_one));
        assert_eq!(bloom.layers.read().len(), 2);
        let wrong = (many..many + 500_000)
            .filter(|n| bloom.contains(hashes(&state, *n)))
            .count();
        // One in 10^5 is five; far above ten times that has never been seen of an even hash.
        assert!(wrong < 60, "{wrong} of 500,000 are taken for present");
        assert!(bloom.keys() > many - many / 1000);
    }

    #[test]
    fn an_empty_filter_has_nothing() {
        let (bloom, state) = (Bloom::new(), RandomState::new());
        assert!(!(0..10_000).any(|n| bloom.contains(hashes(&state, n))));
        assert_eq!(bloom.keys(), 0);
    }
}
