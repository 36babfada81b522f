//! Requests nobody honest sends: smuggling shapes, header floods, nonsense. After each the server is well, and nothing
//! of one request is taken for another.

use std::fmt::Write;

use crate::support::{Server, get, sha256};

/// Sends a request followed by one that must not be answered with 200, and gives what came back.
async fn smuggle(server: &Server, attack: &str) -> String {
    let mut client = server.connect().await;
    let marker = "GET /health HTTP/1.1\r\nHost: test\r\nX-Marker: 1\r\n\r\n";
    client.send(format!("{attack}{marker}")).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    client.rest().await
}

#[tokio::test]
async fn smuggling_shapes_are_400_or_close_the_connection() {
    let server = Server::start().await;
    let path = format!("/cas/{}", sha256(b"hello"));
    let put = |headers: &str, body: &str| {
        format!("PUT {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n{body}")
    };
    for attack in [
        put("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        put("Content-Length: 5, 6\r\n", "hello"),
        put("Content-Length: +5\r\n", "hello"),
        put("Content-Length: 0x5\r\n", "hello"),
        put("Content-Length: -1\r\n", "hello"),
        put("Content-Length: 99999999999999999999\r\n", "hello"),
        put("Content-Length: 5\r\n obs-fold: 1\r\n", "hello"),
        put("Content-Length : 5\r\n", "hello"),
        put(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "0\r\n\r\n",
        ),
        put("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        put("Transfer-Encoding: gzip\r\n", "hello"),
        put("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        put("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
        put("X: a\rb\r\nContent-Length: 5\r\n", "hello"),
        put("X: a\0b\r\nContent-Length: 5\r\n", "hello"),
        put(
            "Transfer-Encoding: chunked\r\n",
            "5 x\r\nhello\r\n0\r\n\r\nrest",
        ),
        put("Transfer-Encoding: chunked\r\n", "-5\r\nhello\r\n0\r\n\r\n"),
        put(
            "Transfer-Encoding: chunked\r\n",
            "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        ),
        format!("PUT {path} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("GET {path} HTTP/9.9\r\nHost: test\r\n\r\n"),
        "GET  /health HTTP/1.1\r\nHost: test\r\n\r\n".into(),
        "\0\0\0\0\r\n\r\n".into(),
        "G\u{00e4}T / HTTP/1.1\r\nHost: test\r\n\r\n".into(),
    ] {
        let answer = smuggle(&server, &attack).await;
        assert!(!answer.contains(" 200 "), "{attack:?} got {answer:?}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert!(server.store.blob_names().is_empty());
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn both_lengths_at_once_count_as_chunked_and_end_the_connection() {
    let server = Server::start().await;
    let path = format!("/cas/{}", sha256(b"hello"));
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for headers in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        let attack = format!("PUT {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n{body}");
        let answer = smuggle(&server, &attack).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(
            answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );
        assert!(!answer.contains("\"status\":\"ok\""), "{answer}");
    }
}

#[tokio::test]
async fn an_upgrade_is_ignored() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let request = "GET /health HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
    client.send(request).await;
    assert_eq!(client.reply().await.status, 200);
    client.send(get("/health")).await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_hundred_thousand_headers_are_refused_and_the_server_stays_up() {
    let server = Server::start().await;
    let mut request = String::from("GET /health HTTP/1.1\r\nHost: test\r\n");
    for index in 0..100_000 {
        write!(request, "x{index}: y\r\n").unwrap();
    }
    request.push_str("\r\n");
    let mut client = server.connect().await;
    client.send(request).await;
    assert_eq!(client.reply().await.status, 431);
    assert_eq!(client.rest().await, "");
    for (count, status) in [(90, 200), (200, 431)] {
        let headers = "x: y\r\n".repeat(count);
        let request = format!("GET /health HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        assert_eq!(server.ask(request).await.status, status, "{count}");
    }
    let long = "y".repeat(200_000);
    let request = format!("GET /health HTTP/1.1\r\nHost: test\r\nx: {long}\r\n\r\n");
    assert_eq!(server.ask(request).await.status, 431);
    let request = format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!([414, 431].contains(&server.ask(request).await.status));
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn targets_that_are_no_path_of_ours_are_404() {
    let server = Server::start().await;
    let ask = |target: &str| server.ask(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    for target in [
        "/nowhere", "/ac", "/cas/", "/health/", "/api/v1", "/%61c/x", "/..", "/ac/x/y",
    ] {
        let status = ask(target).await.status;
        assert!([400, 404].contains(&status), "{target} {status}");
    }
    assert_eq!(ask("http://elsewhere/health").await.status, 200);
    let mut client = server.connect().await;
    client
        .send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.status, 204);
    let mut client = server.connect().await;
    client
        .send("CONNECT elsewhere:80 HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.status, 404);
}
