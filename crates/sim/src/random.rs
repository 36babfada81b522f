//! Randomness from the seed: a generator for each part, so that one part's draws do not shift another's.

use std::hash::{DefaultHasher, Hash, Hasher};

use rand::{SeedableRng as _, rngs::StdRng};

/// The generator of one part of a simulation.
pub(crate) fn generator(seed: u64, part: impl Hash) -> StdRng {
    // The default hasher starts with fixed keys.
    let mut hasher = DefaultHasher::new();
    (seed, part).hash(&mut hasher);
    StdRng::seed_from_u64(hasher.finish())
}
