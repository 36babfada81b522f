//! The Remote Asset API: pushing, and fetching what was pushed, as BuildStream does. Fetching from elsewhere is in
//! `fetching`.

use std::time::Duration;

use bazel_remote_apis::{
    build::bazel::remote::{
        asset::v1::{
            FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse,
            PushBlobRequest, PushDirectoryRequest, Qualifier, fetch_client::FetchClient,
            push_client::PushClient,
        },
        execution::v2::{self as reapi, batch_update_blobs_request, digest_function},
    },
    google::protobuf::Timestamp,
};
use prost::Message as _;
use tonic::{Code, Request, Status};
use zimcache_proto::rpc::{BadRequest, PreconditionFailure, Status as Details};
use zimcache_store::{BlobStore as _, GcOptions, StoreAdmin as _};
use zimcache_types::{Clock as _, Digest, Function, Namespace, SystemClock};

use crate::{
    support::{Outcome, Server, channel, code, digest, within},
    wire::guarded,
};

const HOUR: i64 = 3600;
/// Codes of statuses in answers.
pub(crate) const OK: i32 = 0;
pub(crate) const NOT_FOUND: i32 = 5;

pub(crate) fn qualifier(name: &str, value: &str) -> Qualifier {
    Qualifier {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// A request for one URI.
pub(crate) fn asked(uri: &str) -> FetchBlobRequest {
    FetchBlobRequest {
        uris: vec![uri.to_owned()],
        ..FetchBlobRequest::default()
    }
}

/// The same with qualifiers.
pub(crate) fn asked_with(uri: &str, qualifiers: &[(&str, &str)]) -> FetchBlobRequest {
    let qualifiers = qualifiers
        .iter()
        .map(|(name, value)| qualifier(name, value));
    FetchBlobRequest {
        qualifiers: qualifiers.collect(),
        ..asked(uri)
    }
}

pub(crate) async fn fetch(
    server: &Server,
    request: FetchBlobRequest,
) -> Outcome<FetchBlobResponse> {
    let mut client = FetchClient::new(channel(server.address));
    Ok(within(client.fetch_blob(request)).await?.into_inner())
}

/// The code in the answer.
pub(crate) async fn status(server: &Server, request: FetchBlobRequest) -> i32 {
    let answer = fetch(server, request).await.unwrap();
    let status = answer.status.unwrap();
    assert_eq!(answer.blob_digest.is_some(), status.code == OK);
    status.code
}

async fn fetch_directory(server: &Server, uri: &str) -> FetchDirectoryResponse {
    let request = FetchDirectoryRequest {
        uris: vec![uri.to_owned()],
        ..FetchDirectoryRequest::default()
    };
    let mut client = FetchClient::new(channel(server.address));
    let answer = within(client.fetch_directory(request)).await.unwrap();
    answer.into_inner()
}

fn pushed(uri: &str, blob: &[u8]) -> PushBlobRequest {
    PushBlobRequest {
        uris: vec![uri.to_owned()],
        blob_digest: Some(digest(blob)),
        ..PushBlobRequest::default()
    }
}

async fn push(server: &Server, request: PushBlobRequest) -> Outcome<()> {
    let mut client = PushClient::new(channel(server.address));
    within(client.push_blob(request)).await.map(drop)
}

async fn push_directory(server: &Server, request: PushDirectoryRequest) -> Outcome<()> {
    let mut client = PushClient::new(channel(server.address));
    within(client.push_directory(request)).await.map(drop)
}

/// Stores a blob and says what its URI means.
async fn stocked(server: &Server, uri: &str, blob: &[u8]) {
    server.stock(blob).await;
    push(server, pushed(uri, blob)).await.unwrap();
}

fn seconds_from_now(seconds: i64) -> Timestamp {
    let now = i64::try_from(SystemClock.now().0 / 1000).unwrap();
    Timestamp {
        seconds: now + seconds,
        nanos: 0,
    }
}

/// A directory with one file, stored with it; gives the digests of both.
async fn directory(server: &Server, content: &[u8]) -> (reapi::Digest, reapi::Digest) {
    let file = digest(content);
    let encoded = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "file".to_owned(),
            digest: Some(file.clone()),
            ..reapi::FileNode::default()
        }],
        ..reapi::Directory::default()
    }
    .encode_to_vec();
    server.stock(content).await;
    server.stock(&encoded).await;
    (digest(&encoded), file)
}

async fn forget(server: &Server, digest: &reapi::Digest) {
    let hash = zimcache_types::Hash::parse(Function::Sha256, &digest.hash).unwrap();
    let digest = Digest::unsized_(hash);
    let gone = server.store.delete(&Namespace::default(), &digest).await;
    assert!(gone.unwrap());
}

fn authorized<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn details(status: &Status) -> Details {
    Details::decode(status.details()).unwrap()
}

#[tokio::test]
async fn a_request_without_uris_is_invalid() {
    let server = Server::start().await;
    let mut fetching = FetchClient::new(channel(server.address));
    let mut pushing = PushClient::new(channel(server.address));
    let refused = [
        code(fetching.fetch_blob(FetchBlobRequest::default()).await),
        code(
            fetching
                .fetch_directory(FetchDirectoryRequest::default())
                .await,
        ),
        code(pushing.push_blob(PushBlobRequest::default()).await),
        code(
            pushing
                .push_directory(PushDirectoryRequest::default())
                .await,
        ),
    ];
    assert_eq!(refused, [Code::InvalidArgument; 4]);
    server.finish().await;
}

#[tokio::test]
async fn what_was_pushed_is_found_under_each_of_its_uris() {
    let server = Server::start().await;
    server.stock(b"artifact").await;
    let request = PushBlobRequest {
        uris: vec!["urn:one".to_owned(), "urn:two".to_owned()],
        ..pushed("", b"artifact")
    };
    push(&server, request).await.unwrap();
    for uris in [["urn:one", "urn:none"], ["urn:none", "urn:two"]] {
        let request = FetchBlobRequest {
            uris: uris.map(ToOwned::to_owned).to_vec(),
            ..FetchBlobRequest::default()
        };
        let answer = fetch(&server, request).await.unwrap();
        assert_eq!(answer.status.unwrap().code, OK);
        assert_ne!(answer.uri, "urn:none");
        assert_eq!(answer.blob_digest, Some(digest(b"artifact")));
        assert_eq!(
            answer.digest_function,
            i32::from(digest_function::Value::Sha256)
        );
        let expires = answer.expires_at.unwrap().seconds;
        assert!(expires > seconds_from_now(4 * HOUR - 60).seconds);
        assert!(expires <= seconds_from_now(4 * HOUR).seconds);
    }
    server.finish().await;
}

#[tokio::test]
async fn what_is_not_known_is_told_in_the_answer() {
    let server = Server::start().await;
    let answer = fetch(&server, asked("urn:none")).await.unwrap();
    assert_eq!(answer.status.unwrap().code, NOT_FOUND);
    assert_eq!(answer.uri, "urn:none");
    let answer = fetch_directory(&server, "urn:none").await;
    assert_eq!(answer.status.unwrap().code, NOT_FOUND);
    server.finish().await;
}

#[tokio::test]
async fn what_is_not_known_counts_as_a_miss_although_the_call_succeeds() {
    let server = Server::start().await;
    stocked(&server, "urn:a", b"a").await;
    for (uri, counted) in [("urn:none", (0, 1)), ("urn:a", (1, 1))] {
        fetch(&server, asked(uri)).await.unwrap();
        let told = server.get("/api/v1/stats").await.text();
        let (hits, misses) = counted;
        let expected = format!("\"hits\":{hits},\"misses\":{misses},");
        assert!(told.contains(&expected), "{told}");
    }
    server.finish().await;
}

#[tokio::test]
async fn qualifiers_tell_contents_of_a_uri_apart() {
    let server = Server::start().await;
    for (blob, commit) in [(b"old", "1"), (b"new", "2")] {
        server.stock(blob).await;
        let request = PushBlobRequest {
            qualifiers: vec![
                qualifier("vcs.commit", commit),
                qualifier("directory", "src"),
            ],
            ..pushed("https://git.example/r.git", blob)
        };
        push(&server, request).await.unwrap();
    }
    let uri = "https://git.example/r.git";
    let request = asked_with(uri, &[("directory", "src"), ("vcs.commit", "1")]);
    let answer = fetch(&server, request).await.unwrap();
    assert_eq!(answer.blob_digest, Some(digest(b"old")));
    assert_eq!(answer.qualifiers.len(), 2);
    let fewer = asked_with(uri, &[("vcs.commit", "1")]);
    assert_eq!(status(&server, fewer).await, NOT_FOUND);
    assert_eq!(status(&server, asked(uri)).await, NOT_FOUND);
    server.finish().await;
}

#[tokio::test]
async fn the_newest_push_wins() {
    let server = Server::start().await;
    stocked(&server, "urn:a", b"first").await;
    stocked(&server, "urn:a", b"second").await;
    let answer = fetch(&server, asked("urn:a")).await.unwrap();
    assert_eq!(answer.blob_digest, Some(digest(b"second")));
    server.finish().await;
}

#[tokio::test]
async fn an_asset_ends_to_be_an_answer_when_it_expires() {
    let server = Server::start().await;
    server.stock(b"a").await;
    for (from_now, expected) in [(HOUR, OK), (-1, NOT_FOUND), (9 * HOUR, OK)] {
        let expire_at = Some(seconds_from_now(from_now));
        let request = PushBlobRequest {
            expire_at,
            ..pushed("urn:a", b"a")
        };
        push(&server, request).await.unwrap();
        let answer = fetch(&server, asked("urn:a")).await.unwrap();
        assert_eq!(answer.status.unwrap().code, expected);
        if from_now == HOUR {
            assert_eq!(answer.expires_at, expire_at);
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn content_older_than_accepted_is_no_answer() {
    let server = Server::start().await;
    stocked(&server, "urn:a", b"a").await;
    for (from_now, expected) in [(-HOUR, OK), (HOUR, NOT_FOUND)] {
        let request = FetchBlobRequest {
            oldest_content_accepted: Some(seconds_from_now(from_now)),
            ..asked("urn:a")
        };
        assert_eq!(status(&server, request).await, expected);
    }
    server.finish().await;
}

#[tokio::test]
async fn content_has_to_be_uploaded_before_it_is_pushed() {
    let server = Server::start().await;
    let refused = push(&server, pushed("urn:a", b"absent")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let detail = &details(&refused).details[0];
    let failure = PreconditionFailure::decode(detail.value.as_slice()).unwrap();
    let absent = digest(b"absent");
    assert_eq!(failure.violations[0].r#type, "MISSING");
    let subject = format!("blobs/{}/{}", absent.hash, absent.size_bytes);
    assert_eq!(failure.violations[0].subject, subject);
    assert_eq!(status(&server, asked("urn:a")).await, NOT_FOUND);
    let request = PushBlobRequest {
        blob_digest: None,
        ..pushed("urn:a", b"")
    };
    assert_eq!(code(push(&server, request).await), Code::InvalidArgument);
    server.finish().await;
}

#[tokio::test]
async fn the_empty_blob_can_be_pushed_without_an_upload() {
    let server = Server::start().await;
    push(&server, pushed("urn:a", b"")).await.unwrap();
    assert_eq!(status(&server, asked("urn:a")).await, OK);
    server.finish().await;
}

#[tokio::test]
async fn an_asset_is_a_miss_once_anything_of_it_is_gone() {
    let server = Server::start().await;
    let (tree, file) = directory(&server, b"in a directory").await;
    for (at, lost) in [digest(b"log"), digest(b"artifact"), file, tree.clone()]
        .into_iter()
        .enumerate()
    {
        directory(&server, b"in a directory").await;
        server.stock(b"log").await;
        let request = PushBlobRequest {
            references_blobs: vec![digest(b"log")],
            references_directories: vec![tree.clone()],
            ..pushed("urn:a", b"artifact")
        };
        server.stock(b"artifact").await;
        push(&server, request).await.unwrap();
        assert_eq!(status(&server, asked("urn:a")).await, OK, "{at}");
        forget(&server, &lost).await;
        assert_eq!(status(&server, asked("urn:a")).await, NOT_FOUND, "{at}");
    }
    server.finish().await;
}

#[tokio::test]
async fn references_that_are_missing_at_the_push_are_not_missed_later() {
    let server = Server::start().await;
    let (tree, file) = directory(&server, b"build tree").await;
    forget(&server, &file).await;
    server.stock(b"artifact").await;
    let request = PushBlobRequest {
        references_blobs: vec![digest(b"never uploaded")],
        references_directories: vec![tree, digest(b"nor this")],
        ..pushed("urn:a", b"artifact")
    };
    push(&server, request).await.unwrap();
    assert_eq!(status(&server, asked("urn:a")).await, OK);
    server.finish().await;
}

#[tokio::test]
async fn everything_of_an_asset_is_leased_at_the_push_and_at_the_fetch() {
    let everything = GcOptions {
        older_than: Some(Duration::ZERO),
        ..GcOptions::default()
    };
    let server = Server::start().await;
    let (tree, _) = directory(&server, b"file").await;
    for blob in [&b"artifact"[..], b"log", b"loose"] {
        server.stock(blob).await;
    }
    let request = PushBlobRequest {
        references_blobs: vec![digest(b"log")],
        references_directories: vec![tree],
        ..pushed("urn:a", b"artifact")
    };
    push(&server, request).await.unwrap();
    server.store.gc(everything.clone()).await.unwrap();
    assert_eq!(server.store.blob_names().len(), 4);

    let server = Server::start().await;
    stocked(&server, "urn:a", b"artifact").await;
    forget(&server, &digest(b"artifact")).await;
    // Without a lease, as if the first one were over.
    server.stock(b"artifact").await;
    assert_eq!(status(&server, asked("urn:a")).await, OK);
    server.store.gc(everything).await.unwrap();
    assert_eq!(server.store.blob_names().len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_directory_is_pushed_and_fetched_whole() {
    let server = Server::start().await;
    let (root, file) = directory(&server, b"source").await;
    let request = PushDirectoryRequest {
        uris: vec!["urn:src".to_owned()],
        root_directory_digest: Some(root.clone()),
        ..PushDirectoryRequest::default()
    };
    push_directory(&server, request.clone()).await.unwrap();
    let answer = fetch_directory(&server, "urn:src").await;
    assert_eq!(answer.status.unwrap().code, OK);
    assert_eq!(answer.root_directory_digest, Some(root));
    assert_eq!(answer.uri, "urn:src");
    assert_eq!(status(&server, asked("urn:src")).await, NOT_FOUND);
    forget(&server, &file).await;
    let answer = fetch_directory(&server, "urn:src").await;
    assert_eq!(answer.status.unwrap().code, NOT_FOUND);
    let refused = push_directory(&server, request).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_directory_cannot_be_pushed_as_one() {
    let server = Server::start().await;
    server.stock(b"\xff\xff\xff\xff").await;
    let request = PushDirectoryRequest {
        uris: vec!["urn:src".to_owned()],
        root_directory_digest: Some(digest(b"\xff\xff\xff\xff")),
        ..PushDirectoryRequest::default()
    };
    let refused = push_directory(&server, request).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    server.finish().await;
}

#[tokio::test]
async fn pushing_takes_the_right_to_write_and_fetching_the_right_to_read() {
    let (policy, tokens) = guarded("default");
    let server = Server::with_policy(policy).await;
    server.stock(b"a").await;
    let mut pushing = PushClient::new(channel(server.address));
    let mut fetching = FetchClient::new(channel(server.address));
    let refused = pushing.push_blob(pushed("urn:a", b"a")).await;
    assert_eq!(code(refused), Code::Unauthenticated);
    let refused = pushing.push_blob(authorized(pushed("urn:a", b"a"), &tokens.read));
    assert_eq!(code(refused.await), Code::PermissionDenied);
    let done = pushing.push_blob(authorized(pushed("urn:a", b"a"), &tokens.write));
    done.await.unwrap();
    let answer = fetching.fetch_blob(authorized(asked("urn:a"), &tokens.read));
    assert_eq!(answer.await.unwrap().into_inner().status.unwrap().code, OK);
    assert_eq!(
        code(fetching.fetch_blob(asked("urn:a")).await),
        Code::Unauthenticated
    );
    let elsewhere = FetchBlobRequest {
        instance_name: "other".to_owned(),
        ..asked("urn:a")
    };
    let refused = fetching.fetch_blob(authorized(elsewhere, &tokens.read));
    assert_eq!(code(refused.await), Code::PermissionDenied);
    server.finish().await;
}

#[tokio::test]
async fn namespaces_know_nothing_of_each_other() {
    let server = Server::start().await;
    stocked(&server, "urn:a", b"a").await;
    let elsewhere = FetchBlobRequest {
        instance_name: "other".to_owned(),
        ..asked("urn:a")
    };
    assert_eq!(status(&server, elsewhere).await, NOT_FOUND);
    server.finish().await;
}

#[tokio::test]
async fn an_answer_is_of_the_digest_function_that_was_asked_for() {
    let server = Server::start().await;
    let blake3 = Digest::of(Function::Blake3, b"a").hash.to_hex();
    let named = reapi::Digest {
        hash: blake3.clone(),
        size_bytes: 1,
    };
    let mut cas = reapi::content_addressable_storage_client::ContentAddressableStorageClient::new(
        channel(server.address),
    );
    let upload = reapi::BatchUpdateBlobsRequest {
        requests: vec![batch_update_blobs_request::Request {
            digest: Some(named.clone()),
            data: b"a".to_vec(),
            compressor: 0,
        }],
        digest_function: digest_function::Value::Blake3.into(),
        ..reapi::BatchUpdateBlobsRequest::default()
    };
    let stored = cas.batch_update_blobs(upload).await.unwrap().into_inner();
    assert_eq!(stored.responses[0].status.as_ref().unwrap().code, OK);
    // Who names no function means the one under which the blob is there.
    for digest_function in [
        digest_function::Value::Blake3,
        digest_function::Value::Unknown,
    ] {
        let request = PushBlobRequest {
            uris: vec![format!("urn:{}", i32::from(digest_function))],
            blob_digest: Some(named.clone()),
            digest_function: digest_function.into(),
            ..PushBlobRequest::default()
        };
        push(&server, request.clone()).await.unwrap();
        for (asked_function, expected) in [
            (digest_function::Value::Unknown, OK),
            (digest_function::Value::Blake3, OK),
            (digest_function::Value::Sha256, NOT_FOUND),
        ] {
            let request = FetchBlobRequest {
                digest_function: asked_function.into(),
                ..asked(&request.uris[0])
            };
            let answer = fetch(&server, request).await.unwrap();
            assert_eq!(answer.status.unwrap().code, expected);
            if expected == OK {
                assert_eq!(answer.blob_digest.unwrap().hash, blake3);
                assert_eq!(
                    answer.digest_function,
                    i32::from(digest_function::Value::Blake3)
                );
            }
        }
    }
    server.finish().await;
}

/// `checksum.sri` of a blob.
pub(crate) fn sri(function: Function, blob: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let hash = Digest::of(function, blob).hash;
    format!("{function}-{}", STANDARD.encode(hash.as_bytes()))
}

#[tokio::test]
async fn a_blob_that_has_the_checksum_is_an_answer_whatever_is_known_of_the_uri() {
    let server = Server::start().await;
    server.stock(b"release").await;
    let other = sri(Function::Sha256, b"other");
    let checksums = format!("{other} {}", sri(Function::Sha256, b"release"));
    let request = asked_with("https://nowhere.example/", &[("checksum.sri", &checksums)]);
    let answer = fetch(&server, request).await.unwrap();
    assert_eq!(answer.blob_digest, Some(digest(b"release")));
    assert_eq!(answer.uri, "https://nowhere.example/");
    let request = asked_with("https://nowhere.example/", &[("checksum.sri", &other)]);
    assert_eq!(status(&server, request).await, NOT_FOUND);
    server.finish().await;
}

#[tokio::test]
async fn what_was_pushed_has_to_match_the_checksum() {
    let server = Server::start().await;
    stocked(&server, "urn:a", b"release").await;
    for (function, blob, expected) in [
        (Function::Sha256, &b"release"[..], OK),
        (Function::Sha384, b"release", OK),
        (Function::Sha512, b"release", OK),
        (Function::Blake3, b"release", OK),
        (Function::Sha256, b"tampered", NOT_FOUND),
        (Function::Sha384, b"tampered", NOT_FOUND),
        (Function::Sha512, b"tampered", NOT_FOUND),
    ] {
        let checksum = sri(function, blob);
        let request = asked_with("urn:a", &[("checksum.sri", &checksum)]);
        assert_eq!(status(&server, request).await, expected, "{function}");
    }
    server.finish().await;
}

#[tokio::test]
async fn an_unsupported_qualifier_is_invalid_and_named() {
    let server = Server::start().await;
    let fetched = fetch(&server, asked_with("urn:a", &[("nobodys", "x")])).await;
    let mut request = pushed("urn:a", b"");
    request.qualifiers = vec![qualifier("nobodys", "x")];
    for refused in [fetched.map(drop), push(&server, request).await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let detail = &details(&refused).details[0];
        assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.BadRequest");
        let request = BadRequest::decode(detail.value.as_slice()).unwrap();
        let violation = &request.field_violations[0];
        assert_eq!(violation.field, "qualifiers.name");
        assert_eq!(violation.description, "\"nobodys\" not supported");
    }
    server.finish().await;
}

#[tokio::test]
async fn buildstream_probes_pulls_and_pushes() {
    let server = Server::start().await;
    let mut pushing = PushClient::new(channel(server.address));
    assert_eq!(
        code(fetch(&server, FetchBlobRequest::default()).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(pushing.push_blob(PushBlobRequest::default()).await),
        Code::InvalidArgument
    );
    let uri = |key: char| {
        let key = String::from(key).repeat(64);
        format!("urn:fdc:buildstream.build:2020:artifact:project/element/{key}")
    };
    assert_eq!(status(&server, asked(&uri('a'))).await, NOT_FOUND);
    let (files, _) = directory(&server, b"output").await;
    server.stock(b"artifact").await;
    server.stock(b"build log").await;
    for key in ['a', 'b'] {
        assert_eq!(status(&server, asked(&uri(key))).await, NOT_FOUND);
    }
    let request = PushBlobRequest {
        uris: vec![uri('a'), uri('b')],
        references_blobs: vec![digest(b"build log")],
        references_directories: vec![files, digest(b"build tree that is not pushed")],
        ..pushed("", b"artifact")
    };
    push(&server, request).await.unwrap();
    for key in ['a', 'b'] {
        let answer = fetch(&server, asked(&uri(key))).await.unwrap();
        assert_eq!(answer.blob_digest, Some(digest(b"artifact")));
    }
    server.finish().await;
}
