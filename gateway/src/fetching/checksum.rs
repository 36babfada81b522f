//! Checksums as clients of the Remote Asset API give them: `sha256-…`, several of them separated by spaces, any of which
//! satisfies.
//!
//! Source: Subresource Integrity, W3C (the form), and `checksum.sri` in the lexicon of qualifiers (any one satisfies,
//! where browsers take the strongest). Invariant: there is at least one; options behind a question mark mean nothing.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use zimcache_types::{Digest, Function, Hash, digest::Hasher};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Checksums, any of which satisfies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Checksums(Vec<Hash>);

impl Checksums {
    /// Reads them; `None` when one is malformed, or none is of a function that is verified. Others are no help and no
    /// harm.
    pub(crate) fn parse(text: &str) -> Option<Checksums> {
        let mut known = Vec::new();
        for one in text.split_ascii_whitespace() {
            let (name, rest) = one.split_once('-')?;
            let encoded = rest.split('?').next().unwrap_or_default();
            let function = match name {
                "sha256" => Function::Sha256,
                "sha384" => Function::Sha384,
                "sha512" => Function::Sha512,
                "blake3" => Function::Blake3,
                _ => continue,
            };
            let raw = BASE64.decode(encoded).ok()?;
            known.push(Hash::from_bytes(function, &raw)?);
        }
        known.sort_unstable();
        known.dedup();
        (!known.is_empty()).then_some(Checksums(known))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hash> {
        self.0.iter()
    }

    /// The only one, if it is of this function: then it is the name of the blob.
    pub(crate) fn only(&self, function: Function) -> Option<Hash> {
        match self.0.as_slice() {
            [hash] if hash.function() == function => Some(*hash),
            _ => None,
        }
    }

    /// Whether one of them says so.
    pub(crate) fn has(&self, hash: &Hash) -> bool {
        self.0.contains(hash)
    }
}

/// Hashes bytes with every function that has something to say about them.
#[derive(Debug)]
pub(crate) struct Sums(Vec<Hasher>);

impl Sums {
    /// For the digest in this function and all these checksums; `None` when the function has to know the size and nobody
    /// does.
    pub(crate) fn new(
        function: Function,
        checksums: Option<&Checksums>,
        size_bytes: Option<u64>,
    ) -> Option<Sums> {
        let checked = checksums.into_iter().flat_map(Checksums::iter);
        // Checksums are sorted, by function first.
        let mut functions = vec![function];
        functions.extend(checked.map(Hash::function).filter(|one| *one != function));
        functions.dedup();
        let hashers = functions.into_iter();
        let sized = hashers.map(|function| Hasher::sized(function, size_bytes));
        sized.collect::<Option<_>>().map(Sums)
    }

    pub(crate) fn update(&mut self, bytes: &Bytes) {
        for hasher in &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// The digest of everything seen; `None` when no checksum is satisfied.
    pub(crate) fn finish(self, size_bytes: u64, checksums: Option<&Checksums>) -> Option<Digest> {
        let hashes: Vec<Hash> = self.0.into_iter().map(Hasher::finish).collect();
        let satisfied = |checksums: &Checksums| hashes.iter().any(|hash| checksums.has(hash));
        if !checksums.is_none_or(satisfied) {
            return None;
        }
        Some(Digest::sized(*hashes.first()?, size_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const OTHER: &str = "sha384-G9d9sKLNRfeFfGn1mnVXeJzXSbkCsYt11kl5hJnHpdzfVuLIuruIDnrs/lZyB4Gs";

    fn sums(checksums: &str, bytes: &'static [u8]) -> Option<Digest> {
        let checksums = Checksums::parse(checksums).unwrap();
        let mut sums = Sums::new(Function::Sha1, Some(&checksums), None).unwrap();
        sums.update(&Bytes::from_static(bytes));
        sums.finish(bytes.len() as u64, Some(&checksums))
    }

    #[test]
    fn any_of_several_checksums_satisfies() {
        for text in [
            EMPTY.to_owned(),
            format!("{OTHER}\t {EMPTY}?x"),
            format!("md5-xyz {EMPTY}"),
            EMPTY.trim_end_matches('=').to_owned(),
        ] {
            assert_eq!(sums(&text, b""), Some(Digest::of(Function::Sha1, b"")));
            assert_eq!(sums(&text, b"a"), None, "{text}");
        }
        assert_eq!(sums(OTHER, b""), None);
    }

    #[test]
    fn a_single_checksum_may_be_the_name_of_the_blob() {
        let one = Checksums::parse(EMPTY).unwrap();
        assert_eq!(
            one.only(Function::Sha256),
            Some(Digest::of(Function::Sha256, b"").hash)
        );
        assert_eq!(one.only(Function::Blake3), None);
        let two = Checksums::parse(&format!("{EMPTY} {OTHER}")).unwrap();
        assert_eq!(two.only(Function::Sha256), None);
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        for text in ["", "md5-1B2M2Y8AsgTpgAmY7PhCfg==", "sha256", "sha256-47DE"] {
            assert_eq!(Checksums::parse(text), None, "{text}");
        }
        assert!(Checksums::parse(&format!("sha256-%%% {EMPTY}")).is_none());
    }

    #[test]
    fn a_function_that_hashes_the_size_first_needs_it() {
        assert!(Sums::new(Function::GitSha1, None, None).is_none());
        let mut sums = Sums::new(Function::GitSha1, None, Some(1)).unwrap();
        sums.update(&Bytes::from_static(b"a"));
        let digest = Digest::of(Function::GitSha1, b"a");
        assert_eq!(sums.finish(1, None), Some(digest));
    }
}
