//! Names: what clients call their entries, and how entries and the pieces of uploads are called in the store.
//!
//! Parsers of what strangers send and pure formatting. Not here: who may use them. Invariants: two different names
//! never meet in one key of the store, and the pieces of one upload are never those of another.

use zimcache_types::Timestamp;

use crate::{Error, error::Result};

const MAX_KEY: usize = 512;
const MAX_VERSION: usize = 128;
/// Longest identity of a block, in characters of base64: 64 bytes.
const MAX_BLOCK: usize = 88;
const HOUR_MILLIS: u64 = 60 * 60 * 1_000;
/// Random bits of an upload's number, which has to be exact as a floating-point number.
const NUMBER_BITS: u32 = 32;

/// What a client calls an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    /// What the entry is made by and for.
    pub(crate) version: &'a str,
    /// The key, which may have any character but a comma or a control character.
    pub(crate) key: &'a str,
}

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Key`] when the version or the key is none.
    pub(crate) fn new(version: &'a str, key: &'a str) -> Result<Name<'a>> {
        check_version(version)?;
        check_key(key)?;
        Ok(Name { version, key })
    }

    /// The entry's key in the store.
    pub(crate) fn text(self) -> String {
        format!("{}/{}", self.version, self.key)
    }

    /// Reads back what [`Name::text`] wrote.
    pub(crate) fn parse(text: &str) -> Result<Name<'_>> {
        let (version, key) = text
            .split_once('/')
            .ok_or(Error::Key("expected version/key"))?;
        Name::new(version, key)
    }

    /// Where it is kept which upload will become this entry.
    pub(crate) fn reservation(self) -> String {
        format!("{RESERVATIONS}{}", self.text())
    }
}

/// How the keys of reservations begin; those of pieces begin with a digit.
pub(crate) const RESERVATIONS: &str = "key/";

/// Checks what entries are made by and for.
///
/// # Errors
/// [`Error::Key`].
pub(crate) fn check_version(version: &str) -> Result<()> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    if (1..=MAX_VERSION).contains(&version.len()) && version.bytes().all(legal) {
        return Ok(());
    }
    Err(Error::Key(
        "expected a version of up to 128 letters, digits, '.', '_' and '-'",
    ))
}

/// Checks a key, or the beginning of one.
///
/// # Errors
/// [`Error::Key`].
pub(crate) fn check_key(key: &str) -> Result<()> {
    let legal = |c: char| !c.is_control() && c != ',';
    if (1..=MAX_KEY).contains(&key.len()) && key.chars().all(legal) {
        return Ok(());
    }
    Err(Error::Key(
        "expected a key of up to 512 bytes without commas and control characters",
    ))
}

/// An upload under way. Its text begins with the hour it began in, so that old ones come first in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadId(String);

impl UploadId {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Store`] when the system has no randomness.
    pub(crate) fn new(now: Timestamp) -> Result<UploadId> {
        Ok(UploadId(format!(
            "{:06x}-{:032x}",
            hour(now),
            random::<16, _>(u128::from_le_bytes)?
        )))
    }

    /// A new one that a number below 2^53 names, for clients that read numbers as floating-point numbers.
    ///
    /// # Errors
    /// [`Error::Store`] when the system has no randomness.
    pub(crate) fn new_number(now: Timestamp) -> Result<u64> {
        let low = random::<4, _>(u32::from_le_bytes)?;
        Ok(hour(now) << NUMBER_BITS | u64::from(low))
    }

    /// The one that a number names.
    pub(crate) fn of_number(number: u64) -> UploadId {
        UploadId(format!("{:06x}-{number:014x}", number >> NUMBER_BITS))
    }

    /// Reads one from a path.
    ///
    /// # Errors
    /// [`Error::Key`] when it is none.
    pub(crate) fn parse(text: &str) -> Result<UploadId> {
        let hex = |text: &str| text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        match text.split_once('-') {
            Some((hour, rest))
                if hour.len() == 6 && matches!(rest.len(), 14 | 32) && hex(hour) && hex(rest) =>
            {
                Ok(UploadId(text.to_owned()))
            }
            _ => Err(Error::Key("no such upload")),
        }
    }

    /// As in a path.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the whole, when it comes at once.
    pub(crate) fn whole(&self) -> String {
        format!("{}/whole", self.0)
    }

    /// The key of the list of blocks.
    pub(crate) fn list(&self) -> String {
        format!("{}/list", self.0)
    }

    /// The key of the name that the upload will get.
    pub(crate) fn name(&self) -> String {
        format!("{}/name", self.0)
    }

    /// The key of a block.
    pub(crate) fn block(&self, block: &str) -> String {
        format!("{}{block}", self.blocks())
    }

    /// How the keys of blocks begin.
    pub(crate) fn blocks(&self) -> String {
        format!("{}/block/", self.0)
    }
}

/// How the key of anything that belongs to an upload begun after `since` compares: not less than this.
pub(crate) fn oldest(since: Timestamp) -> String {
    format!("{:06x}", hour(since))
}

fn hour(now: Timestamp) -> u64 {
    now.0 / HOUR_MILLIS
}

fn random<const N: usize, T>(read: impl Fn([u8; N]) -> T) -> Result<T> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(read(bytes)),
        Err(error) => Err(zimcache_store::Error::disk("get randomness", error.into()).into()),
    }
}

/// Checks the identity of a block: base64, as the client wrote it.
///
/// # Errors
/// [`Error::Request`] when it is none.
pub(crate) fn check_block(block: &str) -> Result<()> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"+/=-_".contains(&c);
    if (1..=MAX_BLOCK).contains(&block.len()) && block.bytes().all(legal) {
        return Ok(());
    }
    Err(Error::Request(
        "expected a block id of up to 88 characters of base64",
    ))
}

/// Reads a block list: the identities of blocks in order. The subset of XML that clients write; anything else in it
/// is refused rather than guessed at.
///
/// # Errors
/// [`Error::Request`] when it is none, or names more than `most`.
pub(crate) fn parse_block_list(text: &str, most: usize) -> Result<Vec<&str>> {
    const MALFORMED: Error = Error::Request("the block list is malformed");
    let text = text.trim_start_matches('\u{feff}').trim();
    let text = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>").ok_or(MALFORMED)?.1.trim_start(),
        None => text,
    };
    if matches!(text, "<BlockList/>" | "<BlockList />") {
        return Ok(Vec::new());
    }
    let inner = text
        .strip_prefix("<BlockList>")
        .and_then(|text| text.strip_suffix("</BlockList>"));
    let mut rest = inner.ok_or(MALFORMED)?.trim();
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let (tag, behind) = rest
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
            .ok_or(MALFORMED)?;
        if !matches!(tag, "Latest" | "Committed" | "Uncommitted") {
            return Err(MALFORMED);
        }
        let (block, behind) = behind.split_once("</").ok_or(MALFORMED)?;
        let behind = behind
            .strip_prefix(tag)
            .and_then(|rest| rest.strip_prefix('>'))
            .ok_or(MALFORMED)?;
        check_block(block.trim())?;
        if blocks.len() == most {
            return Err(Error::Request("the block list names too many blocks"));
        }
        blocks.push(block.trim());
        rest = behind.trim_start();
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_never_meet() {
        let name = Name::new("v1", "a/b/c d").unwrap();
        assert_eq!(Name::parse(&name.text()).unwrap(), name);
        assert_ne!(name.text(), Name::new("v1.a", "b/c d").unwrap().text());
        let long = "x".repeat(513);
        for (version, key) in [
            ("", "k"),
            ("v/w", "k"),
            ("v", ""),
            ("v", "a,b"),
            ("v", "a\n"),
            ("v", &long),
        ] {
            assert!(Name::new(version, key).is_err(), "{version:?} {key:?}");
        }
        assert!(name.reservation().len() <= zimcache_types::EntryKey::MAX_LEN);
    }

    #[test]
    fn uploads_differ_read_back_and_sort_by_age() {
        let at = |hours: u64| Timestamp(hours * HOUR_MILLIS);
        let [old, new] = [500_000, 500_001].map(|hours| UploadId::new(at(hours)).unwrap());
        assert!(old.as_str() < new.as_str());
        assert!(old.blocks().as_str() < oldest(at(500_001)).as_str());
        assert!(new.blocks().as_str() >= oldest(at(500_001)).as_str());
        assert_ne!(UploadId::new(at(1)).unwrap(), UploadId::new(at(1)).unwrap());
        assert_eq!(UploadId::parse(old.as_str()).unwrap(), old);
        let number = UploadId::new_number(at(500_000)).unwrap();
        assert!(number < 1 << 53);
        let numbered = UploadId::of_number(number);
        assert_eq!(UploadId::parse(numbered.as_str()).unwrap(), numbered);
        assert_eq!(numbered.as_str()[..6], old.as_str()[..6]);
        for bad in [
            "",
            "-",
            "07a120-",
            "07A120-00000000000000",
            "07a120-0000000000000/",
            "../../..",
        ] {
            assert!(UploadId::parse(bad).is_err(), "{bad}");
        }
        assert!(old.as_str() < RESERVATIONS);
    }

    #[test]
    fn block_lists_are_read_in_order_whoever_wrote_them() {
        for text in [
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>",
            "\u{feff}<?xml version='1.0'?>\r\n<BlockList>\n  <Uncommitted>YQ==</Uncommitted>\n  <Committed> Yg== </Committed>\n</BlockList>\n",
        ] {
            assert_eq!(
                parse_block_list(text, 2).unwrap(),
                ["YQ==", "Yg=="],
                "{text}"
            );
            assert!(parse_block_list(text, 1).is_err());
        }
        for text in [
            "<BlockList/>",
            "<BlockList></BlockList>",
            "<BlockList> </BlockList>",
        ] {
            assert!(parse_block_list(text, 1).unwrap().is_empty());
        }
        for text in [
            "",
            "<?xml",
            "<BlockList>",
            "<BlockList><Latest>YQ==</BlockList>",
            "<BlockList><Latest>YQ==</Committed></BlockList>",
            "<BlockList><Latest>&#65;</Latest></BlockList>",
            "<BlockList><Latest></Latest></BlockList>",
            "<BlockList><Other>YQ==</Other></BlockList>",
            "<BlockList>YQ==</BlockList>",
            "<!DOCTYPE x><BlockList/>",
        ] {
            assert!(parse_block_list(text, 9).is_err(), "{text}");
        }
    }
}
