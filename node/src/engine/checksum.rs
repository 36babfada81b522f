//! Checksums of everything on disk: CRC32C, salted with where and when the bytes belong.
//!
//! The salt (segment generation, random seed, byte offset) is inside every header checksum, so that a valid-looking
//! record of a recycled segment, or one written to the wrong place, can never pass.

/// Payload bytes under one checksum.
pub(crate) const CHECKED_BLOCK: usize = 64 << 10;

/// What a segment was given when it was last taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt {
    /// Grows with every segment taken into use, over the whole store.
    pub(crate) generation: u64,
    /// Random.
    pub(crate) seed: u64,
}

/// CRC32C of plain bytes.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC32C of header bytes that belong at `offset` of a segment with this salt.
///
/// `parts` together are short: at most [`SALTED_MAX`] bytes.
pub(crate) fn salted(salt: Salt, offset: u64, parts: [&[u8]; 2]) -> u32 {
    let mut buffer = [0u8; 24 + SALTED_MAX];
    buffer[..8].copy_from_slice(&salt.generation.to_le_bytes());
    buffer[8..16].copy_from_slice(&salt.seed.to_le_bytes());
    buffer[16..24].copy_from_slice(&offset.to_le_bytes());
    let mut end = 24;
    for part in parts {
        let fits = part.len().min(buffer.len() - end);
        buffer[end..end + fits].copy_from_slice(&part[..fits]);
        end += fits;
    }
    crc(&buffer[..end])
}

/// Most bytes [`salted`] covers: a record header and the checksums of the largest payload.
pub(crate) const SALTED_MAX: usize = 88 + 4 * 17;

/// How many checksums a payload of this length has.
pub(crate) const fn block_count(payload_bytes: usize) -> usize {
    payload_bytes.div_ceil(CHECKED_BLOCK)
}
