//! The Remote Asset API: fetching from elsewhere, as Bazel's remote downloader asks for it, and everything that must not
//! be reached through it.

use std::sync::Arc;

use bazel_remote_apis::{
    build::bazel::remote::asset::v1::{
        FetchBlobRequest, FetchDirectoryRequest, fetch_client::FetchClient,
    },
    google::protobuf::{Duration, Timestamp},
};
use tokio::sync::Semaphore;
use tonic::Request;
use zimcache_config::AssetsConfig;
use zimcache_gateway::Policy;
use zimcache_types::{ByteSize, EntryKind, Function};

use crate::{
    asset::{NOT_FOUND, OK, asked, asked_with, fetch, sri, status},
    origin::{self, Origin, chunked, ok, redirect},
    support::{Server, channel, digest, pattern, read, read_name, within},
    wire::guarded,
};

const DEADLINE_EXCEEDED: i32 = 4;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const ABORTED: i32 = 10;
const UNAVAILABLE: i32 = 14;
/// More than is hashed in memory.
const LARGE: usize = 3 << 20;

/// Rules that allow these URLs, on this machine too.
fn allowing(prefixes: &[String]) -> AssetsConfig {
    AssetsConfig {
        fetch_from: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
        fetch_private: true,
    }
}

async fn server_with(assets: AssetsConfig) -> Server {
    Server::with_policy(Policy {
        assets,
        ..Policy::default()
    })
    .await
}

/// A server that may fetch everything from an origin.
async fn server(origin: &Origin) -> Server {
    server_with(allowing(&[origin.url("/")])).await
}

fn in_the_future() -> Timestamp {
    Timestamp {
        seconds: 1 << 40,
        nanos: 0,
    }
}

/// What is in the store of a server.
fn kept(server: &Server) -> (usize, Vec<String>) {
    let keys = server.store.entry_keys().into_iter();
    let assets = keys.filter(|key| key.kind == EntryKind::Asset);
    let texts = assets.map(|key| key.text.into()).collect();
    (server.store.blob_names().len(), texts)
}

#[tokio::test]
async fn nothing_is_fetched_unless_the_operator_allows_it() {
    let origin = Origin::start(|_| ok(b"a")).await;
    let server = Server::start().await;
    assert_eq!(status(&server, asked(&origin.url("/a"))).await, NOT_FOUND);
    assert!(origin.heads().await.is_empty());
    server.finish().await;
}

#[tokio::test]
async fn what_was_fetched_is_stored_and_remembered() {
    let origin = Origin::start(|_| ok(b"content")).await;
    let server = server(&origin).await;
    for _ in 0..2 {
        let answer = fetch(&server, asked(&origin.url("/a?b#c"))).await.unwrap();
        assert_eq!(answer.status.unwrap().code, OK);
        assert_eq!(answer.uri, origin.url("/a?b#c"));
        assert_eq!(answer.blob_digest, Some(digest(b"content")));
        assert!(answer.expires_at.is_some());
    }
    let heads = origin.heads().await;
    assert_eq!(heads.len(), 1, "{heads:?}");
    let head = heads[0].to_lowercase();
    assert!(head.starts_with("get /a?b http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: {}\r\n", origin.address)),
        "{head}"
    );
    for ours in ["authorization", "cookie", "forwarded"] {
        assert!(!head.contains(ours), "{head}");
    }
    let mut client = crate::support::bytestream(&server);
    let blob = read(&mut client, &read_name(b"content")).await;
    assert_eq!(blob.unwrap(), b"content");
    server.finish().await;
}

#[tokio::test]
async fn bazels_downloader_names_a_checksum_and_fetches_once() {
    let archive = pattern(1, LARGE);
    let body = archive.clone();
    let origin = Origin::start(move |_| chunked(&body)).await;
    let server = server(&origin).await;
    let checksum = sri(Function::Sha256, &archive);
    let qualifiers = [
        ("checksum.sri", checksum.as_str()),
        ("bazel.canonical_id", "https://x"),
        ("http_header:Accept", "*/*"),
        ("http_header_url:0:Authorization", "Basic c2VjcmV0"),
    ];
    for _ in 0..2 {
        let request = FetchBlobRequest {
            digest_function: 1,
            ..asked_with(&origin.url("/archive.zip"), &qualifiers)
        };
        let answer = fetch(&server, request).await.unwrap();
        assert_eq!(answer.blob_digest, Some(digest(&archive)));
        assert_eq!(answer.digest_function, 1);
    }
    let heads = origin.heads().await;
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(
        heads[0]
            .to_lowercase()
            .contains("authorization: basic c2vjcmv0\r\n")
    );
    // Nothing was spooled: the checksum is the name.
    assert_eq!(kept(&server), (1, Vec::new()));
    let mut client = crate::support::bytestream(&server);
    let blob = read(&mut client, &read_name(&archive)).await;
    assert!(blob.unwrap() == archive);
    server.finish().await;
}

#[tokio::test]
async fn a_large_body_of_unknown_name_is_hashed_on_its_way() {
    let archive = pattern(2, LARGE);
    let body = archive.clone();
    let origin = Origin::start(move |path| {
        if path == "/chunked" {
            chunked(&body)
        } else {
            ok(&body)
        }
    })
    .await;
    let sha512 = sri(Function::Sha512, &archive);
    for (path, checksum) in [
        ("/chunked", None),
        ("/told", None),
        ("/told", Some(&sha512)),
    ] {
        let server = server(&origin).await;
        let mut request = asked(&origin.url(path));
        if let Some(checksum) = checksum {
            request = asked_with(&origin.url(path), &[("checksum.sri", checksum)]);
        }
        let answer = fetch(&server, request).await.unwrap();
        assert_eq!(answer.blob_digest, Some(digest(&archive)), "{path}");
        let (blobs, assets) = kept(&server);
        assert_eq!((blobs, assets.len()), (1, 1), "{assets:?}");
        assert!(
            assets[0].starts_with("blob/http://127.0.0.1:"),
            "{assets:?}"
        );
        let mut client = crate::support::bytestream(&server);
        let blob = read(&mut client, &read_name(&archive)).await;
        assert!(blob.unwrap() == archive);
        server.finish().await;
    }
}

#[tokio::test]
async fn the_digest_is_of_the_function_that_was_asked_for() {
    let origin = Origin::start(|_| ok(b"content")).await;
    let server = server(&origin).await;
    for function in [Function::Blake3, Function::Sha512, Function::GitSha1] {
        let request = FetchBlobRequest {
            digest_function: function.number().into(),
            ..asked(&origin.url("/a"))
        };
        let answer = fetch(&server, request).await.unwrap();
        let expected = crate::support::hash(function, b"content");
        assert_eq!(answer.blob_digest.unwrap().hash, expected, "{function}");
        assert_eq!(answer.digest_function, i32::from(function.number()));
    }
    server.finish().await;
}

#[tokio::test]
async fn what_does_not_match_its_checksum_is_refused_and_leaves_nothing() {
    let origin = Origin::start(|path| match path {
        "/small" => ok(b"tampered"),
        _ => ok(&pattern(3, LARGE)),
    })
    .await;
    let server = server(&origin).await;
    for path in ["/small", "/large"] {
        for function in [Function::Sha256, Function::Sha384, Function::Sha512] {
            let checksum = sri(function, b"release");
            let request = asked_with(&origin.url(path), &[("checksum.sri", &checksum)]);
            assert_eq!(status(&server, request).await, ABORTED, "{path} {function}");
        }
        let two = format!(
            "{} {}",
            sri(Function::Sha256, b"a"),
            sri(Function::Sha256, b"b")
        );
        let request = asked_with(&origin.url(path), &[("checksum.sri", &two)]);
        assert_eq!(status(&server, request).await, ABORTED, "{path}");
    }
    assert_eq!(kept(&server), (0, Vec::new()));
    server.finish().await;
}

#[tokio::test]
async fn any_of_several_checksums_satisfies() {
    let origin = Origin::start(|_| ok(b"release")).await;
    let server = server(&origin).await;
    let checksums = format!(
        "{} {}",
        sri(Function::Sha256, b"old release"),
        sri(Function::Sha512, b"release")
    );
    let request = asked_with(&origin.url("/a"), &[("checksum.sri", &checksums)]);
    assert_eq!(status(&server, request).await, OK);
    server.finish().await;
}

#[tokio::test]
async fn only_urls_that_begin_as_allowed_are_fetched() {
    let origin = Origin::start(|_| ok(b"a")).await;
    let server = server_with(allowing(&[origin.url("/files/")])).await;
    assert_eq!(status(&server, asked(&origin.url("/files/a"))).await, OK);
    for path in ["/", "/other/a", "/filesystem"] {
        let request = asked(&origin.url(path));
        assert_eq!(status(&server, request).await, PERMISSION_DENIED, "{path}");
    }
    for uri in [
        origin.url("/files/../secret"),
        origin.url("/files/%2e%2e/secret"),
        format!("http://user@{}/files/a", origin.address),
        format!("ftp://{}/files/a", origin.address),
        "file:///etc/passwd".to_owned(),
        "urn:files".to_owned(),
    ] {
        assert_eq!(status(&server, asked(&uri)).await, NOT_FOUND, "{uri}");
    }
    assert_eq!(origin.heads().await.len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn this_machine_is_not_fetched_from_unless_private_addresses_are_allowed() {
    let origin = Origin::start(|_| ok(b"a")).await;
    let port = origin.address.port();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "127.1",
        "0x7f000001",
        "0.0.0.0",
    ];
    let urls = hosts.map(|host| format!("http://{host}:{port}/"));
    let server = server_with(AssetsConfig {
        fetch_private: false,
        ..allowing(&urls)
    })
    .await;
    for url in &urls {
        let code = status(&server, asked(url)).await;
        // What this machine cannot look up is refused for that.
        assert!(
            [PERMISSION_DENIED, UNAVAILABLE].contains(&code),
            "{url}: {code}"
        );
    }
    assert_eq!(status(&server, asked(&urls[0])).await, PERMISSION_DENIED);
    assert!(origin.heads().await.is_empty());
    server.finish().await;
}

#[tokio::test]
async fn redirects_are_followed_to_where_fetching_is_allowed() {
    let origin = Origin::start(|path| match path {
        "/a" => redirect("/b?c"),
        "/b?c" => redirect("d"),
        "/d" => ok(b"at last"),
        _ => origin::status("404 Not Found"),
    })
    .await;
    let server = server(&origin).await;
    let answer = fetch(&server, asked(&origin.url("/a"))).await.unwrap();
    assert_eq!(answer.blob_digest, Some(digest(b"at last")));
    assert_eq!(answer.uri, origin.url("/a"));
    server.finish().await;
}

#[tokio::test]
async fn a_redirect_to_a_forbidden_place_is_refused() {
    let secret = Origin::start(|_| ok(b"secret")).await;
    let other = secret.url("/secret");
    let origin = Origin::start(move |path| match path {
        "/files/other-host" => redirect(&other),
        "/files/other-path" => redirect("/secret"),
        "/files/dots" => redirect("/files/../secret"),
        "/files/metadata" => redirect("http://169.254.169.254/latest/meta-data/"),
        "/files/scheme" => redirect("file:///etc/passwd"),
        "/files/nowhere" => b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok(b"secret"),
    })
    .await;
    let server = server_with(allowing(&[origin.url("/files/")])).await;
    for (path, expected) in [
        ("/files/other-host", PERMISSION_DENIED),
        ("/files/other-path", PERMISSION_DENIED),
        ("/files/dots", ABORTED),
        ("/files/metadata", PERMISSION_DENIED),
        ("/files/scheme", ABORTED),
        ("/files/nowhere", ABORTED),
    ] {
        let code = status(&server, asked(&origin.url(path))).await;
        assert_eq!(code, expected, "{path}");
    }
    assert_eq!(origin.heads().await.len(), 6);
    assert!(secret.heads().await.is_empty());
    assert_eq!(kept(&server), (0, Vec::new()));
    server.finish().await;
}

#[tokio::test]
async fn metadata_services_are_refused_even_where_everything_is_allowed() {
    let urls = [
        "http://169.254.169.254/".to_owned(),
        "http://[fd00:ec2::254]/".to_owned(),
    ];
    let server = server_with(allowing(&urls)).await;
    for url in &urls {
        let code = status(&server, asked(url)).await;
        assert_eq!(code, PERMISSION_DENIED, "{url}");
    }
    server.finish().await;
}

#[tokio::test]
async fn redirects_without_an_end_are_given_up() {
    let origin = Origin::start(|path| {
        let hops: u32 = path[1..].parse().unwrap();
        if hops == 0 {
            ok(b"a")
        } else {
            redirect(&format!("/{}", hops - 1))
        }
    })
    .await;
    let server = server(&origin).await;
    assert_eq!(status(&server, asked(&origin.url("/5"))).await, OK);
    assert_eq!(status(&server, asked(&origin.url("/6"))).await, ABORTED);
    server.finish().await;
}

#[tokio::test]
async fn headers_are_sent_to_the_server_they_were_given_for_alone() {
    let mirror = Origin::start(|_| ok(b"private")).await;
    let there = mirror.url("/b");
    let origin = Origin::start(move |path| match path {
        "/a" => redirect("/again"),
        _ => redirect(&there),
    })
    .await;
    let server = server_with(allowing(&[origin.url("/"), mirror.url("/")])).await;
    let qualifiers = [("http_header:X-Auth-Token", "s3cret")];
    let request = asked_with(&origin.url("/a"), &qualifiers);
    assert_eq!(status(&server, request).await, OK);
    let heads = origin.heads().await;
    assert_eq!(heads.len(), 2);
    assert!(
        heads
            .iter()
            .all(|head| head.contains("x-auth-token: s3cret\r\n"))
    );
    assert!(!mirror.heads().await[0].contains("s3cret"));
    // What was got with credentials is not for who has none.
    assert_eq!(kept(&server).1, Vec::<String>::new());
    server.finish().await;
}

#[tokio::test]
async fn callers_that_want_the_same_share_a_download() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let origin = Origin::waiting(move |_| {
        let gate = Arc::clone(&opened);
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            ok(b"slow")
        })
    })
    .await;
    let server = server(&origin).await;
    let url = origin.url("/slow");
    let all = futures_util::future::join_all((0..8).map(|_| status(&server, asked(&url))));
    let opening = async {
        within(async {
            while origin.heads().await.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        gate.add_permits(8);
    };
    let (codes, ()) = tokio::join!(all, opening);
    assert_eq!(codes, [OK; 8]);
    assert_eq!(origin.heads().await.len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_download_that_takes_too_long_is_told_as_such() {
    let origin = Origin::waiting(|_| Box::pin(std::future::pending())).await;
    let server = server(&origin).await;
    let request = FetchBlobRequest {
        timeout: Some(Duration {
            seconds: 0,
            nanos: 300_000_000,
        }),
        ..asked(&origin.url("/never"))
    };
    assert_eq!(status(&server, request).await, DEADLINE_EXCEEDED);
    assert_eq!(origin.heads().await.len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_download_goes_on_when_its_caller_has_gone_away() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let origin = Origin::waiting(move |_| {
        let gate = Arc::clone(&opened);
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            ok(b"slow")
        })
    })
    .await;
    let server = server(&origin).await;
    let url = origin.url("/slow");
    let asking = fetch(&server, asked(&url));
    let meanwhile = async {
        while origin.heads().await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = asking => panic!("nothing was sent yet"),
        () = within(meanwhile) => {}
    }
    gate.add_permits(1);
    within(async {
        while kept(&server).1.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(status(&server, asked(&url)).await, OK);
    assert_eq!(origin.heads().await.len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn what_is_larger_than_blobs_may_be_is_refused() {
    let origin = Origin::start(|path| match path {
        "/told" => ok(&pattern(5, LARGE)),
        _ => chunked(&pattern(5, LARGE)),
    })
    .await;
    let assets = allowing(&[origin.url("/")]);
    let policy = Policy {
        assets,
        ..Policy::default()
    };
    let server = Server::with_both(policy, |config| config.max_blob_size = ByteSize(2 << 20)).await;
    let checksum = sri(Function::Sha256, &pattern(5, LARGE));
    for path in ["/told", "/untold"] {
        let url = origin.url(path);
        assert_eq!(
            status(&server, asked(&url)).await,
            RESOURCE_EXHAUSTED,
            "{path}"
        );
        let request = asked_with(&url, &[("checksum.sri", &checksum)]);
        assert_eq!(status(&server, request).await, RESOURCE_EXHAUSTED, "{path}");
    }
    assert_eq!(kept(&server), (0, Vec::new()));
    server.finish().await;
}

#[tokio::test]
async fn the_first_mirror_that_has_it_is_the_answer() {
    let origin = Origin::start(|path| match path {
        "/gone" => origin::status("404 Not Found"),
        _ => ok(b"a"),
    })
    .await;
    let server = server(&origin).await;
    let request = FetchBlobRequest {
        uris: vec![
            "urn:unknown".to_owned(),
            origin.url("/gone"),
            origin.url("/here"),
        ],
        ..FetchBlobRequest::default()
    };
    let answer = fetch(&server, request).await.unwrap();
    assert_eq!(answer.status.unwrap().code, OK);
    assert_eq!(answer.uri, origin.url("/here"));
    server.finish().await;
}

#[tokio::test]
async fn content_that_is_never_new_enough_is_fetched_every_time() {
    let origin = Origin::start(|_| ok(b"a")).await;
    let server = server(&origin).await;
    for _ in 0..2 {
        let request = FetchBlobRequest {
            oldest_content_accepted: Some(in_the_future()),
            ..asked(&origin.url("/a"))
        };
        assert_eq!(status(&server, request).await, OK);
    }
    assert_eq!(origin.heads().await.len(), 2);
    server.finish().await;
}

#[tokio::test]
async fn fetching_takes_the_right_to_write() {
    let origin = Origin::start(|_| ok(b"a")).await;
    let (policy, tokens) = guarded("default");
    let server = Server::with_policy(Policy {
        assets: allowing(&[origin.url("/")]),
        ..policy
    })
    .await;
    let mut client = FetchClient::new(channel(server.address));
    for (token, expected) in [
        (&tokens.read, PERMISSION_DENIED),
        (&tokens.write, OK),
        (&tokens.read, OK),
    ] {
        let mut request = Request::new(asked(&origin.url("/a")));
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let answer = within(client.fetch_blob(request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status.unwrap().code, expected);
    }
    let heads = origin.heads().await;
    assert_eq!(heads.len(), 1);
    assert!(!heads[0].to_lowercase().contains("authorization"));
    server.finish().await;
}

#[tokio::test]
async fn what_an_origin_says_is_told_by_its_kind() {
    let origin = Origin::start(|path| match path {
        "/short" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec(),
        "/garbage" => b"what?\r\n\r\n".to_vec(),
        "/gzip" => {
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na".to_vec()
        }
        path => origin::status(&path[1..].replace('-', " ")),
    })
    .await;
    let server = server(&origin).await;
    for (path, expected) in [
        ("/404-Gone", NOT_FOUND),
        ("/401-No", PERMISSION_DENIED),
        ("/403-No", PERMISSION_DENIED),
        ("/429-Slower", RESOURCE_EXHAUSTED),
        ("/503-Later", UNAVAILABLE),
        ("/206-Part", NOT_FOUND),
        ("/short", UNAVAILABLE),
        ("/garbage", UNAVAILABLE),
        ("/gzip", ABORTED),
    ] {
        let code = status(&server, asked(&origin.url(path))).await;
        assert_eq!(code, expected, "{path}");
    }
    assert_eq!(kept(&server), (0, Vec::new()));
    let gone = origin.url("/a");
    drop(origin);
    assert_eq!(status(&server, asked(&gone)).await, UNAVAILABLE);
    server.finish().await;
}

#[tokio::test]
async fn what_cannot_be_had_by_a_download_is_not_fetched() {
    let origin = Origin::start(|_| ok(b"a")).await;
    let server = server(&origin).await;
    for (name, value) in [
        ("vcs.commit", "1"),
        ("vcs.branch", "main"),
        ("directory", "src"),
        ("resource_type", "application/x-git"),
    ] {
        let request = asked_with(&origin.url("/a"), &[(name, value)]);
        assert_eq!(status(&server, request).await, NOT_FOUND, "{name}");
    }
    let request = FetchDirectoryRequest {
        uris: vec![origin.url("/a")],
        ..FetchDirectoryRequest::default()
    };
    let mut client = FetchClient::new(channel(server.address));
    let answer = within(client.fetch_directory(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.status.unwrap().code, NOT_FOUND);
    assert!(origin.heads().await.is_empty());
    server.finish().await;
}

#[tokio::test]
async fn a_reload_changes_what_may_be_fetched() {
    let origin = Origin::start(|_| ok(b"a")).await;
    let server = Server::start().await;
    assert_eq!(status(&server, asked(&origin.url("/a"))).await, NOT_FOUND);
    server.gateway.set_policy(Policy {
        assets: allowing(&[origin.url("/")]),
        ..Policy::default()
    });
    assert_eq!(status(&server, asked(&origin.url("/a"))).await, OK);
    server.finish().await;
}
