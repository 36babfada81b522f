//! Incremental hashing with any digest function.
//!
//! Memory is bounded by the function, whatever the size of the body. Only GITSHA1 needs the size before the first
//! byte: [`Hasher::for_digest`] and [`Hasher::sized`] answer `None` where they would have to guess it.

use std::fmt;

use sha1::Digest as _;

use super::{Digest, Function, Hash, MAX_HASH_LEN, sha256_tree::Sha256Tree};

/// Incremental hashing with any [`Function`].
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Box<sha2::Sha256>),
    Sha1(Box<sha1::Sha1>),
    Md5(Box<md5::Md5>),
    Sha384(Box<sha2::Sha384>),
    Sha512(Box<sha2::Sha512>),
    Sha256Tree(Box<Sha256Tree>),
    Blake3(Box<blake3::Hasher>),
    /// Has seen Git's header.
    GitSha1(Box<sha1::Sha1>),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.function()).finish()
    }
}

impl Hasher {
    /// A hasher that has seen no byte, for a function that need not know how many will come. GITSHA1 does: asked for
    /// here it knows the empty blob alone, so that no other body ever verifies.
    pub fn new(function: Function) -> Hasher {
        debug_assert!(
            function != Function::GitSha1,
            "gitsha1 hashes the size first: use `sized` or `for_digest`"
        );
        Hasher::with_size(function, 0)
    }

    /// A hasher for a body of this size; `None` when the size is unknown and the function needs it.
    pub fn sized(function: Function, size_bytes: Option<u64>) -> Option<Hasher> {
        match size_bytes {
            None if function == Function::GitSha1 => None,
            _ => Some(Hasher::with_size(function, size_bytes.unwrap_or(0))),
        }
    }

    /// A hasher that can verify a body against this digest; `None` when the digest lacks the size that its function
    /// needs. The empty blob is known by its hash alone.
    pub fn for_digest(digest: &Digest) -> Option<Hasher> {
        let empty = digest.is_empty_blob().then_some(0);
        Hasher::sized(digest.hash.function(), digest.size_bytes.or(empty))
    }

    /// A hasher for a body of this size; most functions do not look at it.
    pub fn with_size(function: Function, size_bytes: u64) -> Hasher {
        Hasher(match function {
            Function::Sha256 => State::Sha256(Box::default()),
            Function::Sha1 => State::Sha1(Box::default()),
            Function::Md5 => State::Md5(Box::default()),
            Function::Sha384 => State::Sha384(Box::default()),
            Function::Sha512 => State::Sha512(Box::default()),
            Function::Sha256Tree => State::Sha256Tree(Box::default()),
            Function::Blake3 => State::Blake3(Box::default()),
            Function::GitSha1 => {
                let header = format!("blob {size_bytes}\0");
                State::GitSha1(Box::new(sha1::Sha1::new_with_prefix(header)))
            }
        })
    }

    /// The function it computes.
    pub const fn function(&self) -> Function {
        match self.0 {
            State::Sha256(_) => Function::Sha256,
            State::Sha1(_) => Function::Sha1,
            State::Md5(_) => Function::Md5,
            State::Sha384(_) => Function::Sha384,
            State::Sha512(_) => Function::Sha512,
            State::Sha256Tree(_) => Function::Sha256Tree,
            State::Blake3(_) => Function::Blake3,
            State::GitSha1(_) => Function::GitSha1,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(h) => h.update(bytes),
            State::Sha1(h) | State::GitSha1(h) => h.update(bytes),
            State::Md5(h) => h.update(bytes),
            State::Sha384(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
            State::Sha256Tree(h) => h.update(bytes),
            State::Blake3(h) => drop(h.update(bytes)),
        }
    }

    /// The hash of everything seen.
    pub fn finish(self) -> Hash {
        let function = self.function();
        let mut bytes = [0; MAX_HASH_LEN];
        let out = &mut bytes[..function.hash_len()];
        match self.0 {
            State::Sha256(h) => out.copy_from_slice(&h.finalize()),
            State::Sha1(h) | State::GitSha1(h) => out.copy_from_slice(&h.finalize()),
            State::Md5(h) => out.copy_from_slice(&h.finalize()),
            State::Sha384(h) => out.copy_from_slice(&h.finalize()),
            State::Sha512(h) => out.copy_from_slice(&h.finalize()),
            State::Sha256Tree(h) => out.copy_from_slice(&h.finish()),
            State::Blake3(h) => out.copy_from_slice(h.finalize().as_bytes()),
        }
        Hash { function, bytes }
    }
}
