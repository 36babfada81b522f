//! What the dialects that serve files have in common: paths, times of change, and a GET of a file.
//!
//! Not here: what a folder is (`protocol::webdav`), lists of properties (`multistatus`). Invariant: a path has no
//! empty, `.` or `..` segment after it was decoded, and is decoded once.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use zimcache_store::{self as store, ByteRange};
use zimcache_types::{EntryKey, EntryKind, Timestamp};

use crate::{Error, body::Body, call::Call, error::Result, respond, room::Room, status};

/// Reads the path of a file below a dialect's root.
///
/// # Errors
/// [`Error::Key`] when it is no text, too long, or has a segment that could mean another file.
pub(crate) fn parse_path(below: &str) -> Result<Cow<'_, str>> {
    let path = percent_decode_str(below).decode_utf8();
    let path = path.map_err(|_| Error::Key("the path is not UTF-8"))?;
    if path.len() > EntryKey::MAX_LEN {
        return Err(Error::Key("the path has more than 1024 bytes"));
    }
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(Error::Key("the path has an empty segment, or '.' or '..'"));
    }
    if path.contains(char::is_control) {
        return Err(Error::Key("the path has a control character"));
    }
    Ok(path)
}

/// Answers a GET or HEAD of a file: with the time of its last change, and 412 when it changed since the client began
/// to read it.
pub(crate) async fn open(
    call: &Call<'_>,
    room: &Room<'_>,
    kind: EntryKind,
    path: &str,
) -> Result<Response<Body>> {
    let known = unmodified_since(&call.head.headers);
    let mut opened = room.open_entry(kind, path, call.range()).await;
    let behind_the_end = matches!(opened, Err(Error::Store(store::Error::RangeInvalid { .. })));
    if behind_the_end && known.is_some() {
        // It may have changed to something shorter, which matters more.
        let whole = room.open_entry(kind, path, ByteRange::Full).await?;
        if whole.is_none_or(|entry| changed_after(entry.created, known)) {
            opened = Ok(None);
        }
    }
    let Some(entry) = opened? else {
        return Ok(if behind_the_end {
            status::empty(StatusCode::PRECONDITION_FAILED)
        } else {
            respond::miss()
        });
    };
    if changed_after(entry.created, known) {
        return Ok(status::empty(StatusCode::PRECONDITION_FAILED));
    }
    let changed = http_date(entry.created);
    let mut response = respond::entry(call, entry);
    if let Ok(changed) = HeaderValue::try_from(changed) {
        response
            .headers_mut()
            .insert(header::LAST_MODIFIED, changed);
    }
    Ok(response)
}

/// A time as HTTP writes it, to the second.
pub(crate) fn http_date(time: Timestamp) -> String {
    httpdate::fmt_http_date(on_the_second(time))
}

/// Reads `If-Unmodified-Since`; what does not parse is treated as absent.
fn unmodified_since(headers: &HeaderMap) -> Option<SystemTime> {
    let value = headers.get(header::IF_UNMODIFIED_SINCE)?.to_str().ok()?;
    httpdate::parse_http_date(value).ok()
}

fn changed_after(time: Timestamp, known: Option<SystemTime>) -> bool {
    known.is_some_and(|known| on_the_second(time) > known)
}

/// HTTP's dates end with the second; years after 9999 cannot be written.
fn on_the_second(time: Timestamp) -> SystemTime {
    const YEAR_9999: u64 = 253_370_764_800;
    UNIX_EPOCH + Duration::from_secs((time.0 / 1000).min(YEAR_9999))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_stays_below_its_root() {
        for (written, read) in [
            ("a/b/c", "a/b/c"),
            (".sccache_check", ".sccache_check"),
            ("a%2Fb", "a/b"),
            ("%C3%BC%20%25", "ü %"),
            ("a%252e%252e", "a%2e%2e"),
            (
                "v1.1/org.acme/app/0f/app-sources.jar",
                "v1.1/org.acme/app/0f/app-sources.jar",
            ),
        ] {
            assert_eq!(parse_path(written).unwrap(), read);
        }
        for bad in [
            "",
            "..",
            "a/../b",
            "a/%2e%2E/b",
            "%2e",
            "a//b",
            "a%2F%2Fb",
            "/a",
            "a/",
            "a%00",
            "a%0Ab",
            "%ff",
            &"x".repeat(1025),
        ] {
            assert!(parse_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_changed_after_the_second_that_the_client_knows() {
        let known = httpdate::parse_http_date("Sat, 21 Nov 2026 03:00:00 GMT").ok();
        let second = 1_795_230_000_000;
        assert_eq!(
            http_date(Timestamp(second)),
            "Sat, 21 Nov 2026 03:00:00 GMT"
        );
        assert!(!changed_after(Timestamp(second + 999), known));
        assert!(changed_after(Timestamp(second + 1000), known));
        assert!(!changed_after(Timestamp(u64::MAX), None));
        assert!(http_date(Timestamp(u64::MAX)).contains("9999"));
    }

    proptest! {
        #[test]
        fn a_path_that_is_accepted_is_a_key_and_stays_itself(written in "[a-z./%0-9A-F]{0,24}") {
            if let Ok(path) = parse_path(&written) {
                prop_assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")));
                if !path.contains('%') {
                    prop_assert_eq!(parse_path(&path).unwrap(), &*path);
                }
            }
        }
    }
}
