//! Bazel's HTTP cache.

use std::sync::Arc;

use zimcache_proto::{
    Message,
    reapi::{
        self, ActionResult, Directory, DirectoryNode, FileNode, OutputDirectory, OutputFile,
        OutputSymlink, Tree,
    },
};
use zimcache_store::memory::MemoryStore;
use zimcache_types::{Digest, Function};

use crate::support::{Failing, Failure, Server, get, guarded, put, sha256};

const ACTION: &str = "00000000000000000000000000000000000000000000000000000000000000ac";

fn named(body: &[u8]) -> reapi::Digest {
    reapi::Digest {
        hash: sha256(body),
        size_bytes: i64::try_from(body.len()).unwrap(),
    }
}

fn output(path: &str, body: &[u8]) -> OutputFile {
    OutputFile {
        path: path.into(),
        digest: Some(named(body)),
        ..OutputFile::default()
    }
}

async fn put_blob(server: &Server, body: &[u8]) {
    let reply = server.put(&format!("/cas/{}", sha256(body)), body).await;
    assert_eq!(reply.status, 200);
}

async fn put_action(server: &Server, result: &ActionResult) -> u16 {
    let path = format!("/ac/{ACTION}");
    server.put(&path, &result.encode_to_vec()).await.status
}

async fn get_action(server: &Server) -> u16 {
    server.get(&format!("/ac/{ACTION}")).await.status
}

#[tokio::test]
async fn a_blob_comes_back_as_it_was_put() {
    let server = Server::start().await;
    let path = format!("/cas/{}", sha256(b"hello"));
    let reply = server.put(&path, b"hello").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-length"), Some("0"));
    let reply = server.get(&path).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    assert_eq!(reply.header("content-length"), Some("5"));
    assert_eq!(reply.header("accept-ranges"), Some("bytes"));
    assert_eq!(server.put(&path, b"hello").await.status, 200);
}

#[tokio::test]
async fn head_says_what_get_would_and_sends_no_body() {
    let server = Server::start().await;
    put_blob(&server, b"hello").await;
    let mut client = server.connect().await;
    let head = |hash: String| format!("HEAD /cas/{hash} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send(head(sha256(b"hello"))).await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-length"), Some("5"));
    client.send(head(sha256(b"other"))).await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("content-length"), Some("0"));
}

#[tokio::test]
async fn a_miss_is_404_with_no_body_and_the_connection_stays() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for kind in ["ac", "cas"] {
        client.send(get(&format!("/{kind}/{ACTION}"))).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 404);
        assert_eq!(reply.header("content-length"), Some("0"));
    }
}

#[tokio::test]
async fn every_hash_function_names_blobs() {
    let server = Server::start().await;
    for function in [Function::Sha1, Function::Blake3, Function::Sha512] {
        let body = format!("{function:?}").repeat(1000);
        let hash = Digest::of(function, body.as_bytes()).hash.to_hex();
        let path = format!("/cas/{hash}");
        assert_eq!(server.put(&path, body.as_bytes()).await.status, 200);
        assert_eq!(server.get(&path).await.text(), body);
        assert_eq!(server.put(&path, b"something else").await.status, 400);
    }
}

#[tokio::test]
async fn a_large_blake3_blob_is_stored_once_the_namespace_is_known_to_use_it() {
    let server = Server::start().await;
    let path = |body: &[u8]| format!("/cas/{}", Digest::of(Function::Blake3, body).hash);
    let large = vec![5; 3 << 20];
    assert_eq!(server.put(&path(b"small"), b"small").await.status, 200);
    assert_eq!(server.put(&path(&large), &large).await.status, 200);
    assert_eq!(server.get(&path(&large)).await.body, large);
    let sha256 = format!("/cas/{}", sha256(b"other"));
    assert_eq!(server.put(&sha256, b"other").await.status, 200);
    assert_eq!(server.put(&sha256, b"wrong").await.status, 400);
}

#[tokio::test]
async fn the_empty_blob_is_there_before_anybody_put_it() {
    let server = Server::start().await;
    for function in [Function::Sha1, Function::Sha256, Function::Blake3] {
        let path = format!("/cas/{}", Digest::of(function, b"").hash);
        let reply = server.get(&path).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.header("content-length"), Some("0"));
    }
}

#[tokio::test]
async fn a_put_without_any_length_is_a_body_of_zero_bytes() {
    let server = Server::start().await;
    let bare = |hash: String| format!("PUT /cas/{hash} HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(server.ask(bare(sha256(b""))).await.status, 200);
    assert_eq!(server.ask(bare(sha256(b"x"))).await.status, 400);
}

#[tokio::test]
async fn malformed_keys_are_400_on_every_method() {
    let server = Server::start().await;
    let upper = ACTION.to_uppercase();
    for key in [
        &upper[..],
        "",
        "abc",
        "..%2f..%2fetc",
        &"g".repeat(64),
        &"a".repeat(63),
        // An MD5 is no key here.
        &"a".repeat(32),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            for kind in ["ac", "cas"] {
                let head = format!(
                    "{method} /{kind}/{key} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
                );
                assert_eq!(server.ask(&head).await.status, 400, "{head}");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_digest_is_400_also_when_the_blob_exists_and_nothing_changes() {
    let server = Server::start().await;
    put_blob(&server, b"right").await;
    let before = server.store.blob_names();
    let path = format!("/cas/{}", sha256(b"right"));
    assert_eq!(server.put(&path, b"wrong").await.status, 400);
    assert_eq!(server.get(&path).await.text(), "right");
    let big = vec![1; 3 << 20];
    assert_eq!(server.put(&path, &big).await.status, 400);
    assert_eq!(server.store.blob_names(), before);
}

#[tokio::test]
async fn the_wrong_method_is_405_and_names_the_right_ones() {
    let server = Server::start().await;
    for method in ["POST", "PATCH", "PROPFIND", "TRACE"] {
        let head = format!("{method} /cas/{ACTION} HTTP/1.1\r\nHost: test\r\n\r\n");
        let reply = server.ask(head).await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD, PUT, DELETE"));
    }
}

#[tokio::test]
async fn delete_is_204_once_and_404_after() {
    let server = Server::start().await;
    put_blob(&server, b"hello").await;
    assert_eq!(put_action(&server, &ActionResult::default()).await, 200);
    for path in [
        format!("/cas/{}", sha256(b"hello")),
        format!("/ac/{ACTION}"),
    ] {
        let delete = format!("DELETE {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut client = server.connect().await;
        client.send(&delete).await;
        assert_eq!(client.reply().await.status, 204);
        client.send(&delete).await;
        assert_eq!(client.reply().await.status, 404);
        assert_eq!(server.get(&path).await.status, 404);
    }
}

#[tokio::test]
async fn an_instance_is_a_room_of_its_own_and_slashes_do_not_count_twice() {
    let server = Server::start().await;
    let hash = sha256(b"hello");
    let path = format!("/team/ios/cas/{hash}");
    assert_eq!(server.put(&path, b"hello").await.status, 200);
    assert_eq!(server.get(&path).await.status, 200);
    assert_eq!(
        server
            .get(&format!("//team//ios///cas//{hash}"))
            .await
            .status,
        200
    );
    assert_eq!(server.get(&format!("/cas/{hash}")).await.status, 404);
    assert_eq!(server.get(&format!("/team/cas/{hash}")).await.status, 404);
    assert_eq!(
        server
            .put(&format!("/default/cas/{hash}"), b"hello")
            .await
            .status,
        200
    );
    assert_eq!(server.get(&format!("/cas/{hash}")).await.status, 200);
}

#[tokio::test]
async fn names_that_are_no_instance_are_refused() {
    let server = Server::start().await;
    let hash = sha256(b"hello");
    for bad in [
        "a%2fb",
        "..",
        "a/../b",
        ".",
        "a b",
        &"x".repeat(129),
        "a%00b",
    ] {
        let path = format!("/{}/cas/{hash}", bad.replace(' ', "%20"));
        assert_eq!(server.put(&path, b"hello").await.status, 400, "{bad}");
    }
    for reserved in ["api", "ccache", "v8/team", "webdav", "ns/x"] {
        let path = format!("/{reserved}/cas/{hash}");
        assert_eq!(server.get(&path).await.status, 404, "{reserved}");
    }
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn ranges_are_206_with_the_bytes_asked_for_or_416() {
    let server = Server::start().await;
    put_blob(&server, b"0123456789").await;
    let path = format!("/cas/{}", sha256(b"0123456789"));
    let ask = |range: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nRange: {range}\r\n\r\n");
        server.ask(request)
    };
    for (range, body, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-", "3456789", "bytes 3-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-4", "6789", "bytes 6-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
        ("bytes=0-", "0123456789", "bytes 0-9/10"),
    ] {
        let reply = ask(range).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (206, body),
            "{range}"
        );
        assert_eq!(reply.header("content-range"), Some(content_range));
    }
    for range in ["bytes=10-", "bytes=5-4", "bytes=-0"] {
        let reply = ask(range).await;
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.header("content-range"), Some("bytes */10"));
    }
    for ignored in ["bytes=0-1,3-4", "items=0-1", "bytes=x"] {
        assert_eq!(ask(ignored).await.status, 200, "{ignored}");
    }
}

#[tokio::test]
async fn a_client_that_has_the_value_gets_304() {
    let server = Server::start().await;
    put_blob(&server, b"hello").await;
    assert_eq!(put_action(&server, &ActionResult::default()).await, 200);
    for path in [
        format!("/cas/{}", sha256(b"hello")),
        format!("/ac/{ACTION}"),
    ] {
        let etag = server.get(&path).await.header("etag").unwrap().to_owned();
        let ask = |tag: &str| {
            server.ask(format!(
                "GET {path} HTTP/1.1\r\nHost: test\r\nIf-None-Match: {tag}\r\n\r\n"
            ))
        };
        let mut client = server.connect().await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: test\r\nIf-None-Match: {etag}\r\n\r\n"
            ))
            .await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 304);
        assert_eq!(reply.header("etag"), Some(&etag[..]));
        client.send(get(&path)).await;
        assert_eq!(client.reply().await.status, 200);
        assert_eq!(ask("\"other\"").await.status, 200);
    }
}

#[tokio::test]
async fn a_new_version_of_an_action_result_has_a_new_tag() {
    let server = Server::start().await;
    let path = format!("/ac/{ACTION}");
    let mut tags = Vec::new();
    for exit_code in [0, 1] {
        let result = ActionResult {
            exit_code,
            ..ActionResult::default()
        };
        assert_eq!(put_action(&server, &result).await, 200);
        tags.push(server.get(&path).await.header("etag").unwrap().to_owned());
    }
    assert_ne!(tags[0], tags[1]);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_announced_or_not() {
    let server = Server::with(|config| config.max_blob_size.0 = 1000).await;
    let body = vec![b'x'; 1001];
    for path in [format!("/cas/{}", sha256(&body)), format!("/ac/{ACTION}")] {
        assert_eq!(server.put(&path, &body).await.status, 413);
        let mut chunked = format!(
            "PUT {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n"
        )
        .into_bytes();
        chunked.extend_from_slice(&body);
        chunked.extend_from_slice(b"\r\n0\r\n\r\n");
        assert_eq!(server.ask(chunked).await.status, 413);
    }
    put_blob(&server, &body[1..]).await;
    assert_eq!(server.store.blob_names().len(), 1);
}

#[tokio::test]
async fn a_chunked_body_is_stored_like_any_other() {
    let server = Server::start().await;
    let path = format!("/cas/{}", sha256(b"hello world"));
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
         6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
    );
    assert_eq!(server.ask(request).await.status, 200);
    assert_eq!(server.get(&path).await.text(), "hello world");
}

#[tokio::test]
async fn what_is_no_action_result_is_refused() {
    let server = Server::start().await;
    let path = format!("/ac/{ACTION}");
    let absolute = ActionResult {
        output_files: vec![output("/etc/passwd", b"x")],
        ..ActionResult::default()
    };
    let escaping = ActionResult {
        output_symlinks: vec![OutputSymlink {
            path: "a/../../b".into(),
            target: "c".into(),
            ..OutputSymlink::default()
        }],
        ..ActionResult::default()
    };
    let nameless = ActionResult {
        output_files: vec![OutputFile {
            path: "a".into(),
            ..OutputFile::default()
        }],
        ..ActionResult::default()
    };
    let bodies = [
        b"not an action result".to_vec(),
        b"{\"outputFiles\":[]}".to_vec(),
        b"jb\x01\x02".repeat(3),
        absolute.encode_to_vec(),
        escaping.encode_to_vec(),
        nameless.encode_to_vec(),
    ];
    for body in bodies {
        assert_eq!(server.put(&path, &body).await.status, 400, "{body:?}");
    }
    assert!(server.store.entry_keys().is_empty());
}

#[tokio::test]
async fn an_action_result_keeps_every_byte_also_fields_we_do_not_know() {
    let server = Server::start().await;
    let mut body = ActionResult {
        exit_code: 3,
        ..ActionResult::default()
    }
    .encode_to_vec();
    // Field 900, a string.
    body.extend_from_slice(&[0xa2, 0x38, 3, b'n', b'e', b'w']);
    let path = format!("/ac/{ACTION}");
    assert_eq!(server.put(&path, &body).await.status, 200);
    assert_eq!(server.get(&path).await.body, body);
}

#[tokio::test]
async fn an_action_result_is_a_miss_until_everything_it_names_is_there() {
    let server = Server::start().await;
    let inner = Directory {
        files: vec![FileNode {
            name: "deep".into(),
            digest: Some(named(b"deep file")),
            ..FileNode::default()
        }],
        ..Directory::default()
    };
    let root = Directory {
        directories: vec![DirectoryNode {
            name: "inner".into(),
            digest: Some(named(&inner.encode_to_vec())),
        }],
        ..Directory::default()
    };
    let tree = Tree {
        root: Some(root),
        children: vec![inner],
    }
    .encode_to_vec();
    let result = ActionResult {
        output_files: vec![output("bin/tool", b"a tool"), output("empty", b"")],
        output_directories: vec![OutputDirectory {
            path: "out".into(),
            tree_digest: Some(named(&tree)),
            ..OutputDirectory::default()
        }],
        stdout_digest: Some(named(b"said")),
        ..ActionResult::default()
    };
    assert_eq!(put_action(&server, &result).await, 200);
    for body in [&b"a tool"[..], b"said", &tree, b"deep file"] {
        assert_eq!(get_action(&server).await, 404);
        put_blob(&server, body).await;
    }
    assert_eq!(get_action(&server).await, 200);
    let deep = format!("/cas/{}", sha256(b"deep file"));
    let delete = format!("DELETE {deep} HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut client = server.connect().await;
    client.send(delete).await;
    assert_eq!(client.reply().await.status, 204);
    assert_eq!(get_action(&server).await, 404);
}

#[tokio::test]
async fn a_tree_that_lacks_a_directory_it_names_is_incomplete() {
    let server = Server::start().await;
    let root = Directory {
        directories: vec![DirectoryNode {
            name: "gone".into(),
            digest: Some(named(b"not in the tree")),
        }],
        ..Directory::default()
    };
    let tree = Tree {
        root: Some(root),
        children: vec![],
    }
    .encode_to_vec();
    put_blob(&server, &tree).await;
    let result = ActionResult {
        output_directories: vec![OutputDirectory {
            path: String::new(),
            tree_digest: Some(named(&tree)),
            ..OutputDirectory::default()
        }],
        ..ActionResult::default()
    };
    assert_eq!(put_action(&server, &result).await, 200);
    assert_eq!(get_action(&server).await, 404);
}

#[tokio::test]
async fn a_hierarchy_of_directories_is_followed_blob_by_blob() {
    let server = Server::start().await;
    let inner = Directory {
        files: vec![FileNode {
            name: "f".into(),
            digest: Some(named(b"content")),
            ..FileNode::default()
        }],
        ..Directory::default()
    }
    .encode_to_vec();
    let root = Directory {
        directories: vec![DirectoryNode {
            name: "inner".into(),
            digest: Some(named(&inner)),
        }],
        ..Directory::default()
    }
    .encode_to_vec();
    let result = ActionResult {
        output_directories: vec![OutputDirectory {
            path: "out".into(),
            root_directory_digest: Some(named(&root)),
            ..OutputDirectory::default()
        }],
        ..ActionResult::default()
    };
    assert_eq!(put_action(&server, &result).await, 200);
    for body in [&root[..], &inner, b"content"] {
        assert_eq!(get_action(&server).await, 404);
        put_blob(&server, body).await;
    }
    assert_eq!(get_action(&server).await, 200);
}

#[tokio::test]
async fn an_action_result_may_name_blobs_by_another_hash_of_the_same_length() {
    let server = Server::start().await;
    let digest = Digest::of(Function::Blake3, b"output");
    let result = ActionResult {
        output_files: vec![
            OutputFile {
                path: "a".into(),
                digest: Some(reapi::Digest {
                    hash: digest.hash.to_hex(),
                    size_bytes: 6,
                }),
                ..OutputFile::default()
            },
            output("b", b"by sha256"),
        ],
        ..ActionResult::default()
    };
    assert_eq!(put_action(&server, &result).await, 200);
    put_blob(&server, b"by sha256").await;
    assert_eq!(get_action(&server).await, 404);
    let path = format!("/cas/{}", digest.hash);
    assert_eq!(server.put(&path, b"output").await.status, 200);
    assert_eq!(get_action(&server).await, 200);
}

#[tokio::test]
async fn disk_trouble_is_503_or_507_and_a_damaged_blob_is_a_miss() {
    let path = format!("/cas/{}", sha256(b"hello"));
    for (failure, get_status, put_status) in [
        (Failure::Disk, 503, 503),
        (Failure::Full, 507, 507),
        (Failure::Corrupt, 404, 503),
    ] {
        let failing = Arc::new(Failing(failure));
        let server = Server::over(failing, MemoryStore::default(), |_| {}).await;
        let reply = server.get(&path).await;
        assert_eq!(reply.status, get_status, "{failure:?}");
        assert!(!reply.text().contains("sector 17"));
        if get_status == 503 {
            assert_eq!(reply.header("retry-after"), Some("5"));
        }
        assert_eq!(
            server.put(&path, b"hello").await.status,
            put_status,
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn the_status_page_is_there_for_clients_that_look() {
    let server = Server::start().await;
    let reply = server.get("/status").await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("\"CurrSize\":0"), "{}", reply.text());
    assert_eq!(server.put("/status", b"x").await.status, 405);
}

#[tokio::test]
async fn the_status_page_refuses_a_token_nobody_made_and_shows_moon_that_the_cache_is_not_for_it() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let known = format!("Authorization: Bearer {}", tokens.read);
    let reply = server.call("GET", "/status", &[&known], b"").await;
    assert_eq!(reply.status, 200);
    let unknown = "Authorization: Bearer zim_wrong";
    let reply = server.call("GET", "/status", &[unknown], b"").await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn title_case_headers_are_sent_when_asked_for() {
    let server = Server::with(|config| config.title_case_headers = true).await;
    let reply = server.get(&format!("/cas/{ACTION}")).await;
    assert!(
        reply.head.contains("\r\nContent-Length: 0\r\n"),
        "{}",
        reply.head
    );
}

#[tokio::test]
async fn many_requests_share_a_connection_also_when_some_fail() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let good = format!("/cas/{}", sha256(b"hello"));
    let pipeline = [
        put(&good, b"wrong"),
        put(&good, b"hello"),
        put("/cas/abc", b"hello"),
        get(&good).into_bytes(),
        get("/cas/nonsense").into_bytes(),
        get("/nowhere").into_bytes(),
        get(&good).into_bytes(),
    ];
    client.send(pipeline.concat()).await;
    for status in [400, 200, 400, 200, 400, 404, 200] {
        assert_eq!(client.reply().await.status, status);
    }
}
