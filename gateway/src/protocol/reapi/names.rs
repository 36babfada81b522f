//! Resource names of the byte stream: which blob of which instance is read or written, and in which form.
//!
//! ```text
//! write  [{instance}/]uploads/{uuid}/blobs/[{function}/]{hash}/{size}[/{anything}]
//! write  [{instance}/]uploads/{uuid}/compressed-blobs/zstd/[{function}/]{hash}/{size}[/{anything}]
//! read   [{instance}/]blobs/[{function}/]{hash}/{size}
//! read   [{instance}/]compressed-blobs/zstd/[{function}/]{hash}/{size}
//! ```
//!
//! The instance is everything in front of the first keyword, so it may have any number of segments. The function may be
//! named where the specification leaves it out, the `uuid` is any text, and what follows the size of a write has no
//! meaning here. Not here: whether hash and size are sound (`digests`). Source: "Write method" and "Read method" in the
//! specification's `ContentAddressableStorage`.

use http::HeaderMap;
use zimcache_config::GatewayConfig;
use zimcache_types::Function;

use super::digests;
use crate::{
    cache::Named,
    grpc::{Outcome, Status},
};

/// Longest name accepted.
const MOST_BYTES: usize = 4 << 10;
/// A header that may repeat the name, for proxies; then it has to be the same.
const HEADER: &str = "build.bazel.remote.execution.v2.resource-name";
const UPLOADS: &str = "uploads";
const BLOBS: &str = "blobs";
const COMPRESSED: &str = "compressed-blobs";
/// Compressors of the specification that this server does not have.
const OTHER_COMPRESSORS: [&str; 2] = ["deflate", "brotli"];

/// A name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    /// Of any number of segments; often empty.
    pub(crate) instance: &'a str,
    /// Which upload it is; `None` in the name of a read.
    pub(crate) uuid: Option<&'a str>,
    /// Whether the data travels as zstd.
    pub(crate) is_zstd: bool,
    /// Where the name says it.
    pub(crate) function: Option<Function>,
    /// As it stands there.
    pub(crate) hash: &'a str,
    /// Of the blob, in bytes.
    pub(crate) size_bytes: i64,
}

impl<'a> Name<'a> {
    /// Reads the name of a read.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn of_read(text: &'a str) -> Result<Name<'a>, &'static str> {
        let (name, behind) = parse(text)?;
        match name.uuid {
            Some(_) => Err("what is read has no `uploads` in its name"),
            None if behind.is_some() => Err("nothing may follow the size in the name of a read"),
            None => Ok(name),
        }
    }

    /// Reads the name of a write.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn of_write(text: &'a str) -> Result<Name<'a>, &'static str> {
        let (name, _) = parse(text)?;
        match name.uuid {
            Some(_) => Ok(name),
            None => Err("what is written is named `uploads/{uuid}/…`"),
        }
    }

    /// The blob that it names.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when hash or size are malformed, or this server does not verify the function.
    pub(super) fn blob(&self, config: &GatewayConfig) -> Outcome<Named> {
        let number = self.function.map_or(0, |function| function.number().into());
        let reader = digests::Reader::new(config, number)?;
        reader
            .parts(self.hash.as_bytes(), self.size_bytes)
            .map_err(Status::invalid)
    }
}

/// Refuses a call whose header names something else.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn check_header(headers: &HeaderMap, name: &str) -> Outcome<()> {
    match headers.get(HEADER) {
        Some(value) if value.as_bytes() != name.as_bytes() => {
            Err(Status::invalid("header and message name different blobs"))
        }
        _ => Ok(()),
    }
}

/// Takes a name apart; gives what follows the size, too.
fn parse(text: &str) -> Result<(Name<'_>, Option<&str>), &'static str> {
    if text.len() > MOST_BYTES {
        return Err("the resource name is too long");
    }
    let (instance, keyword, mut rest) = split_at_keyword(text)?;
    let (mut uuid, mut kind) = (None, keyword);
    if keyword == UPLOADS {
        uuid = Some(next(&mut rest).ok_or("the resource name has no uuid")?);
        kind = next(&mut rest).unwrap_or_default();
    }
    let is_zstd = match kind {
        BLOBS => false,
        COMPRESSED => {
            check_compressor(next(&mut rest).unwrap_or_default())?;
            true
        }
        _ => return Err("the resource name has no `blobs` where it belongs"),
    };
    let mut hash = next(&mut rest).unwrap_or_default();
    let function = Function::from_name(hash);
    if function.is_some() {
        hash = next(&mut rest).unwrap_or_default();
    }
    let size_bytes = size(next(&mut rest).unwrap_or_default())?;
    let name = Name {
        instance,
        uuid,
        is_zstd,
        function,
        hash,
        size_bytes,
    };
    Ok((name, rest))
}

/// What is in front of the first keyword, the keyword, and what follows it. A slash at the start stands for an instance
/// without a name.
fn split_at_keyword(text: &str) -> Result<(&str, &str, Option<&str>), &'static str> {
    let mut start = 0;
    for segment in text.split('/') {
        let end = start + segment.len();
        if matches!(segment, UPLOADS | BLOBS | COMPRESSED) {
            let instance = text[..start].strip_suffix('/').unwrap_or_default();
            return Ok((instance, segment, text.get(end + 1..)));
        }
        start = end + 1;
    }
    Err("the resource name has neither `uploads` nor `blobs`")
}

/// Takes the next segment.
fn next<'a>(rest: &mut Option<&'a str>) -> Option<&'a str> {
    let text = (*rest)?;
    match text.split_once('/') {
        Some((segment, behind)) => {
            *rest = Some(behind);
            Some(segment)
        }
        None => rest.take(),
    }
}

fn check_compressor(name: &str) -> Result<(), &'static str> {
    match name {
        "zstd" => Ok(()),
        other if OTHER_COMPRESSORS.contains(&other) => {
            Err("only zstd is a compressor of this server")
        }
        _ => Err("the resource name has no compressor where it belongs"),
    }
}

fn size(text: &str) -> Result<i64, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or("the resource name has no size where it belongs")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_of_reads_say_where_and_what() {
        let name = Name::of_read("blobs/abc/7").unwrap();
        let expected = Name {
            instance: "",
            uuid: None,
            is_zstd: false,
            function: None,
            hash: "abc",
            size_bytes: 7,
        };
        assert_eq!(name, expected);
        assert_eq!(Name::of_read("/blobs/abc/7").unwrap(), expected);
        let name = Name::of_read("a/b/c/compressed-blobs/zstd/blake3/abc/0").unwrap();
        assert_eq!((name.instance, name.is_zstd), ("a/b/c", true));
        assert_eq!(
            (name.function, name.size_bytes),
            (Some(Function::Blake3), 0)
        );
    }

    #[test]
    fn names_of_writes_carry_a_uuid_and_perhaps_more() {
        let text = format!("x/uploads/blobs/blobs/sha256/{HASH}/12/path/to/blobs/1");
        let name = Name::of_write(&text).unwrap();
        assert_eq!((name.instance, name.uuid), ("x", Some("blobs")));
        assert_eq!((name.function, name.hash), (Some(Function::Sha256), HASH));
        assert_eq!(name.size_bytes, 12);
        let name = Name::of_write("uploads/u/compressed-blobs/zstd/abc/5/").unwrap();
        assert_eq!((name.uuid, name.is_zstd), (Some("u"), true));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for bad in [
            "",
            "/",
            "abc/7",
            "blobs",
            "blobs/",
            "blobs/abc",
            "blobs/abc/",
            "blobs/abc/x",
            "blobs/abc/-1",
            "blobs/abc/+1",
            "blobs/abc/9223372036854775808",
            "blobs/abc/7/more",
            "blobs/blake3/7",
            "compressed-blobs/abc/7",
            "compressed-blobs/identity/abc/7",
            "compressed-blobs/deflate/abc/7",
            "compressed-blobs/brotli/abc/7",
            "uploads/u/blobs/abc/7",
        ] {
            assert!(Name::of_read(bad).is_err(), "{bad}");
        }
        for bad in [
            "blobs/abc/7",
            "uploads",
            "uploads/u",
            "uploads/u/abc/7",
            "uploads/blobs/abc/7",
            "uploads/u/blobs/abc",
            "uploads/u/compressed-blobs/abc/7",
        ] {
            assert!(Name::of_write(bad).is_err(), "{bad}");
        }
        let long = format!("{}/blobs/abc/7", "x".repeat(MOST_BYTES));
        assert!(Name::of_read(&long).is_err());
    }

    #[test]
    fn a_header_has_to_say_the_same() {
        let mut headers = HeaderMap::new();
        assert!(check_header(&headers, "blobs/abc/7").is_ok());
        headers.insert(HEADER, "blobs/abc/7".parse().unwrap());
        assert!(check_header(&headers, "blobs/abc/7").is_ok());
        assert!(check_header(&headers, "blobs/abc/8").is_err());
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written(
            instance in "([a-z]{1,5}(/[a-z]{1,5}){0,3})?",
            uuid in proptest::option::of("[^/]{0,40}"),
            is_zstd: bool,
            function in proptest::option::of(proptest::sample::select(&Function::ALL[..])),
            hash in "[0-9a-f]{1,128}",
            size_bytes in 0..i64::MAX,
            behind in proptest::option::of("[a-z/]{0,20}"),
        ) {
            prop_assume!(!instance.split('/').any(|part| [UPLOADS, BLOBS].contains(&part)));
            let mut segments = Vec::new();
            segments.extend((!instance.is_empty()).then_some(instance.as_str()));
            if let Some(uuid) = &uuid {
                segments.extend([UPLOADS, uuid]);
            }
            segments.extend(if is_zstd { &[COMPRESSED, "zstd"][..] } else { &[BLOBS][..] });
            segments.extend(function.map(Function::name));
            let size = size_bytes.to_string();
            segments.extend([hash.as_str(), &size]);
            segments.extend(behind.as_deref().filter(|_| uuid.is_some()));
            let text = segments.join("/");
            let name = Name {
                instance: &instance,
                uuid: uuid.as_deref(),
                is_zstd,
                function,
                hash: &hash,
                size_bytes,
            };
            let (own, other) = (Name::of_write(&text), Name::of_read(&text));
            let (own, other) = if uuid.is_some() { (own, other) } else { (other, own) };
            prop_assert_eq!(own, Ok(name));
            prop_assert!(other.is_err());
        }

        #[test]
        fn no_text_breaks_the_reading(text in ".{0,200}") {
            for name in [Name::of_read(&text), Name::of_write(&text)].into_iter().flatten() {
                prop_assert!(text.contains(name.hash) && text.starts_with(name.instance.trim_matches('/')));
            }
        }
    }
}
