//! Gradle's HTTP build cache.

use crate::support::{Failure, Server, get, guarded, put};

const KEY: &str = "/cache/5f2b1a0c9d8e7f6a5b4c3d2e1f0a9b8c";

#[tokio::test]
async fn an_entry_is_missed_put_hit_and_put_again() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(get(KEY)).await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (404, Some("0"))
    );
    for body in [&b"first"[..], b"second"] {
        client.send(put(KEY, body)).await;
        assert_eq!(client.reply().await.status, 200);
        client.send(get(KEY)).await;
        assert_eq!(client.reply().await.body, body);
    }
    let reply = server.call("HEAD", KEY, &[], b"").await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("6"))
    );
    assert_eq!(server.call("DELETE", KEY, &[], b"").await.status, 204);
    assert_eq!(server.get(KEY).await.status, 404);
}

#[tokio::test]
async fn values_are_served_as_they_are_to_a_client_that_takes_gzip() {
    let server = Server::start().await;
    server.put(KEY, b"\x1f\x8b\x08 tar").await;
    let header = "Accept-Encoding: gzip,deflate";
    let reply = server.call("GET", KEY, &[header], b"").await;
    assert_eq!(reply.body, b"\x1f\x8b\x08 tar");
    assert_eq!(reply.header("content-encoding"), None);
}

#[tokio::test]
async fn a_put_that_may_not_be_is_413_which_newer_versions_survive() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (read, write) = (bearer(&tokens.read), bearer(&tokens.write));
    let reply = server.call("PUT", KEY, &[&read], b"tar").await;
    assert_eq!(reply.status, 413);
    assert_eq!(
        reply.text(),
        "these credentials do not allow writing in this namespace\n"
    );
    assert_eq!(server.call("GET", KEY, &[&read], b"").await.status, 404);
    assert_eq!(server.call("PUT", KEY, &[&write], b"tar").await.status, 200);
    assert_eq!(server.call("GET", KEY, &[&read], b"").await.status, 200);
    assert_eq!(server.call("DELETE", KEY, &[&read], b"").await.status, 403);
}

#[tokio::test]
async fn wrong_credentials_are_401_because_somebody_has_to_mend_them() {
    let (policy, _) = guarded("team");
    let server = Server::with_policy(policy).await;
    for method in ["GET", "PUT"] {
        let reply = server.call(method, KEY, &[], b"").await;
        assert_eq!(reply.status, 401, "{method}");
        let challenge = reply.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic "), "{challenge}");
    }
}

#[tokio::test]
async fn a_store_that_fails_switches_no_reads_off() {
    for failure in [Failure::Disk, Failure::Full, Failure::Corrupt] {
        let server = Server::failing(failure).await;
        assert_eq!(server.get(KEY).await.status, 404, "{failure:?}");
        let reply = server.put(KEY, b"tar").await;
        assert_eq!(reply.status, 413, "{failure:?}");
        assert!(!reply.text().contains("sector"), "{}", reply.text());
    }
}

#[tokio::test]
async fn malformed_keys_wrong_methods_and_large_values_are_refused() {
    let server = Server::with(|config| config.max_blob_size.0 = 10).await;
    assert_eq!(server.put(KEY, &[0; 11]).await.status, 413);
    for bad in ["", "abc", &"g".repeat(32), &"a".repeat(31), &"a".repeat(65)] {
        let path = format!("/cache/{bad}");
        assert_eq!(server.get(&path).await.status, 400, "{bad}");
        assert_eq!(server.put(&path, b"x").await.status, 400, "{bad}");
    }
    assert_eq!(server.get(&format!("{KEY}/more")).await.status, 404);
    let reply = server.call("POST", KEY, &[], b"").await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD, PUT, DELETE"))
    );
}
