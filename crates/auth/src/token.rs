//! A token's secret text, its id and its hash.
//!
//! `zim_` + id + `_` + secret: the prefix lets secret scanners find a leaked one, the id lets people name it without
//! knowing it. The hash is one SHA-256 of the whole text: the secret is 32 random bytes, so there is nothing to guess
//! that a slow hash would protect.

use std::{fmt, hash, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::{Error, Result};

/// What every token of ours begins with.
const PREFIX: &str = "zim_";
/// Random bytes of an id: eight characters of base32.
const ID_BYTES: usize = 5;
/// Random bytes of a secret: 43 characters of base64url.
const SECRET_BYTES: usize = 32;
/// Longest id, in bytes.
const ID_LIMIT_BYTES: usize = 64;

/// The secret text of a token. Shown once, kept nowhere; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new secret for the token of this id.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn generate(id: &TokenId) -> Result<Token> {
        Ok(Token::assemble(id, random::<SECRET_BYTES>()?))
    }

    fn assemble(id: &TokenId, secret: [u8; SECRET_BYTES]) -> Token {
        Token(format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret)))
    }

    /// The secret. What prints it says so.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Names a token without giving it away: eight random characters, or what somebody wrote into the file by hand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

/// Why an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id; accepted: 1-64 characters of A-Z a-z 0-9 . _ -")]
pub struct TokenIdError(String);

impl TokenId {
    /// A new id.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn generate() -> Result<TokenId> {
        Ok(TokenId(base32(random::<ID_BYTES>()?)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<TokenId, TokenIdError> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        if (1..=ID_LIMIT_BYTES).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(TokenId(text.to_owned()));
        }
        Err(TokenIdError(text.to_owned()))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a token's whole text. Compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct TokenHash([u8; 32]);

/// Why a hash was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is written sha256: and 64 lower-case hexadecimal digits")]
pub struct TokenHashError;

impl TokenHash {
    const NAME: &'static str = "sha256:";

    /// The hash of a secret text.
    pub fn of(secret: &[u8]) -> TokenHash {
        TokenHash(Sha256::digest(secret).into())
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl hash::Hash for TokenHash {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl FromStr for TokenHash {
    type Err = TokenHashError;

    fn from_str(text: &str) -> Result<TokenHash, TokenHashError> {
        let digits = text.strip_prefix(Self::NAME).ok_or(TokenHashError)?;
        if digits.len() != 64 {
            return Err(TokenHashError);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let nibble = |digit: u8| match digit {
                b'0'..=b'9' => Ok(digit - b'0'),
                b'a'..=b'f' => Ok(digit - b'a' + 10),
                _ => Err(TokenHashError),
            };
            let [high, low] = [nibble(pair[0])?, nibble(pair[1])?];
            *byte = high << 4 | low;
        }
        Ok(TokenHash(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({self})")
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Error::NoRandomness)?;
    Ok(bytes)
}

/// Five bytes as eight characters of base32 (RFC 4648), in lower case.
fn base32(bytes: [u8; ID_BYTES]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let number = bytes
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let digit = |position: u32| {
        let index = number >> (5 * position) & 31;
        char::from(DIGITS[index as usize])
    };
    (0..8).rev().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_token_has_prefix_id_and_secret() {
        let id: TokenId = "abcd2345".parse().unwrap();
        let token = Token::assemble(&id, [0xfb; 32]);
        let secret = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s";
        assert_eq!(token.expose(), format!("zim_abcd2345_{secret}"));
        assert_eq!(secret.len(), 43);
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let id = TokenId::generate().unwrap();
        let token = Token::generate(&id).unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn no_two_are_alike() {
        let ids: HashSet<TokenId> = (0..100).map(|_| TokenId::generate().unwrap()).collect();
        assert_eq!(ids.len(), 100);
        let id = ids.iter().next().unwrap();
        assert!(
            id.as_str()
                .bytes()
                .all(|c| b"abcdefghijklmnopqrstuvwxyz234567".contains(&c))
        );
        assert_ne!(Token::generate(id).unwrap(), Token::generate(id).unwrap());
    }

    #[test]
    fn the_hash_is_sha_256_of_the_whole_text() {
        // The example of FIPS 180-2.
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of(b"abc").to_string(), expected);
    }

    #[test]
    fn ids_are_written_as_in_rfc_4648() {
        assert_eq!(base32(*b"fooba"), "mzxw6ytb");
        assert_eq!(base32([0xff; 5]), "77777777");
        assert_eq!(base32([0; 5]), "aaaaaaaa");
    }

    #[test]
    fn other_forms_of_hashes_and_ids_are_refused() {
        let digits = "ab".repeat(32);
        for bad in [
            digits.clone(),
            format!("sha256:{}", digits.to_uppercase()),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{digits}0"),
            format!("sha256:{}g", &digits[1..]),
            format!("sha512:{digits}"),
        ] {
            assert_eq!(bad.parse::<TokenHash>(), Err(TokenHashError), "{bad}");
        }
        for bad in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<TokenId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_hash_reads_back_as_written_and_equals_itself_alone(
            one in any::<[u8; 32]>(), bit in 0_usize..256
        ) {
            let hash = TokenHash(one);
            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
            let mut other = one;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(hash != TokenHash(other));
        }
    }
}
