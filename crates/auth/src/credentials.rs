//! Reading what a client shows: an `Authorization` value, or the `user:password@host` form of an authority.
//!
//! Not here: whether it is good. Lenient where clients differ (both alphabets of base64, padding or none, the token
//! as password or as user), strict in everything else. Nothing is allocated: what has to be decoded goes to the
//! caller's buffer.

use std::fmt;

use base64::{
    Engine as _,
    alphabet::{self, Alphabet},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Longest value that is read, in bytes.
pub const LIMIT_BYTES: usize = 4096;

const STANDARD: GeneralPurpose = lenient(&alphabet::STANDARD);
const URL_SAFE: GeneralPurpose = lenient(&alphabet::URL_SAFE);

const fn lenient(alphabet: &Alphabet) -> GeneralPurpose {
    let padding = DecodePaddingMode::Indifferent;
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
    GeneralPurpose::new(alphabet, config)
}

/// What a client showed. `Debug` shows which kind, not what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// Nothing: an empty bearer token, or an empty user with an empty password. Some clients send these when they
    /// have no token, and whoever sends them could as well have left the header out.
    Empty,
    /// A token.
    Bearer(&'a [u8]),
    /// A user and a password, either of which may be a token.
    Basic {
        /// The user; may be empty.
        user: &'a [u8],
        /// The password; may be empty.
        password: &'a [u8],
    },
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Empty => "Empty",
            Credentials::Bearer(_) => "Bearer(…)",
            Credentials::Basic { .. } => "Basic(…)",
        })
    }
}

/// Why a credential cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is too long.
    #[error("a credential has at most {LIMIT_BYTES} bytes")]
    TooLong,
    /// It is of another scheme.
    #[error("only the schemes Bearer and Basic are known")]
    Scheme,
    /// The text after `Basic` is not base64.
    #[error("what follows Basic is not base64")]
    Base64,
    /// There is no colon between user and password.
    #[error("what follows Basic has no colon between user and password")]
    NoColon,
    /// A percent sign of an authority is not followed by two hexadecimal digits.
    #[error("the user part of the authority is not percent-encoded")]
    Percent,
    /// It has characters that no token, user or password has.
    #[error("a credential has no control characters, and a token no blanks")]
    Character,
}

/// Room for a decoded credential.
pub struct Buffer([u8; LIMIT_BYTES]);

impl Buffer {
    /// Empty room.
    pub const fn new() -> Buffer {
        Buffer([0; LIMIT_BYTES])
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer::new()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffer(…)")
    }
}

impl<'a> Credentials<'a> {
    /// Reads an `Authorization` value.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn read(value: &'a [u8], buffer: &'a mut Buffer) -> Result<Credentials<'a>, Malformed> {
        if value.len() > LIMIT_BYTES {
            return Err(Malformed::TooLong);
        }
        let value = value.trim_ascii();
        let end = value.iter().position(u8::is_ascii_whitespace);
        let (scheme, rest) = value.split_at(end.unwrap_or(value.len()));
        let rest = rest.trim_ascii_start();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            bearer(rest)
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            basic(rest, buffer)
        } else {
            Err(Malformed::Scheme)
        }
    }

    /// Reads the user part of an authority; `None` when it has none.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn read_authority(
        authority: &'a [u8],
        buffer: &'a mut Buffer,
    ) -> Result<Option<Credentials<'a>>, Malformed> {
        let Some(end) = authority.iter().rposition(|byte| *byte == b'@') else {
            return Ok(None);
        };
        let (user_part, _) = authority.split_at(end);
        if user_part.len() > LIMIT_BYTES {
            return Err(Malformed::TooLong);
        }
        let colon = user_part.iter().position(|byte| *byte == b':');
        let (user, password) = user_part.split_at(colon.unwrap_or(end));
        let (user_room, password_room) = buffer.0.split_at_mut(user.len());
        let user = percent_decoded(user, user_room)?;
        let password = percent_decoded(password.get(1..).unwrap_or_default(), password_room)?;
        pair(user, password).map(Some)
    }
}

fn bearer(token: &[u8]) -> Result<Credentials<'_>, Malformed> {
    if token.is_empty() {
        return Ok(Credentials::Empty);
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed::Character);
    }
    Ok(Credentials::Bearer(token))
}

fn basic<'a>(text: &[u8], buffer: &'a mut Buffer) -> Result<Credentials<'a>, Malformed> {
    let is_url_safe = text.iter().any(|byte| b"-_".contains(byte));
    let engine = if is_url_safe { &URL_SAFE } else { &STANDARD };
    let length = engine
        .decode_slice(text, &mut buffer.0)
        .map_err(|_| Malformed::Base64)?;
    let decoded = buffer.0.get(..length).unwrap_or_default();
    let colon = decoded.iter().position(|byte| *byte == b':');
    let (user, password) = decoded.split_at(colon.ok_or(Malformed::NoColon)?);
    pair(user, password.get(1..).unwrap_or_default())
}

fn pair<'a>(user: &'a [u8], password: &'a [u8]) -> Result<Credentials<'a>, Malformed> {
    if user.iter().chain(password).any(u8::is_ascii_control) {
        return Err(Malformed::Character);
    }
    if user.is_empty() && password.is_empty() {
        return Ok(Credentials::Empty);
    }
    Ok(Credentials::Basic { user, password })
}

/// Decodes into room that is at least as long as the text.
fn percent_decoded<'a>(text: &[u8], room: &'a mut [u8]) -> Result<&'a [u8], Malformed> {
    let mut bytes = text.iter();
    let mut length = 0;
    for place in &mut *room {
        *place = match bytes.next() {
            None => break,
            Some(b'%') => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let value = high.zip(low).map(|(high, low)| high << 4 | low);
                value.ok_or(Malformed::Percent)? as u8
            }
            Some(byte) => *byte,
        };
        length += 1;
    }
    Ok(room.get(..length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{
        STANDARD as PADDED, STANDARD_NO_PAD, URL_SAFE as URL_PADDED, URL_SAFE_NO_PAD,
    };
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    /// Owned copies, so that a test can look at them after the buffer is gone.
    #[derive(Debug, PartialEq)]
    enum Read {
        Empty,
        Bearer(Vec<u8>),
        Basic(Vec<u8>, Vec<u8>),
    }

    fn owned(credentials: Credentials<'_>) -> Read {
        match credentials {
            Credentials::Empty => Read::Empty,
            Credentials::Bearer(token) => Read::Bearer(token.to_vec()),
            Credentials::Basic { user, password } => Read::Basic(user.to_vec(), password.to_vec()),
        }
    }

    fn read(value: impl AsRef<[u8]>) -> Result<Read, Malformed> {
        Credentials::read(value.as_ref(), &mut Buffer::new()).map(owned)
    }

    fn authority(value: &str) -> Result<Option<Read>, Malformed> {
        let mut buffer = Buffer::new();
        let read = Credentials::read_authority(value.as_bytes(), &mut buffer)?;
        Ok(read.map(owned))
    }

    fn basic_of(user: &str, password: &str) -> Read {
        Read::Basic(user.into(), password.into())
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_with_any_blanks() {
        for value in ["Bearer abc", "bearer abc", "BEARER\tabc", "  Bearer   abc "] {
            assert_eq!(read(value), Ok(Read::Bearer(b"abc".to_vec())), "{value:?}");
        }
        for value in ["Basic dTpw", "basic  dTpw"] {
            assert_eq!(read(value), Ok(basic_of("u", "p")), "{value:?}");
        }
    }

    #[test]
    fn clients_without_a_token_show_nothing() {
        for value in ["Bearer ", "Bearer", "Basic Og==", "Basic Og"] {
            assert_eq!(read(value), Ok(Read::Empty), "{value:?}");
        }
        assert_eq!(authority(":@host"), Ok(Some(Read::Empty)));
    }

    #[test]
    fn user_or_password_may_be_empty_and_a_password_may_have_colons() {
        for (user, password) in [("u", ""), ("", "p"), ("u", "a:b:"), ("ü", "pä ss")] {
            let value = format!("Basic {}", PADDED.encode(format!("{user}:{password}")));
            assert_eq!(read(value), Ok(basic_of(user, password)));
        }
    }

    #[test]
    fn every_malformation_has_its_own_name() {
        let control = format!("Basic {}", PADDED.encode("u:a\0b"));
        let no_colon = format!("Basic {}", PADDED.encode("user"));
        for (value, expected) in [
            ("", Malformed::Scheme),
            ("abc", Malformed::Scheme),
            ("Digest abc", Malformed::Scheme),
            ("Bearerabc", Malformed::Scheme),
            ("Bearer a b", Malformed::Character),
            ("Bearer \u{e4}", Malformed::Character),
            ("Basic", Malformed::NoColon),
            ("Basic ?", Malformed::Base64),
            ("Basic dTp", Malformed::Base64),
            ("Basic dTp-dTp/", Malformed::Base64),
            ("Basic dTpw=dTpw", Malformed::Base64),
            (&no_colon, Malformed::NoColon),
            (&control, Malformed::Character),
        ] {
            assert_eq!(read(value), Err(expected), "{value:?}");
        }
    }

    #[test]
    fn the_longest_value_is_read_and_one_byte_more_is_refused() {
        // 3067 bytes are 4090 digits of base64.
        let pair = STANDARD_NO_PAD.encode(format!(":{}", "p".repeat(3066)));
        let token = "x".repeat(LIMIT_BYTES - "Bearer ".len());
        for longest in [format!("Basic {pair}"), format!("Bearer {token}")] {
            assert_eq!(longest.len(), LIMIT_BYTES);
            assert!(read(&longest).is_ok(), "{longest}");
            assert_eq!(read(longest + "x"), Err(Malformed::TooLong));
        }
        let longest = format!("{}@host", "x".repeat(LIMIT_BYTES));
        assert!(matches!(authority(&longest), Ok(Some(_))));
        let longer = format!("x{longest}");
        assert_eq!(authority(&longer), Err(Malformed::TooLong));
    }

    #[test]
    fn an_authority_may_name_a_user() {
        assert_eq!(authority("cache:8080"), Ok(None));
        assert_eq!(authority("u:p@cache:8080"), Ok(Some(basic_of("u", "p"))));
        assert_eq!(authority("token@cache"), Ok(Some(basic_of("token", ""))));
        let escaped = "a%3Ab%40c:p%25%7e@cache";
        assert_eq!(authority(escaped), Ok(Some(basic_of("a:b@c", "p%~"))));
        // The last @ ends the user part.
        assert_eq!(authority("u:p@q@host"), Ok(Some(basic_of("u", "p@q"))));
        for bad in ["%@h", "%4@h", "%zz:p@h", "u:%+1@h"] {
            assert_eq!(authority(bad), Err(Malformed::Percent), "{bad}");
        }
        assert_eq!(authority("u:%00@h"), Err(Malformed::Character));
    }

    #[test]
    fn credentials_do_not_show_themselves() {
        let mut buffer = Buffer::new();
        let basic = Credentials::read(b"Basic dTpw", &mut buffer).unwrap();
        assert_eq!(format!("{basic:?}"), "Basic(…)");
        let bearer = Credentials::Bearer(b"secret");
        assert_eq!(format!("{bearer:?}"), "Bearer(…)");
    }

    /// Every byte percent-encoded.
    fn escape(text: &str) -> String {
        text.bytes().fold(String::new(), |escaped, byte| {
            escaped + &format!("%{byte:02X}")
        })
    }

    proptest! {
        #[test]
        fn both_alphabets_with_and_without_padding_are_read(
            user in "[^:\\p{Cc}]{0,40}", password in "\\P{Cc}{1,80}"
        ) {
            let text = format!("{user}:{password}");
            let expected = basic_of(&user, &password);
            for engine in [PADDED, STANDARD_NO_PAD, URL_PADDED, URL_SAFE_NO_PAD] {
                let value = format!("Basic {}", engine.encode(&text));
                prop_assert_eq!(read(value), Ok(Read::Basic(user.clone().into(), password.clone().into())));
            }
            let value = format!("{}:{}@host:1", escape(&user), escape(&password));
            prop_assert_eq!(authority(&value), Ok(Some(expected)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes).ok();
            read([b"Basic ", &bytes[..]].concat()).ok();
            Credentials::read_authority(&bytes, &mut Buffer::new()).ok();
        }
    }
}
