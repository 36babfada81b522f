//! Nx's self-hosted remote cache.

use crate::support::{Failure, Server, get, guarded, put};

const HASH: &str = "/v1/cache/17406432119821937044";

#[tokio::test]
async fn an_artifact_is_missed_put_and_hit_with_the_statuses_that_nx_knows() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(get(HASH)).await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (404, Some("0"))
    );
    client.send(put(HASH, b"tar")).await;
    assert_eq!(client.reply().await.status, 200);
    client.send(get(HASH)).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "tar"));
    assert_eq!(
        reply.header("content-type"),
        Some("application/octet-stream")
    );
    let reply = server.call("HEAD", HASH, &[], b"").await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("3"))
    );
}

#[tokio::test]
async fn the_first_writer_wins_and_the_second_is_told_409() {
    let server = Server::start().await;
    assert_eq!(server.put(HASH, b"first").await.status, 200);
    let large = vec![7; 3 << 20];
    let mut client = server.connect().await;
    for body in [&b"second"[..], &large] {
        client.send(put(HASH, body)).await;
        assert_eq!(client.reply().await.status, 409);
    }
    client.send(get(HASH)).await;
    assert_eq!(client.reply().await.text(), "first");
}

#[tokio::test]
async fn a_base_url_that_ends_in_a_slash_and_one_with_a_namespace_work() {
    let server = Server::start().await;
    let doubled = format!("/{HASH}");
    let elsewhere = format!("/ns/team/{HASH}");
    assert_eq!(server.put(&doubled, b"one").await.status, 200);
    assert_eq!(server.put(&elsewhere, b"two").await.status, 200);
    assert_eq!(server.get(HASH).await.text(), "one");
    assert_eq!(server.get(&elsewhere).await.text(), "two");
}

#[tokio::test]
async fn a_read_only_token_reads_and_is_told_403_before_the_body_is_sent() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (read, write) = (bearer(&tokens.read), bearer(&tokens.write));
    let stored = server.call("PUT", HASH, &[&write], b"tar").await;
    assert_eq!(stored.status, 200);
    let hit = server.call("GET", HASH, &[&read], b"").await;
    assert_eq!((hit.status, hit.text().as_str()), (200, "tar"));
    let mut client = server.connect().await;
    let head = format!(
        "PUT {HASH}1 HTTP/1.1\r\nHost: test\r\n{read}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    );
    client.send(head).await;
    assert_eq!(client.reply().await.status, 403);
}

#[tokio::test]
async fn wrong_credentials_are_401_in_plain_text_which_nx_shows() {
    let (policy, _) = guarded("team");
    let server = Server::with_policy(policy).await;
    for header in ["Authorization: Bearer ", "Authorization: Bearer wrong"] {
        for method in ["GET", "PUT"] {
            let reply = server.call(method, HASH, &[header], b"").await;
            assert_eq!(reply.status, 401, "{method} {header}");
            // Nx compares the whole value: with a character set it shows another text.
            assert_eq!(reply.header("content-type"), Some("text/plain"));
            assert_eq!(reply.text(), "valid credentials are needed\n");
        }
    }
}

#[tokio::test]
async fn only_an_admin_deletes() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (write, admin) = (bearer(&tokens.write), bearer(&tokens.admin));
    server.call("PUT", HASH, &[&write], b"tar").await;
    for (auth, status) in [(&write, 403), (&admin, 204), (&admin, 404)] {
        let reply = server.call("DELETE", HASH, &[auth], b"").await;
        assert_eq!(reply.status, status);
    }
}

#[tokio::test]
async fn a_store_that_fails_ends_no_run() {
    for failure in [Failure::Disk, Failure::Full, Failure::Corrupt] {
        let server = Server::failing(failure).await;
        let reply = server.get(HASH).await;
        assert_eq!((reply.status, reply.body.len()), (404, 0), "{failure:?}");
        let reply = server.put(HASH, b"tar").await;
        assert_eq!(reply.status, 403, "{failure:?}");
        assert!(!reply.text().contains("sector"), "{}", reply.text());
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_403_and_what_is_no_hash_a_miss() {
    let server = Server::with(|config| config.max_blob_size.0 = 10).await;
    assert_eq!(server.put(HASH, &[0; 11]).await.status, 403);
    let chunked = format!(
        "PUT {HASH} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n"
    );
    assert_eq!(server.ask(chunked).await.status, 403);
    assert_eq!(server.get(HASH).await.status, 404);
    for bad in ["", "a.b", "a%2fb", "..", &"1".repeat(129)] {
        let path = format!("/v1/cache/{bad}");
        assert_eq!(server.get(&path).await.status, 404, "{bad}");
        assert_eq!(server.put(&path, b"x").await.status, 403, "{bad}");
    }
    for good in ["a_B-9", &"1".repeat(128)] {
        let path = format!("/v1/cache/{good}");
        assert_eq!(server.put(&path, b"x").await.status, 200, "{good}");
    }
    let reply = server.call("POST", HASH, &[], b"").await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD, PUT, DELETE"))
    );
}
