//! The operator's pages.

use crate::support::{Server, sha256};

fn post(path: &str, extra: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: test\r\n{extra}Content-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn health_metrics_and_figures_are_on_the_same_port() {
    let server = Server::start().await;
    let path = format!("/cas/{}", sha256(b"hello"));
    assert_eq!(server.get(&path).await.status, 404);
    assert_eq!(server.put(&path, b"hello").await.status, 200);
    assert_eq!(server.get(&path).await.status, 200);
    assert!(server.get("/").await.text().contains("/health"));
    let health = server.get("/health").await;
    assert_eq!(health.header("content-type"), Some("application/json"));
    assert!(
        health.text().contains("\"status\":\"ok\""),
        "{}",
        health.text()
    );
    let stats = server.get("/api/v1/stats").await.text();
    for member in [
        "\"hits\":1",
        "\"misses\":1",
        "\"hit_rate\":0.5",
        "\"blobs\":1",
    ] {
        assert!(stats.contains(member), "{member} in {stats}");
    }
    let metrics = server.get("/metrics").await.text();
    for line in [
        "zimcache_hits_total{dialect=\"bazel_http\"} 1",
        "zimcache_misses_total{dialect=\"bazel_http\"} 1",
        "zimcache_requests_total{dialect=\"bazel_http\",method=\"put\",status=\"2xx\"} 1",
        "zimcache_store_blobs 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    for sample in samples {
        let families = ["zimcache_", "zim_cache_", "builder_cache_", "plasma_"];
        assert!(
            families.iter().any(|own| sample.starts_with(own)),
            "{sample}"
        );
    }
}

#[tokio::test]
async fn pages_refuse_methods_they_do_not_have() {
    let server = Server::start().await;
    for (path, allowed) in [
        ("/", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/api/v1/stats", "GET, HEAD"),
    ] {
        let reply = server.ask(post(path, "", "")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allowed)));
    }
    for path in ["/api/v1/gc", "/api/v1/verify"] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    }
    let mut client = server.connect().await;
    client
        .send("HEAD /health HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!(reply.status, 200);
    assert_ne!(reply.header("content-length"), Some("0"));
}

#[tokio::test]
async fn garbage_collection_reports_what_it_freed() {
    let server = Server::start().await;
    for body in ["", "{}", "{\"target_bytes\": 0}"] {
        let reply = server.ask(post("/api/v1/gc", "", body)).await;
        assert_eq!(reply.status, 200, "{body}");
        assert!(
            reply.text().contains("\"before_bytes\":0"),
            "{}",
            reply.text()
        );
    }
    for bad in ["nonsense", "{\"target\": 1}", "{\"target_bytes\": -1}"] {
        assert_eq!(
            server.ask(post("/api/v1/gc", "", bad)).await.status,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn verification_streams_lines_and_ends_with_a_report() {
    let server = Server::start().await;
    let path = format!("/cas/{}", sha256(b"hello"));
    assert_eq!(server.put(&path, b"hello").await.status, 200);
    let reply = server.ask(post("/api/v1/verify", "", "")).await;
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let text = reply.text();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("{\"progress\":{\"done_bytes\":5"),
        "{lines:?}"
    );
    let last = lines.last().unwrap();
    assert!(last.starts_with("{\"report\":{\"records\":1"), "{last}");
}

#[tokio::test]
async fn what_acts_on_the_store_is_refused_when_done_for_somebody_else() {
    let server = Server::start().await;
    for header in [
        "Origin: http://evil\r\n",
        "X-Forwarded-For: 1.2.3.4\r\n",
        "Forwarded: for=x\r\n",
    ] {
        for path in ["/api/v1/gc", "/api/v1/verify"] {
            assert_eq!(server.ask(post(path, header, "")).await.status, 403);
        }
    }
}
