//! Digests: a hash function, its output, and (where the dialect sends it) the size of the bytes.
//!
//! Hash text is lower-case hexadecimal of the function's full length; anything else is refused. The hasher here is
//! the only one in the product.

use std::{fmt, sync::LazyLock};

use sha2::Digest as _;

/// Longest hash in bytes (SHA-512).
pub const MAX_HASH_LEN: usize = 64;

/// A hash function of the Remote Execution API that the store can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Function {
    /// SHA-256, 64 hex digits: the default everywhere.
    Sha256 = 1,
    /// SHA-1, 40 hex digits.
    Sha1 = 2,
    /// SHA-384, 96 hex digits.
    Sha384 = 5,
    /// SHA-512, 128 hex digits.
    Sha512 = 6,
    /// BLAKE3, 64 hex digits.
    Blake3 = 9,
}

impl Function {
    /// Length of the hash in bytes.
    pub const fn hash_len(self) -> usize {
        match self {
            Function::Sha1 => 20,
            Function::Sha256 | Function::Blake3 => 32,
            Function::Sha384 => 48,
            Function::Sha512 => 64,
        }
    }

    /// The functions whose hash has this many hex digits, most likely first. Empty: no such function.
    pub const fn by_hex_len(digits: usize) -> &'static [Function] {
        match digits {
            40 => &[Function::Sha1],
            64 => &[Function::Sha256, Function::Blake3],
            96 => &[Function::Sha384],
            128 => &[Function::Sha512],
            _ => &[],
        }
    }

    /// Enum number in `build.bazel.remote.execution.v2.DigestFunction`, also the number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The inverse of [`Function::number`].
    pub const fn from_number(number: u8) -> Option<Function> {
        match number {
            1 => Some(Function::Sha256),
            2 => Some(Function::Sha1),
            5 => Some(Function::Sha384),
            6 => Some(Function::Sha512),
            9 => Some(Function::Blake3),
            _ => None,
        }
    }
}

/// Why a digest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text has a length that no supported function has.
    #[error("hash has {0} hex digits, expected 40, 64, 96 or 128")]
    Length(usize),
    /// The text is not lower-case hexadecimal.
    #[error("hash is not lower-case hexadecimal")]
    NotHex,
}

/// The output of a [`Function`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash {
    function: Function,
    bytes: [u8; MAX_HASH_LEN],
}

impl Hash {
    /// Wraps raw hash bytes; `None` when the length is not the function's.
    pub fn from_bytes(function: Function, raw: &[u8]) -> Option<Hash> {
        if raw.len() != function.hash_len() {
            return None;
        }
        let mut bytes = [0; MAX_HASH_LEN];
        bytes[..raw.len()].copy_from_slice(raw);
        Some(Hash { function, bytes })
    }

    /// Parses lower-case hex for a known function.
    ///
    /// # Errors
    /// [`DigestError`] when length or alphabet are wrong.
    pub fn parse(function: Function, hex: &str) -> Result<Hash, DigestError> {
        let raw = hex.as_bytes();
        if raw.len() != function.hash_len() * 2 {
            return Err(DigestError::Length(raw.len()));
        }
        let mut bytes = [0; MAX_HASH_LEN];
        for (pair, byte) in raw.chunks_exact(2).zip(bytes.iter_mut()) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Hash { function, bytes })
    }

    /// Parses a hash whose function is only known by its length; the most likely function is taken
    /// (see [`Function::by_hex_len`]; [`Hash::reinterpret`] gives the other readings).
    ///
    /// # Errors
    /// [`DigestError`] when length or alphabet are wrong.
    pub fn parse_untyped(hex: &str) -> Result<Hash, DigestError> {
        match Function::by_hex_len(hex.len()) {
            [first, ..] => Hash::parse(*first, hex),
            [] => Err(DigestError::Length(hex.len())),
        }
    }

    /// The same bytes as the output of another function of the same length.
    pub fn reinterpret(self, function: Function) -> Option<Hash> {
        Hash::from_bytes(function, self.as_bytes())
    }

    /// The function that made it.
    pub const fn function(&self) -> Function {
        self.function
    }

    /// The raw bytes, as long as the function says.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.function.hash_len()]
    }

    /// Lower-case hex.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.as_bytes()
            .iter()
            .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
            .map(char::from)
            .collect()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.function, self.to_hex())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

const fn nibble(c: u8) -> Result<u8, DigestError> {
    match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(DigestError::NotHex),
    }
}

/// The name of a blob: hash and, where the dialect sends it, size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    /// The hash.
    pub hash: Hash,
    /// Size in bytes; `None` where the dialect does not send one (Bazel over HTTP). A right hash with a wrong size
    /// names nothing.
    pub size_bytes: Option<u64>,
}

impl Digest {
    /// A digest without a size.
    pub const fn unsized_(hash: Hash) -> Digest {
        Digest {
            hash,
            size_bytes: None,
        }
    }

    /// A digest with its size.
    pub const fn sized(hash: Hash, size_bytes: u64) -> Digest {
        Digest {
            hash,
            size_bytes: Some(size_bytes),
        }
    }

    /// The digest of these bytes.
    pub fn of(function: Function, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(function);
        hasher.update(bytes);
        Digest::sized(hasher.finish(), bytes.len() as u64)
    }

    /// Whether this names the empty blob, which every store holds without storing it.
    pub fn is_empty_blob(&self) -> bool {
        matches!(self.size_bytes, None | Some(0)) && EMPTY.contains(&self.hash)
    }
}

/// The hash of no bytes, in every function.
static EMPTY: LazyLock<[Hash; 5]> = LazyLock::new(|| {
    use Function::{Blake3, Sha1, Sha256, Sha384, Sha512};
    [Sha256, Blake3, Sha1, Sha384, Sha512].map(|function| Hasher::new(function).finish())
});

/// Incremental hashing with any [`Function`].
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha1(Box<sha1::Sha1>),
    Sha256(Box<sha2::Sha256>),
    Sha384(Box<sha2::Sha384>),
    Sha512(Box<sha2::Sha512>),
    Blake3(Box<blake3::Hasher>),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.function()).finish()
    }
}

impl Hasher {
    /// A hasher that has seen no byte.
    pub fn new(function: Function) -> Hasher {
        Hasher(match function {
            Function::Sha1 => State::Sha1(Box::default()),
            Function::Sha256 => State::Sha256(Box::default()),
            Function::Sha384 => State::Sha384(Box::default()),
            Function::Sha512 => State::Sha512(Box::default()),
            Function::Blake3 => State::Blake3(Box::default()),
        })
    }

    /// The function it computes.
    pub const fn function(&self) -> Function {
        match self.0 {
            State::Sha1(_) => Function::Sha1,
            State::Sha256(_) => Function::Sha256,
            State::Sha384(_) => Function::Sha384,
            State::Sha512(_) => Function::Sha512,
            State::Blake3(_) => Function::Blake3,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha1(h) => h.update(bytes),
            State::Sha256(h) => h.update(bytes),
            State::Sha384(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
            State::Blake3(h) => drop(h.update(bytes)),
        }
    }

    /// The hash of everything seen.
    pub fn finish(self) -> Hash {
        let function = self.function();
        let mut bytes = [0; MAX_HASH_LEN];
        let out = &mut bytes[..function.hash_len()];
        match self.0 {
            State::Sha1(h) => out.copy_from_slice(&h.finalize()),
            State::Sha256(h) => out.copy_from_slice(&h.finalize()),
            State::Sha384(h) => out.copy_from_slice(&h.finalize()),
            State::Sha512(h) => out.copy_from_slice(&h.finalize()),
            State::Blake3(h) => out.copy_from_slice(h.finalize().as_bytes()),
        }
        Hash { function, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors_of_every_function() {
        let cases = [
            (Function::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                Function::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                Function::Blake3,
                "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
            ),
        ];
        for (function, hex) in cases {
            assert_eq!(Digest::of(function, b"abc").hash.to_hex(), hex);
            assert_eq!(Hash::parse(function, hex).unwrap().to_hex(), hex);
        }
    }

    #[test]
    fn upper_case_short_and_foreign_text_is_refused() {
        let hex = Digest::of(Function::Sha256, b"abc").hash.to_hex();
        assert_eq!(
            Hash::parse_untyped(&hex.to_uppercase()),
            Err(DigestError::NotHex)
        );
        assert_eq!(Hash::parse_untyped(&hex[1..]), Err(DigestError::Length(63)));
        assert_eq!(
            Hash::parse_untyped(&hex.replace('b', "/")),
            Err(DigestError::NotHex)
        );
    }

    #[test]
    fn the_empty_blob_is_known_in_every_function() {
        for function in [
            Function::Sha1,
            Function::Sha256,
            Function::Sha512,
            Function::Blake3,
        ] {
            assert!(Digest::of(function, b"").is_empty_blob());
            assert!(!Digest::of(function, b"x").is_empty_blob());
        }
    }
}
