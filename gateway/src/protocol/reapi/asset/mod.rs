//! The Remote Asset API: what a URI means (<https://github.com/bazelbuild/remote-apis>, `asset/v1`). Spoken by BuildStream,
//! for artifacts and sources, and by Bazel's remote downloader.
//!
//! | call | file |
//! | --- | --- |
//! | `Push.PushBlob`, `Push.PushDirectory` | `push` |
//! | `Fetch.FetchBlob`, `Fetch.FetchDirectory` | `fetch` |
//!
//! A request without a URI is `INVALID_ARGUMENT`, before anything else is looked at: BuildStream asks so at its start, and
//! does without a server that says anything else. What is wrong with an asset is told in the answer, not as the status of
//! the call. Directories differ from blobs in nothing that is encoded, so both are read and written as blobs. Quirks and
//! settings: `docs/protocols/remote-asset.md`. Not here: what is known of a URI (`assets`), fetching from elsewhere
//! (`fetching`).

pub(super) mod fetch;
pub(super) mod push;
mod qualifiers;

use zimcache_types::Timestamp;

use crate::grpc::{Outcome, Status};

/// Most URIs in a request.
const MOST_URIS: usize = 100;
/// Longest URI.
const MOST_URI_BYTES: usize = 8 << 10;

/// Refuses a request whose URIs cannot be looked for.
fn check_uris(uris: &[String]) -> Outcome<()> {
    if uris.is_empty() {
        return Err(Status::invalid("the request has no URI"));
    }
    if uris.len() > MOST_URIS || uris.iter().any(|uri| uri.len() > MOST_URI_BYTES) {
        return Err(Status::invalid(format!(
            "a request may have {MOST_URIS} URIs of {MOST_URI_BYTES} bytes each"
        )));
    }
    Ok(())
}

/// A point in time, as messages have it; before 1970 is 1970.
fn read_time(time: &prost_types::Timestamp) -> Timestamp {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let millis = u64::try_from(time.nanos / 1_000_000).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1000).saturating_add(millis))
}

fn write_time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: (time.0 % 1000) as i32 * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use zimcache_proto::{
        Message as _,
        asset::{
            FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse,
            PushBlobRequest, PushDirectoryRequest, Qualifier,
        },
        reapi::Digest,
    };

    use super::*;

    fn digest(name: &str) -> Digest {
        Digest {
            hash: name.to_owned(),
            size_bytes: 7,
        }
    }

    #[test]
    fn a_directory_is_pushed_as_a_blob_is() {
        let (uris, qualifiers) = (vec!["u".to_owned()], vec![Qualifier::default()]);
        let expire_at = Some(write_time(Timestamp(1)));
        let directory = PushDirectoryRequest {
            instance_name: "i".to_owned(),
            uris: uris.clone(),
            qualifiers: qualifiers.clone(),
            expire_at,
            root_directory_digest: Some(digest("d")),
            references_blobs: vec![digest("b")],
            references_directories: vec![digest("r")],
            digest_function: 9,
        };
        let blob = PushBlobRequest {
            instance_name: "i".to_owned(),
            uris,
            qualifiers,
            expire_at,
            blob_digest: Some(digest("d")),
            references_blobs: vec![digest("b")],
            references_directories: vec![digest("r")],
            digest_function: 9,
        };
        assert_eq!(directory.encode_to_vec(), blob.encode_to_vec());
    }

    #[test]
    fn a_directory_is_fetched_as_a_blob_is() {
        let time = Some(write_time(Timestamp(1)));
        let timeout = Some(prost_types::Duration::default());
        let (uris, qualifiers) = (vec!["u".to_owned()], vec![Qualifier::default()]);
        let directory = FetchDirectoryRequest {
            instance_name: "i".to_owned(),
            timeout,
            oldest_content_accepted: time,
            uris: uris.clone(),
            qualifiers: qualifiers.clone(),
            digest_function: 9,
        };
        let blob = FetchBlobRequest {
            instance_name: "i".to_owned(),
            timeout,
            oldest_content_accepted: time,
            uris,
            qualifiers: qualifiers.clone(),
            digest_function: 9,
        };
        assert_eq!(directory.encode_to_vec(), blob.encode_to_vec());
        let directory = FetchDirectoryResponse {
            status: Some(Status::ok().to_message()),
            uri: "u".to_owned(),
            qualifiers: qualifiers.clone(),
            expires_at: time,
            root_directory_digest: Some(digest("d")),
            digest_function: 9,
        };
        let blob = FetchBlobResponse {
            status: Some(Status::ok().to_message()),
            uri: "u".to_owned(),
            qualifiers,
            expires_at: time,
            blob_digest: Some(digest("d")),
            digest_function: 9,
        };
        assert_eq!(directory.encode_to_vec(), blob.encode_to_vec());
    }

    #[test]
    fn times_are_read_as_they_were_written() {
        for time in [Timestamp(0), Timestamp(1_700_000_000_123)] {
            assert_eq!(read_time(&write_time(time)), time);
        }
        let early = prost_types::Timestamp {
            seconds: -1,
            nanos: -5,
        };
        assert_eq!(read_time(&early), Timestamp(0));
    }
}
