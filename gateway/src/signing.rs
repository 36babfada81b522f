//! Signatures of URLs that we hand out: whoever holds such a URL may do what it was signed for, until it expires.
//!
//! HMAC-SHA256 over the parts that matter, each with its length, so that no two lists of parts sign alike. Not here:
//! what is signed (`protocol::actions_cache`). Invariant: a signature is compared in constant time.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

/// The key that URLs are signed with. Gateways that share clients need the same one.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Shortest secret that is worth having, in bytes.
    pub const MIN_BYTES: usize = 32;

    /// A key made of a secret of any length: of its hash, filled up to the block of HMAC.
    pub fn new(secret: &[u8]) -> SigningKey {
        let mut block = [0; 64];
        let (key, _) = block.split_at_mut(32);
        key.copy_from_slice(&Sha256::digest(secret));
        SigningKey(Hmac::new(&block.into()))
    }

    /// A key that nobody else has and that is gone with the process; `None` when the system has no randomness.
    pub fn random() -> Option<SigningKey> {
        let mut secret = [0; Self::MIN_BYTES];
        getrandom::fill(&mut secret).ok()?;
        Some(SigningKey::new(&secret))
    }

    /// The signature of these parts, as text that a URL can hold.
    pub(crate) fn sign(&self, parts: &[&str]) -> String {
        URL_SAFE_NO_PAD.encode(self.over(parts).finalize().into_bytes())
    }

    /// Whether this is the signature of these parts.
    pub(crate) fn verifies(&self, parts: &[&str], signature: &str) -> bool {
        let decoded = URL_SAFE_NO_PAD.decode(signature);
        decoded.is_ok_and(|signature| self.over(parts).verify_slice(&signature).is_ok())
    }

    fn over(&self, parts: &[&str]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_parts_and_its_key_alone() {
        let key = SigningKey::new(b"secret");
        let signature = key.sign(&["ab", "c"]);
        assert!(key.verifies(&["ab", "c"], &signature));
        for other in [
            vec!["a", "bc"],
            vec!["abc"],
            vec!["ab", "c", ""],
            vec!["ab", "d"],
        ] {
            assert!(!key.verifies(&other, &signature), "{other:?}");
        }
        let other = SigningKey::new(b"another");
        assert!(!other.verifies(&["ab", "c"], &signature));
        for bad in ["", "?", &signature[1..], &format!("{signature}A")] {
            assert!(!key.verifies(&["ab", "c"], bad), "{bad}");
        }
    }

    #[test]
    fn the_same_secret_is_the_same_key_and_random_ones_differ() {
        let sign = |key: SigningKey| key.sign(&["x"]);
        let of = |secret: &[u8]| sign(SigningKey::new(secret));
        assert_eq!(of(b"secret"), of(b"secret"));
        let random = || sign(SigningKey::random().unwrap());
        assert_ne!(random(), random());
        assert!(!format!("{:?}", SigningKey::random()).contains("Hmac"));
    }
}
