//! Parsers of what all HTTP dialects share: paths, `Range`, `If-None-Match`.
//!
//! Pure functions over text that anybody may have sent. Not here: what a path means (`protocol`). Invariant: none of
//! them fails: what does not parse is treated as absent, which HTTP allows for each of these headers.

use std::borrow::Cow;

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use zimcache_store::ByteRange;
use zimcache_types::{Namespace, namespace::NamespaceError};

/// The path with repeated slashes made one: some clients join a base URL that ends in a slash with a path that starts
/// with one.
pub(crate) fn collapse_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut collapsed = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !collapsed.ends_with('/') {
            collapsed.push(character);
        }
    }
    Cow::Owned(collapsed)
}

/// Takes the namespace off a path that starts with `/ns/{namespace}/`. A slash inside the name is written `%2F`.
///
/// # Errors
/// When that segment is no namespace.
pub(crate) fn split_namespace(path: &str) -> Result<(Option<Namespace>, &str), NamespaceError> {
    let Some(below) = path.strip_prefix("/ns/") else {
        return Ok((None, path));
    };
    let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
    let name = percent_decode_str(name)
        .decode_utf8()
        .map_err(|_| NamespaceError)?;
    let rest = if rest.is_empty() { "/" } else { rest };
    Ok((Some(Namespace::new(&name)?), rest))
}

/// Which bytes a GET wants. A header that names several ranges, another unit or nonsense asks for everything, and so
/// does one that is tied to a version (`If-Range`) or comes with `If-None-Match`.
pub(crate) fn range_of(headers: &HeaderMap) -> ByteRange {
    let Some(range) = headers.get(header::RANGE) else {
        return ByteRange::Full;
    };
    if headers.contains_key(header::IF_RANGE) || headers.contains_key(header::IF_NONE_MATCH) {
        return ByteRange::Full;
    }
    range.to_str().map_or(ByteRange::Full, parse_range)
}

/// Reads a `Range` value.
pub(crate) fn parse_range(text: &str) -> ByteRange {
    single_range(text).unwrap_or(ByteRange::Full)
}

fn single_range(text: &str) -> Option<ByteRange> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first, last) {
        ("", length) => number(length).map(ByteRange::Suffix),
        (first, "") => Some(ByteRange::From {
            first: number(first)?,
            last: None,
        }),
        (first, last) => Some(ByteRange::From {
            first: number(first)?,
            last: Some(number(last)?),
        }),
    }
}

/// Digits only; a number too large to hold is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Whether the client takes zstd.
pub(crate) fn takes_zstd(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(names_zstd)
}

/// Whether one item of `Accept-Encoding` is zstd, and not refused by a weight of zero.
fn names_zstd(item: &str) -> bool {
    let (name, weight) = item.split_once(';').unwrap_or((item, ""));
    let refused = weight
        .trim()
        .strip_prefix("q=")
        .is_some_and(|weight| weight.trim_matches(['0', '.']).is_empty());
    name.trim().eq_ignore_ascii_case("zstd") && !refused
}

/// Whether `If-None-Match` names this entity tag (quotes included), so that the client has the value already.
pub(crate) fn client_has(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .any(|value| names_etag(value, etag))
}

/// Whether an `If-None-Match` value names this entity tag (quotes included); the comparison is weak.
pub(crate) fn names_etag(value: &str, etag: &str) -> bool {
    const BETWEEN: [char; 3] = [' ', '\t', ','];
    if value.trim_matches(BETWEEN) == "*" {
        return true;
    }
    let mut rest = value.trim_start_matches(BETWEEN);
    while !rest.is_empty() {
        let Some((tag, behind)) = next_etag(rest) else {
            return false;
        };
        if tag == etag {
            return true;
        }
        rest = behind.trim_start_matches(BETWEEN);
    }
    false
}

/// The first entity tag, quotes included and weakness forgotten, and the text behind it.
fn next_etag(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("W/").unwrap_or(text);
    let inner = text.strip_prefix('"')?;
    let end = inner.find('"')? + 2;
    Some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repeated_slashes_become_one() {
        for (path, expected) in [
            ("/ac/x", "/ac/x"),
            ("//ac///x", "/ac/x"),
            ("/a//b/", "/a/b/"),
            ("////", "/"),
        ] {
            assert_eq!(collapse_slashes(path), expected);
        }
    }

    #[test]
    fn the_namespace_in_front_is_taken_off_the_path() {
        for (path, name, rest) in [
            ("/ns/team/cache/x", Some("team"), "/cache/x"),
            ("/ns/team%2Fios/ac/x", Some("team/ios"), "/ac/x"),
            ("/ns/team", Some("team"), "/"),
            ("/ns/team/", Some("team"), "/"),
            ("/cache/ns/x", None, "/cache/ns/x"),
            ("/nsx/y", None, "/nsx/y"),
        ] {
            let (found, below) = split_namespace(path).unwrap();
            assert_eq!(found.as_ref().map(Namespace::as_str), name, "{path}");
            assert_eq!(below, rest, "{path}");
        }
        for bad in [
            "/ns/",
            "/ns/../x",
            "/ns/a%2F../x",
            "/ns/%ff/x",
            "/ns/a%20b/x",
        ] {
            assert!(split_namespace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zstd_is_taken_where_it_is_named_and_not_refused() {
        for (value, expected) in [
            ("zstd", true),
            ("gzip, ZSTD;q=0.5", true),
            ("zstd,gzip", true),
            ("zstd;q=0", false),
            ("zstd;q=0.000", false),
            ("gzip", false),
            ("x-zstd", false),
            ("*", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(takes_zstd(&headers), expected, "{value}");
        }
        assert!(!takes_zstd(&HeaderMap::new()));
    }

    #[test]
    fn one_range_of_bytes_is_understood_and_all_else_means_everything() {
        let from = |first, last| ByteRange::From { first, last };
        for (text, expected) in [
            ("bytes=0-9", from(0, Some(9))),
            ("Bytes = 6-", from(6, None)),
            ("bytes=5-", from(5, None)),
            ("bytes=-3", ByteRange::Suffix(3)),
            ("bytes=-0", ByteRange::Suffix(0)),
            ("bytes=9-5", from(9, Some(5))),
            ("bytes=0-18446744073709551616", from(0, Some(u64::MAX))),
            ("bytes=0-1,3-4", ByteRange::Full),
            ("bytes=", ByteRange::Full),
            ("bytes=-", ByteRange::Full),
            ("bytes=+1-2", ByteRange::Full),
            ("lines=1-2", ByteRange::Full),
            ("", ByteRange::Full),
        ] {
            assert_eq!(parse_range(text), expected, "{text:?}");
        }
    }

    #[test]
    fn entity_tags_are_found_in_lists_and_compared_weakly() {
        for (value, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("*", true),
            ("\"b\", \"a\"", true),
            ("\"b\",W/\"a\" ", true),
            ("\"b\"", false),
            ("a", false),
            ("\"a", false),
            ("\"x,\"a\"", false),
            ("", false),
        ] {
            assert_eq!(names_etag(value, "\"a\""), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_parser(text in "\\PC{0,40}") {
            parse_range(&text);
            names_etag(&text, "\"a\"");
            let collapsed = collapse_slashes(&text).into_owned();
            prop_assert!(!collapsed.contains("//"));
            prop_assert_eq!(collapse_slashes(&collapsed).into_owned(), collapsed.clone());
        }

        #[test]
        fn a_range_that_is_written_is_read_back(first in 0_u64.., length in 0_u64..) {
            let last = first.saturating_add(length);
            prop_assert_eq!(
                parse_range(&format!("bytes={first}-{last}")),
                ByteRange::From { first, last: Some(last) }
            );
            prop_assert_eq!(parse_range(&format!("bytes=-{length}")), ByteRange::Suffix(length));
        }

        #[test]
        fn a_tag_is_found_wherever_it_stands_in_a_list(
            before in proptest::collection::vec("[a-z]{1,5}", 0..4),
            after in proptest::collection::vec("[a-z]{1,5}", 0..4),
        ) {
            let quoted = |tags: &[String]| tags.iter().map(|tag| format!("\"{tag}\"")).collect::<Vec<_>>();
            let list = [quoted(&before), vec!["\"7\"".to_owned()], quoted(&after)].concat().join(", ");
            prop_assert!(names_etag(&list, "\"7\""));
            prop_assert!(!names_etag(&list, "\"8\""));
        }
    }
}
