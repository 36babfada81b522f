//! What clients store, so that whatever comes back says of itself what it is.

use bytes::Bytes;
use zimcache_types::{Digest, Function};

/// The n-th blob of a simulation.
pub(crate) fn blob(seed: u64, number: u64) -> Bytes {
    // Most are small, some take several frames, one is large.
    let size = match number % 8 {
        0 => 60_000,
        1 => 9_000,
        2 => 1,
        other => 50 * other,
    };
    filled(format!("blob {seed} {number} "), size)
}

/// The value of an entry's n-th put.
pub(crate) fn entry(key: &str, put: u64) -> Bytes {
    let size = match put % 16 {
        0 => 20_000,
        1 => 3_000,
        other => 10 * other,
    };
    filled(format!("{key} {put} "), size)
}

/// The name of a value in the history.
pub(crate) fn entry_name(key: &str, put: u64) -> String {
    format!("{key} {put}")
}

/// The name of a value that was read: that of the put which wrote exactly this, else its hash.
pub(crate) fn name_of_read(body: &Bytes) -> String {
    let parsed = std::str::from_utf8(body).ok().and_then(|text| {
        let mut words = text.split(' ');
        let (key, put) = (words.next()?, words.next()?.parse().ok()?);
        (entry(key, put) == *body).then(|| entry_name(key, put))
    });
    parsed.unwrap_or_else(|| hash_of(body))
}

/// The hash of a blob's bytes.
pub(crate) fn hash_of(body: &[u8]) -> String {
    Digest::of(Function::Sha256, body).hash.to_hex()
}

/// A beginning, and as much of it again as makes up the size.
fn filled(beginning: String, size: u64) -> Bytes {
    let mut bytes = beginning.clone().into_bytes();
    let size = bytes.len() + usize::try_from(size).unwrap();
    while bytes.len() < size {
        bytes.extend_from_slice(beginning.as_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}
