//! Digests: a hash function, its output, and (where the dialect sends it) the size of the bytes.
//!
//! Hash text is lower-case hexadecimal of the function's full length; anything else is refused. The hasher is in
//! `hasher.rs` and the only one in the product; `sha256_tree.rs` is the one function that no library has.

mod hasher;
mod sha256_tree;

use std::{fmt, sync::LazyLock};

pub use hasher::Hasher;

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
    /// MD5, 32 hex digits. Anybody can make two bodies of one name, so it has to be asked for by name.
    Md5 = 3,
    /// SHA-384, 96 hex digits.
    Sha384 = 5,
    /// SHA-512, 128 hex digits.
    Sha512 = 6,
    /// SHA-256 over a tree of leaves of 1024 bytes, 64 hex digits.
    Sha256Tree = 8,
    /// BLAKE3, 64 hex digits.
    Blake3 = 9,
    /// SHA-1 over Git's header of a blob and its bytes, 40 hex digits. The header holds the size, so nothing can be
    /// hashed before its size is known.
    GitSha1 = 10,
}

impl Function {
    /// All of them, by number.
    pub const ALL: [Function; 8] = [
        Function::Sha256,
        Function::Sha1,
        Function::Md5,
        Function::Sha384,
        Function::Sha512,
        Function::Sha256Tree,
        Function::Blake3,
        Function::GitSha1,
    ];

    /// Length of the hash in bytes.
    pub const fn hash_len(self) -> usize {
        match self {
            Function::Md5 => 16,
            Function::Sha1 | Function::GitSha1 => 20,
            Function::Sha256 | Function::Sha256Tree | Function::Blake3 => 32,
            Function::Sha384 => 48,
            Function::Sha512 => 64,
        }
    }

    /// What a bare hash of this many hex digits may be the output of, most likely first. Empty: nothing. SHA256TREE
    /// and GITSHA1 are never among them: their clients name the function.
    pub const fn by_hex_len(digits: usize) -> &'static [Function] {
        match digits {
            32 => &[Function::Md5],
            40 => &[Function::Sha1],
            64 => &[Function::Sha256, Function::Blake3],
            96 => &[Function::Sha384],
            128 => &[Function::Sha512],
            _ => &[],
        }
    }

    /// What a hash that was read as this function's may be the output of, most likely first. A function that is always
    /// named has no other reading.
    pub const fn readings(self) -> &'static [Function] {
        match self {
            Function::Sha256Tree => &[Function::Sha256Tree],
            Function::GitSha1 => &[Function::GitSha1],
            _ => Function::by_hex_len(self.hash_len() * 2),
        }
    }

    /// Enum number in `build.bazel.remote.execution.v2.DigestFunction`, also the number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The inverse of [`Function::number`].
    pub fn from_number(number: u8) -> Option<Function> {
        Self::ALL
            .into_iter()
            .find(|function| function.number() == number)
    }

    /// The name in `build.bazel.remote.execution.v2.DigestFunction`, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Function::Sha256 => "sha256",
            Function::Sha1 => "sha1",
            Function::Md5 => "md5",
            Function::Sha384 => "sha384",
            Function::Sha512 => "sha512",
            Function::Sha256Tree => "sha256tree",
            Function::Blake3 => "blake3",
            Function::GitSha1 => "gitsha1",
        }
    }

    /// The inverse of [`Function::name`].
    pub fn from_name(name: &str) -> Option<Function> {
        Self::ALL
            .into_iter()
            .find(|function| function.name() == name)
    }

    /// Whether the name stands in front of the hash in a resource name. Functions up to number 7 are told by the
    /// length of the hash.
    pub const fn needs_segment(self) -> bool {
        self.number() > 7
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a digest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text alone has to tell the function, and its length does not.
    #[error("hash has {0} hex digits, expected 40, 64, 96 or 128")]
    Length(usize),
    /// The text does not have the length of the function.
    #[error("hash has {digits} hex digits, {function} has {}", function.hash_len() * 2)]
    FunctionLength {
        /// The function named.
        function: Function,
        /// Length of the text.
        digits: usize,
    },
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
        Hash::parse_bytes(function, hex.as_bytes())
    }

    /// [`Hash::parse`] for text that has not been looked at yet.
    ///
    /// # Errors
    /// [`DigestError`] when length or alphabet are wrong.
    pub fn parse_bytes(function: Function, hex: &[u8]) -> Result<Hash, DigestError> {
        if hex.len() != function.hash_len() * 2 {
            return Err(DigestError::FunctionLength {
                function,
                digits: hex.len(),
            });
        }
        let mut bytes = [0; MAX_HASH_LEN];
        let mut wrong = 0;
        for (pair, byte) in hex.chunks_exact(2).zip(bytes.iter_mut()) {
            let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
            wrong |= high | low;
            *byte = (high << 4) | (low & 0xf);
        }
        if wrong & NOT_A_NIBBLE != 0 {
            return Err(DigestError::NotHex);
        }
        Ok(Hash { function, bytes })
    }

    /// Parses a hash whose function is only known by its length; the most likely function is taken
    /// (see [`Function::by_hex_len`]; [`Hash::reinterpret`] gives the other readings). MD5 is never taken: who wants
    /// it says so, with [`Hash::parse`].
    ///
    /// # Errors
    /// [`DigestError`] when length or alphabet are wrong.
    pub fn parse_untyped(hex: &str) -> Result<Hash, DigestError> {
        match Function::by_hex_len(hex.len()) {
            [Function::Md5, ..] | [] => Err(DigestError::Length(hex.len())),
            [first, ..] => Hash::parse(*first, hex),
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

/// Mark of a character that is no lower-case hexadecimal digit.
const NOT_A_NIBBLE: u8 = 0x80;

/// The value of each character as a digit. Looked up without a branch: a request may have thousands of hashes.
static NIBBLES: [u8; 256] = {
    let mut nibbles = [NOT_A_NIBBLE; 256];
    let mut digit = 0;
    while digit < 16 {
        nibbles[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    nibbles
};

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
        let size_bytes = bytes.len() as u64;
        let mut hasher = Hasher::with_size(function, size_bytes);
        hasher.update(bytes);
        Digest::sized(hasher.finish(), size_bytes)
    }

    /// Whether this names the empty blob, which every store holds without storing it.
    pub fn is_empty_blob(&self) -> bool {
        matches!(self.size_bytes, None | Some(0)) && EMPTY.contains(&self.hash)
    }
}

/// The hash of no bytes, in every function.
static EMPTY: LazyLock<[Hash; Function::ALL.len()]> =
    LazyLock::new(|| Function::ALL.map(|function| Hasher::with_size(function, 0).finish()));

#[cfg(test)]
mod tests;
