//! Builder's remote cache, with the quirks of its client.

use std::time::Duration;

use zimcache_auth::{Anonymous, Scope};
use zimcache_types::Namespace;

use crate::{
    secret::{SECRET, one_secret, with_token},
    support::{Client, Reply, Server, put, within},
};

/// A key of its client: upper-case SHA-256.
const KEY: &str = "/artifacts/9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";

/// A request as its client sends it: no port in Host, the type only with a body.
fn asked(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: cache\r\nUser-Agent: Builder/1.0\r\nConnection: keep-alive\r\n"
    );
    if !body.is_empty() {
        let length = body.len();
        head.push_str("Content-Type: application/octet-stream\r\n");
        head.push_str("Content-Length: ");
        head.push_str(&length.to_string());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

async fn tell(client: &mut Client, method: &str, path: &str, body: &[u8]) -> Reply {
    client.send(asked(method, path, body)).await;
    client.reply_to(method).await
}

fn compressed(body: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(body, 3).unwrap()
}

/// Bytes that do not compress, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(next).collect()
}

#[tokio::test]
async fn its_client_puts_asks_reads_and_deletes_on_one_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for path in [KEY, "/artifacts/test123", "/artifacts/ABc.0-_9.manifest"] {
        assert_eq!(tell(&mut client, "HEAD", path, b"").await.status, 404);
        assert_eq!(tell(&mut client, "GET", path, b"").await.status, 404);
        for body in [b"first".as_slice(), b"second"] {
            let reply = tell(&mut client, "PUT", path, body).await;
            assert_eq!((reply.status, reply.body.len()), (201, 0));
            assert_eq!(tell(&mut client, "GET", path, b"").await.body, body);
        }
        assert_eq!(tell(&mut client, "HEAD", path, b"").await.status, 200);
        assert_eq!(tell(&mut client, "DELETE", path, b"").await.status, 204);
        assert_eq!(tell(&mut client, "DELETE", path, b"").await.status, 404);
    }
}

#[tokio::test]
async fn an_empty_artifact_has_neither_length_nor_type_when_it_comes() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    assert_eq!(tell(&mut client, "PUT", KEY, b"").await.status, 201);
    let reply = tell(&mut client, "GET", KEY, b"").await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("0"))
    );
}

#[tokio::test]
async fn header_names_are_title_case_for_its_client_alone() {
    let server = Server::start().await;
    server.put(KEY, b"artifact").await;
    let by_agent = asked("GET", "/health", b"");
    let by_target = format!("GET {KEY} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes();
    let in_a_namespace = format!("GET /ns/a{KEY} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes();
    for request in [by_agent, by_target, in_a_namespace] {
        let reply = server.ask(request).await;
        assert!(
            reply.head.contains("\r\nContent-Length: "),
            "{}",
            reply.head
        );
        assert!(!reply.head.contains("content-length"), "{}", reply.head);
    }
    let reply = server.get("/health").await;
    assert!(
        reply.head.contains("\r\ncontent-length: "),
        "{}",
        reply.head
    );
}

#[tokio::test]
async fn its_client_is_known_however_its_first_line_is_cut() {
    let server = Server::start().await;
    for cut in [1, 3, 9, 20] {
        let mut client = server.connect().await;
        let request = format!("GET {KEY} HTTP/1.1\r\nHost: test\r\n\r\n");
        let (start, rest) = request.split_at(cut);
        client.send(start).await;
        tokio::task::yield_now().await;
        client.send(rest).await;
        let reply = client.reply().await;
        assert!(
            reply.head.contains("\r\nContent-Length: 0"),
            "{}",
            reply.head
        );
    }
}

#[tokio::test]
async fn head_never_tells_a_length() {
    let server = Server::start().await;
    server.put(KEY, b"artifact").await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        let reply = tell(&mut client, "HEAD", KEY, b"").await;
        assert_eq!(
            (reply.status, reply.header("content-length")),
            (200, Some("0"))
        );
    }
    assert_eq!(tell(&mut client, "GET", KEY, b"").await.text(), "artifact");
}

#[tokio::test]
async fn get_says_what_caches_in_between_should_know() {
    let server = Server::start().await;
    server.put(KEY, b"artifact").await;
    let reply = server.get(KEY).await;
    let immutable = "public, max-age=31536000, immutable";
    assert_eq!(reply.header("cache-control"), Some(immutable));
    assert_eq!(reply.header("vary"), Some("Accept-Encoding, User-Agent"));
    let expires = reply.header("expires").unwrap();
    assert!(
        expires.ends_with(" GMT") && expires.len() == 29,
        "{expires}"
    );
    assert_eq!(reply.header("transfer-encoding"), None);
    assert_eq!(reply.header("connection"), None);
}

#[tokio::test]
async fn a_client_that_asks_whether_it_is_still_this_learns_of_an_overwrite() {
    let server = Server::start().await;
    server.put(KEY, b"first").await;
    let etag = server.get(KEY).await.header("etag").unwrap().to_owned();
    let still = format!("GET {KEY} HTTP/1.1\r\nHost: test\r\nIf-None-Match: {etag}\r\n\r\n");
    let reply = server.ask(&still).await;
    assert_eq!(
        (reply.status, reply.header("etag")),
        (304, Some(etag.as_str()))
    );
    server.put(KEY, b"other").await;
    let reply = server.ask(&still).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "other"));
}

#[tokio::test]
async fn what_its_client_compressed_it_gets_back_as_it_was() {
    let server = Server::start().await;
    let text = b"object code ".repeat(400);
    let long = noise(3 << 20);
    let mut client = server.connect().await;
    for plain in [b"".to_vec(), text, [long.clone(), long].concat()] {
        let packed = compressed(&plain);
        assert_eq!(tell(&mut client, "PUT", KEY, &packed).await.status, 201);
        let reply = tell(&mut client, "GET", KEY, b"").await;
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.header("content-length"),
            Some(plain.len().to_string().as_str())
        );
        assert!(reply.body == plain, "{} bytes", plain.len());
        let reply = server.get(KEY).await;
        assert!(reply.body == packed, "others get what was put");
    }
}

#[tokio::test]
async fn both_forms_of_an_artifact_have_tags_of_their_own() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    tell(&mut client, "PUT", KEY, &compressed(b"artifact")).await;
    let unpacked = tell(&mut client, "GET", KEY, b"").await;
    let stored = server.get(KEY).await;
    assert_ne!(unpacked.header("etag"), stored.header("etag"));
    let two = [compressed(b"arti"), compressed(b"fact")].concat();
    tell(&mut client, "PUT", KEY, &two).await;
    assert_eq!(tell(&mut client, "GET", KEY, b"").await.text(), "artifact");
}

#[tokio::test]
async fn what_only_looks_compressed_is_given_as_it_is() {
    let server = Server::start().await;
    let packed = compressed(&b"object code ".repeat(400));
    let long = compressed(&noise(3 << 20));
    let behind = [packed.as_slice(), b"and more"].concat();
    let mut client = server.connect().await;
    for body in [
        b"\x28\xb5\x2f\xfd".to_vec(),
        b"\x28\xb5\x2f\xfd no frame".to_vec(),
        packed[..packed.len() - 1].to_vec(),
        long[..long.len() - 1].to_vec(),
        behind,
        b"\xfd".to_vec(),
    ] {
        tell(&mut client, "PUT", KEY, &body).await;
        let reply = tell(&mut client, "GET", KEY, b"").await;
        assert!(reply.body == body, "{} bytes", body.len());
    }
}

#[tokio::test]
async fn what_unpacks_to_too_much_is_given_as_it_is() {
    let limit = 1 << 20;
    let server = Server::with(|config| config.max_blob_size.0 = limit).await;
    let over = compressed(&vec![b'x'; limit as usize + 1]);
    let mut far = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    far.window_log(24).unwrap();
    std::io::Write::write_all(&mut far, &noise(900_000)).unwrap();
    let mut client = server.connect().await;
    for body in [over, far.finish().unwrap()] {
        assert_eq!(tell(&mut client, "PUT", KEY, &body).await.status, 201);
        let reply = tell(&mut client, "GET", KEY, b"").await;
        assert!(reply.body == body, "{} bytes", body.len());
    }
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_open() {
    let server = Server::with_policy(one_secret(Scope::Read, Anonymous::None)).await;
    let mut client = server.connect().await;
    let big = noise(1 << 20);
    let refused = tell(&mut client, "PUT", KEY, &big).await;
    assert_eq!((refused.status, refused.header("connection")), (401, None));
    client
        .send(with_token(asked("PUT", KEY, &big), SECRET))
        .await;
    let refused = client.reply().await;
    assert_eq!((refused.status, refused.header("connection")), (403, None));
    client
        .send(with_token(asked("GET", KEY, b""), SECRET))
        .await;
    assert_eq!(client.reply().await.status, 404);
    assert_eq!(
        tell(&mut client, "GET", "/artifacts/a b", b"").await.status,
        400
    );
}

#[tokio::test]
async fn a_connection_of_its_client_outlives_the_idle_timeout() {
    let server = Server::with(|config| config.idle_timeout = Duration::from_millis(50)).await;
    let mut other = server.connect().await;
    let mut client = server.connect().await;
    tell(&mut client, "HEAD", KEY, b"").await;
    other
        .send("GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    other.reply().await;
    assert_eq!(within(other.rest()).await, "");
    assert_eq!(tell(&mut client, "HEAD", KEY, b"").await.status, 404);
}

#[tokio::test]
async fn malformed_keys_and_wrong_methods_are_refused() {
    let server = Server::start().await;
    let long = "a".repeat(257);
    for key in ["", "a%2Fb", "..%2f", "a:b", "\u{e4}", &long] {
        let path = format!("/artifacts/{key}");
        assert_eq!(server.get(&path).await.status, 400, "{path}");
        assert_eq!(server.put(&path, b"x").await.status, 400, "{path}");
    }
    assert_eq!(
        server
            .put(&format!("/artifacts/{}", &long[1..]), b"x")
            .await
            .status,
        201
    );
    assert_eq!(server.get("/artifacts/a/b").await.status, 404);
    let reply = server.ask(asked("POST", KEY, b"x")).await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD, PUT, DELETE"))
    );
}

#[tokio::test]
async fn the_case_of_a_key_is_kept_and_namespaces_are_apart() {
    let server = Server::start().await;
    server.put("/artifacts/Test", b"upper").await;
    server.put("/artifacts/test", b"lower").await;
    assert_eq!(server.get("/artifacts/Test").await.text(), "upper");
    assert_eq!(server.get("/ns/other/artifacts/Test").await.status, 404);
    let keys = server.store.entry_keys();
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|key| key.namespace == Namespace::default()));
}

#[tokio::test]
async fn a_part_of_an_artifact_is_206_and_too_large_a_one_413() {
    let server = Server::with(|config| config.max_blob_size.0 = 10).await;
    assert_eq!(server.ask(put(KEY, b"0123456789")).await.status, 201);
    let ranged = format!("GET {KEY} HTTP/1.1\r\nHost: test\r\nRange: bytes=3-5\r\n\r\n");
    let reply = server.ask(ranged).await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "345"));
    assert_eq!(server.put(KEY, b"01234567890").await.status, 413);
    assert_eq!(server.get(KEY).await.text(), "0123456789");
}
