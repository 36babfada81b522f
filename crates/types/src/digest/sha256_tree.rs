//! SHA256TREE: SHA-256 over a binary tree whose leaves are 1024 bytes.
//!
//! A body of up to 1024 bytes has its plain SHA-256. A larger one is cut where the left part is the largest power of
//! two below its size; the hashes of both parts go through one round of SHA-256's block cipher. Streaming therefore
//! keeps one subtree for every bit that is set in the number of leaves: at most 54 hashes. The last leaf stays in
//! the buffer until more bytes prove that it was not the last, because only then is its left neighbour's tree closed.

use sha2::{Digest as _, block_api::compress256};

/// Bytes of a leaf.
const LEAF_BYTES: usize = 1024;
/// SHA-256's own initial values: square roots of the 1st to the 8th prime.
const LEAF_START: Words = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// Initial values where two hashes are joined, so that no body imitates a pair: roots of the 9th to the 16th prime.
const PAIR_START: Words = [
    0xcbbb_9d5d,
    0x629a_292a,
    0x9159_015a,
    0x152f_ecd8,
    0x6733_2667,
    0x8eb4_4a87,
    0xdb0c_2e0d,
    0x47b5_481d,
];
/// The block that ends the SHA-256 of a full leaf: a one bit, zeros, and the 8192 bits in big endian.
const LEAF_END: [u8; 64] = {
    let mut block = [0; 64];
    block[0] = 0x80;
    block[62] = (LEAF_BYTES * 8 / 256) as u8;
    block
};

type Words = [u32; 8];

/// The state of one hash.
#[derive(Clone)]
pub(super) struct Sha256Tree {
    /// The last bytes seen: what may be the last leaf.
    leaf: [u8; LEAF_BYTES],
    filled: usize,
    /// Leaves that are in `subtrees`.
    leaves: u64,
    /// Closed subtrees from left to right, each of fewer leaves than the one before.
    subtrees: Vec<Words>,
}

impl Default for Sha256Tree {
    fn default() -> Sha256Tree {
        Sha256Tree {
            leaf: [0; LEAF_BYTES],
            filled: 0,
            leaves: 0,
            subtrees: Vec::new(),
        }
    }
}

impl Sha256Tree {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == LEAF_BYTES {
                self.push(hash_leaf(&self.leaf));
                self.filled = 0;
            }
            // A leaf that is whole in the input, with something behind it, is hashed where it lies.
            if self.filled == 0
                && let Some((leaf, rest)) = bytes.split_first_chunk()
                && !rest.is_empty()
            {
                self.push(hash_leaf(leaf));
                bytes = rest;
                continue;
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(LEAF_BYTES - self.filled));
            self.leaf[self.filled..][..taken.len()].copy_from_slice(taken);
            self.filled += taken.len();
            bytes = rest;
        }
    }

    pub(super) fn finish(mut self) -> [u8; 32] {
        let last: [u8; 32] = sha2::Sha256::digest(&self.leaf[..self.filled]).into();
        let mut hash = words(&last);
        while let Some(left) = self.subtrees.pop() {
            hash = join(left, hash);
        }
        bytes_of(hash)
    }

    /// Adds a leaf that is known not to be the last: it closes as many subtrees as its number has trailing zeros.
    fn push(&mut self, mut hash: Words) {
        self.leaves += 1;
        for _ in 0..self.leaves.trailing_zeros() {
            if let Some(left) = self.subtrees.pop() {
                hash = join(left, hash);
            }
        }
        self.subtrees.push(hash);
    }
}

/// The plain SHA-256 of a full leaf.
fn hash_leaf(leaf: &[u8; LEAF_BYTES]) -> Words {
    let mut state = LEAF_START;
    compress256(&mut state, leaf.as_chunks().0);
    compress256(&mut state, &[LEAF_END]);
    state
}

/// One pass of the block cipher. The library adds the initial values to its output, as SHA-256 does; this function
/// goes without.
fn join(left: Words, right: Words) -> Words {
    let mut block = [0; 64];
    block[..32].copy_from_slice(&bytes_of(left));
    block[32..].copy_from_slice(&bytes_of(right));
    let mut state = PAIR_START;
    compress256(&mut state, &[block]);
    for (word, start) in state.iter_mut().zip(PAIR_START) {
        *word = word.wrapping_sub(start);
    }
    state
}

fn words(bytes: &[u8; 32]) -> Words {
    let mut words = Words::default();
    for (word, raw) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_be_bytes(*raw);
    }
    words
}

fn bytes_of(words: Words) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (raw, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *raw = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Digest, Function};

    /// Bodies of 0, 1, …, 250, 0, 1, … and their SHA256TREE, from the specification's table.
    const TREES: [(usize, &str); 18] = [
        (
            1025,
            "36c0998b21839ef74300b9de47d96d1f62323dc81f2b4231e98ce70cd6ffe750",
        ),
        (
            2048,
            "b584996386f01793751c5cf0c39561f51b7e9924b818943b3cb2f6928cea0fa9",
        ),
        (
            2049,
            "7318d2029b0392edf4cf109edb5a086b4bdadbb7950f710a1483eb881d9e5d44",
        ),
        (
            3072,
            "dfc61c0a041f79d55d53bfe31c6cda7df77fdc8e6fbac1143d70b7144fdf6937",
        ),
        (
            3073,
            "517d20c0e5835f060a1bd6388ed68574f63424bdac2a2c3a35a5c2ef859d8fe2",
        ),
        (
            4096,
            "2f72bb93880012168c027f6781527ff08177c7c8dccb443f4d2c6389c186633d",
        ),
        (
            4097,
            "c3ec942c1b8f4580320d3a06bcf4f8fe1f5db2be797ab67061ea4c2a95f208f2",
        ),
        (
            5120,
            "a76924f6535b4b473377c285ec27acc84cc58e95ab1e9e29b1bb6a4a3fb9d0b3",
        ),
        (
            5121,
            "98f987c3e9fc057a70873715b679b89a663d0df806859b6ce73f8379b06a10ff",
        ),
        (
            6144,
            "372f988af412041b680ab236feef45626380062beb7514bbf93607aedd28fc9a",
        ),
        (
            6145,
            "6dc4b78efd770453417b2ffdc74b27054793efe6122ecd7ee098670ed7c4651c",
        ),
        (
            7168,
            "43686312c0cabccf9d5ad509efa096e3d743c63c7a51f122473c57949e4dd9a0",
        ),
        (
            7169,
            "ad729297ab36cd099665b27c4247474a5518e4cd0be443f5f31d95edda08429b",
        ),
        (
            8192,
            "fcfdde6fe59178e17708c5ba647919c3b141a44c9d1970782e597e1465266932",
        ),
        (
            8193,
            "113c6e3a2452f388b6fad13dfab66ee0bff597a0a9a517ad8d0165f7190b603e",
        ),
        (
            16_384,
            "a7a10149a8cb00be537000560edb83b196306b780b72fad8af218f369f75fc19",
        ),
        (
            31_744,
            "2cdf7662636c173d4b236f6ea03bf84c65e7f6487b53b2a61c420e26cf8a98c7",
        ),
        (
            102_400,
            "0668d69e5331840d2f1823d717b7b3f5d1fdc8a09504cddb692b87ff83d50e5f",
        ),
    ];

    fn counting(size: usize) -> Vec<u8> {
        (0..=250).cycle().take(size).collect()
    }

    #[test]
    fn trees_of_the_specifications_sizes_hash_to_its_table() {
        for (size, hex) in TREES {
            let digest = Digest::of(Function::Sha256Tree, &counting(size));
            assert_eq!(digest.hash.to_hex(), hex, "{size} bytes");
        }
    }

    #[test]
    fn a_tree_of_one_leaf_is_plain_sha256() {
        for size in [0, 1, 55, 56, 64, 1023, 1024, 1025] {
            let body = counting(size);
            let tree = Digest::of(Function::Sha256Tree, &body).hash;
            let plain = Digest::of(Function::Sha256, &body).hash;
            assert_eq!(tree.as_bytes() == plain.as_bytes(), size <= 1024, "{size}");
        }
    }

    /// The definition: recursively, over a body that is there as a whole.
    fn by_recursion(body: &[u8]) -> [u8; 32] {
        if body.len() <= LEAF_BYTES {
            return sha2::Sha256::digest(body).into();
        }
        let (left, right) = body.split_at(body.len().next_power_of_two() / 2);
        bytes_of(join(
            words(&by_recursion(left)),
            words(&by_recursion(right)),
        ))
    }

    proptest! {
        #[test]
        fn a_streamed_tree_is_the_recursive_one(size in 0..200_000usize, piece in 1..5_000usize) {
            let body = counting(size);
            let mut tree = Sha256Tree::default();
            for piece in body.chunks(piece) {
                tree.update(piece);
            }
            prop_assert_eq!(tree.finish(), by_recursion(&body));
        }
    }
}
