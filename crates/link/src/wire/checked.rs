//! The checksum that every message begins with, so that a bit that flips on the way is noticed by who gets it.
//!
//! It is field 15 of every message, a CRC32C of the bytes behind it; who does not know it passes over it. TCP's own
//! sum misses one damaged segment in some ten thousand, and without TLS nothing else looks at what is no blob.

use bytes::{Buf, BufMut as _, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};

/// Length of the field.
pub(super) const CHECK_BYTES: usize = 5;
/// Number 15, of four bytes.
const TAG: u8 = 15 << 3 | 5;

/// Leaves the place of a checksum.
pub(super) fn reserve(head: &mut BytesMut) {
    head.put_u8(TAG);
    head.put_u32_le(0);
}

/// Fills the place that begins at `at` with the sum of everything behind it, and of `data`.
pub(super) fn fill(head: &mut BytesMut, at: usize, data: &[u8]) {
    let (place, rest) = head.split_at_mut(at + CHECK_BYTES);
    let sum = sum([&*rest, data].into_iter());
    place[at + 1..].copy_from_slice(&sum.to_le_bytes());
}

/// Takes the field off the front; `None` when something else stands there.
pub(super) fn take(from: &mut impl Buf) -> Option<u32> {
    if from.remaining() < CHECK_BYTES || from.get_u8() != TAG {
        return None;
    }
    Some(from.get_u32_le())
}

/// The sum of a message that is in pieces.
pub(super) fn sum<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    // The algorithm has 32 bits.
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_the_bytes_behind_it_wherever_they_are() {
        let mut head = BytesMut::from(&b"prefix"[..]);
        reserve(&mut head);
        head.extend_from_slice(b"head");
        fill(&mut head, 6, b"data");
        let mut sent = &head[6..];
        assert_eq!(take(&mut sent), Some(sum([&b"headdata"[..]].into_iter())));
        assert_eq!(sent, b"head");
        assert_eq!(take(&mut &b"12345"[..]), None);
        assert_eq!(take(&mut &b"\x7d"[..]), None);
    }
}
