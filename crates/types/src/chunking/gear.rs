//! The Gear hash: a rolling hash of the last 64 bytes, one shift, one look-up and one addition a byte.
//!
//! What a byte adds is shifted out of the 64 bits after 64 more bytes, so nothing has to be taken out again.

use std::sync::LazyLock;

use md5::Digest as _;

/// Bytes that a hash depends on.
pub(super) const WINDOW_BYTES: u64 = 64;

/// A number for every byte.
pub(super) type Gear = [u64; 256];

/// The numbers that every implementation uses: the first half of the MD5 of 64 times the byte, in big endian. The
/// specification's formula leaves out the 64; its vectors do not.
pub(super) static GEAR: LazyLock<Gear> = LazyLock::new(|| {
    std::array::from_fn(|byte| {
        let md5: [u8; 16] = md5::Md5::digest([byte as u8; 64]).into();
        (u128::from_be_bytes(md5) >> 64) as u64
    })
});

/// Hashes on until a hash fits; gives the place of the byte that it ends with.
#[inline]
pub(super) fn find(
    gear: &Gear,
    hash: &mut u64,
    bytes: &[u8],
    fits: impl Fn(u64) -> bool,
) -> Option<usize> {
    let (pairs, rest) = bytes.as_chunks();
    for (number, [first, second]) in pairs.iter().enumerate() {
        // The second hash does not wait for the first: its addends are summed apart.
        let after_first = roll(gear, *hash, *first);
        let addends = roll(gear, gear[usize::from(*first)], *second);
        let after_second = (*hash << 2).wrapping_add(addends);
        if fits(after_first) {
            *hash = after_first;
            return Some(2 * number);
        }
        *hash = after_second;
        if fits(after_second) {
            return Some(2 * number + 1);
        }
    }
    let [last] = rest else { return None };
    *hash = roll(gear, *hash, *last);
    fits(*hash).then_some(bytes.len() - 1)
}

/// The hash after one more byte.
#[inline]
pub(super) fn roll(gear: &Gear, hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(gear[usize::from(byte)])
}
