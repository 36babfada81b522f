//! Blobs that travel as zstd frames.
//!
//! Invariants: frames never unfold into more bytes than the blob they are of, and a window of more than 8 MiB is
//! refused. Not here: frames as they are stored (`node`), and dialects whose bodies are compressed as a whole.
//! Source: RFC 8878.

use bytes::Bytes;
use zimcache_telemetry::task;
use zstd::zstd_safe::DParameter;

/// Largest window accepted, as a power of two: what RFC 8878 asks every decoder to take.
pub(crate) const WINDOW_LOG_MAX: u32 = 23;
/// Larger data is unpacked on a thread that may take its time.
const AT_ONCE_BYTES: usize = 256 << 10;

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

#[cfg(test)]
mod tests {
    use super::*;

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
