//! Digests between messages and the store.
//!
//! A request may leave its digest function out; then it is inferred from the length of the hash, and a hash of 64 digits
//! may be of SHA-256 or of BLAKE3 (one client never says). Not here: resource names (`names`). Invariant: what is accepted
//! is lower-case hexadecimal of a function's full length, with a size that is not negative.
//! Source: `Digest` and `DigestFunction` of the specification.

use std::borrow::Cow;

use zimcache_config::GatewayConfig;
use zimcache_proto::reapi;
use zimcache_types::{Digest, Function, Hash, digest::DigestError};

use crate::{
    cache::Named,
    grpc::{Outcome, Status},
};

/// The functions that this server verifies, the default first. MD5 only where somebody asked for it.
pub(super) fn functions(config: &GatewayConfig) -> impl Iterator<Item = Function> + use<> {
    const ALWAYS: [Function; 7] = [
        Function::Sha256,
        Function::Blake3,
        Function::Sha1,
        Function::Sha384,
        Function::Sha512,
        Function::Sha256Tree,
        Function::GitSha1,
    ];
    let md5 = config.md5_digests.then_some(Function::Md5);
    ALWAYS.into_iter().chain(md5)
}

/// How the digests of a request are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader {
    /// What the request says.
    function: Option<Function>,
    md5: bool,
}

impl Reader {
    /// Reads the number of a request's `digest_function`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when this server does not verify it.
    pub(super) fn new(config: &GatewayConfig, number: i32) -> Outcome<Reader> {
        let md5 = config.md5_digests;
        if number == 0 {
            return Ok(Reader {
                function: None,
                md5,
            });
        }
        let known = u8::try_from(number).ok().and_then(Function::from_number);
        match known.filter(|function| md5 || *function != Function::Md5) {
            Some(function) => Ok(Reader {
                function: Some(function),
                md5,
            }),
            None => Err(Status::invalid(format!(
                "digest function {number} is not one that this server verifies"
            ))),
        }
    }

    /// The function that the request names.
    pub(super) const fn function(self) -> Option<Function> {
        self.function
    }

    /// Reads a digest.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when hash or size are malformed.
    pub(super) fn read(self, digest: &reapi::Digest) -> Outcome<Named> {
        self.parts(digest.hash.as_bytes(), digest.size_bytes)
            .map_err(Status::invalid)
    }

    /// Reads a digest that has to be there.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is missing or malformed.
    pub(super) fn required(self, digest: Option<&reapi::Digest>) -> Outcome<Named> {
        let digest = digest.ok_or_else(|| Status::invalid("the request has no digest"))?;
        self.read(digest)
    }

    /// Reads hash and size.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub(super) fn parts(self, hash: &[u8], size: i64) -> Result<Named, Cow<'static, str>> {
        let size = u64::try_from(size).map_err(|_| "a digest's size is negative")?;
        let readings = Function::by_hex_len(hash.len());
        let likeliest = readings
            .iter()
            .find(|function| self.md5 || **function != Function::Md5);
        let function = self.function.or(likeliest.copied());
        let function = function.ok_or_else(|| DigestError::Length(hash.len()).to_string())?;
        let hash = Hash::parse_bytes(function, hash).map_err(|error| error.to_string())?;
        Ok(Named {
            digest: Digest::sized(hash, size),
            certain: self.function.is_some() || readings.len() < 2,
        })
    }
}
