//! Blobs that travel as zstd frames.
//!
//! Invariants: frames never unfold into more bytes than the blob they are of, and a window of more than 8 MiB is
//! refused. Not here: frames as they are stored (`node`), and dialects whose bodies are compressed as a whole.
//! Source: RFC 8878.

use std::fmt;

use bytes::{Buf as _, Bytes};
use zimcache_telemetry::task;
use zstd::{
    stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer},
    zstd_safe::DParameter,
};

/// Largest window accepted, as a power of two: what RFC 8878 asks every decoder to take.
pub(crate) const WINDOW_LOG_MAX: u32 = 23;
/// Larger data is unpacked on a thread that may take its time, or piece by piece.
pub(crate) const AT_ONCE_BYTES: usize = 256 << 10;
/// Most bytes unpacked at a time: some hundred microseconds.
const PIECE_BYTES: u64 = 128 << 10;
/// Bytes that frames may take beyond twice their content, for what they are in and what says nothing.
const SPARE_BYTES: u64 = 64 << 10;

/// How a frame begins, with its size in four bytes and all of it as the window.
const HEAD: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];
/// Most bytes in a block.
const MOST_BLOCK_BYTES: usize = 128 << 10;

/// What stands in front of so many bytes to make them a frame of one block, in which they lie as they are. They have to
/// fit into a block.
pub(crate) fn head_of_raw(bytes: usize) -> [u8; 12] {
    debug_assert!(bytes <= MOST_BLOCK_BYTES, "more than a block");
    let size = (bytes as u32).to_le_bytes();
    // The last block, raw.
    let block = (bytes as u32) << 3 | 1;
    let mut head = [0; 12];
    head[..5].copy_from_slice(&HEAD);
    head[5..9].copy_from_slice(&size);
    head[9..].copy_from_slice(&block.to_le_bytes()[..3]);
    head
}

/// Unpacks frames of exactly so many bytes; `None` when they are malformed or of another size.
pub(crate) async fn unpack(packed: Bytes, size: usize) -> Option<Bytes> {
    if size <= AT_ONCE_BYTES {
        return unpack_now(&packed, size);
    }
    let unpacking = task::spawn_blocking("unpack", move || unpack_now(&packed, size));
    unpacking.await.ok().flatten()
}

fn unpack_now(packed: &[u8], size: usize) -> Option<Bytes> {
    let mut decompressor = zstd::bulk::Decompressor::new().ok()?;
    let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
    decompressor.set_parameter(window).ok()?;
    // The result has a capacity of `size`, so more than that is an error.
    let unpacked = decompressor.decompress(packed, size).ok()?;
    (unpacked.len() == size).then(|| unpacked.into())
}

/// Most bytes in which so many may travel.
pub(crate) const fn most_packed(size: u64) -> u64 {
    size.saturating_mul(2).saturating_add(SPARE_BYTES)
}

/// The bytes are no frames, or not of what they were to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Frames that are unpacked while they arrive. Takes a window of memory, so as many may be there as have permission.
pub(crate) struct Unpacking {
    decoder: Decoder<'static>,
    packed: Bytes,
    /// Most bytes that may still go in.
    packed_left: u64,
    /// Bytes that are still to come out.
    left: u64,
    is_inside: bool,
    holds_more: bool,
}

impl Unpacking {
    /// Frames of so many bytes; `None` when there is no memory.
    pub(crate) fn new(size: u64) -> Option<Unpacking> {
        let mut decoder = Decoder::new().ok()?;
        let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
        decoder.set_parameter(window).ok()?;
        Some(Unpacking {
            decoder,
            packed: Bytes::new(),
            packed_left: most_packed(size),
            left: size,
            is_inside: false,
            holds_more: false,
        })
    }

    /// Adds what arrived. The pieces of what came before have been taken.
    pub(crate) fn push(&mut self, packed: Bytes) -> Result<(), Malformed> {
        let left = self.packed_left.checked_sub(packed.len() as u64);
        self.packed_left = left.ok_or(Malformed)?;
        self.packed = packed;
        Ok(())
    }

    /// The next piece of what arrived; `None` when more has to arrive first.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Malformed> {
        while !self.packed.is_empty() || self.holds_more {
            // One byte more than there may be shows that there is more.
            let mut piece = Vec::with_capacity(PIECE_BYTES.min(self.left + 1) as usize);
            let mut input = InBuffer::around(&self.packed);
            let mut output = OutBuffer::around(&mut piece);
            let run = self.decoder.run(&mut input, &mut output);
            let expected = run.map_err(|_| Malformed)?;
            let taken = input.pos();
            self.packed.advance(taken);
            self.is_inside = expected > 0;
            self.holds_more = self.is_inside && piece.len() == piece.capacity();
            let left = self.left.checked_sub(piece.len() as u64);
            self.left = left.ok_or(Malformed)?;
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
            if taken == 0 {
                self.holds_more = false;
                break;
            }
        }
        Ok(None)
    }

    /// Whether everything has come out, and the last frame is whole.
    pub(crate) const fn is_complete(&self) -> bool {
        self.left == 0 && !self.is_inside
    }
}

impl fmt::Debug for Unpacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unpacking({} bytes left)", self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_a_raw_frame_are_those_bytes() {
        for size in [0, 1, 255, 256, 65_536, MOST_BLOCK_BYTES] {
            let value = vec![7_u8; size];
            let frame = [&head_of_raw(size)[..], &value].concat();
            assert_eq!(unpack_now(&frame, size).unwrap(), value, "{size}");
            let twice = [&frame[..], &frame].concat();
            assert_eq!(zstd::decode_all(&twice[..]).unwrap().len(), 2 * size);
        }
    }

    #[tokio::test]
    async fn frames_unpack_into_what_their_size_says_and_no_more() {
        let value = vec![7_u8; 100_000];
        let packed = Bytes::from(zstd::bulk::compress(&value, 1).unwrap());
        assert_eq!(unpack(packed.clone(), 100_000).await.unwrap(), value);
        assert_eq!(unpack(packed.clone(), 99_999).await, None);
        assert_eq!(unpack(packed.clone(), 100_001).await, None);
        assert_eq!(unpack(packed.slice(1..), 100_000).await, None);
        let twice = Bytes::from([&packed[..], &packed].concat());
        assert_eq!(unpack(twice, 200_000).await.unwrap().len(), 200_000);
    }
}
