//! ZIM's objects.

use zimcache_auth::{Anonymous, Scope};

use crate::{
    secret::{SECRET, one_secret, with_token},
    support::{Server, get, put, sha256},
};

const OBJECT: &[u8] = b"an object of ZIM";

fn path_of(body: &[u8]) -> String {
    format!("/api/v1/objects/{}", sha256(body))
}

#[tokio::test]
async fn an_object_is_put_looked_at_read_and_deleted_on_one_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let path = path_of(OBJECT);
    let bare = |method: &str| format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send(bare("HEAD")).await;
    assert_eq!(client.reply_to("HEAD").await.status, 404);
    for _ in 0..2 {
        client.send(put(&path, OBJECT)).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
    }
    client.send(bare("HEAD")).await;
    let reply = client.reply_to("HEAD").await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("16"))
    );
    client.send(bare("GET")).await;
    assert_eq!(client.reply().await.body, OBJECT);
    client.send(bare("DELETE")).await;
    assert_eq!(client.reply_to("DELETE").await.status, 204);
    client.send(bare("DELETE")).await;
    assert_eq!(client.reply().await.status, 404);
    client.send(bare("GET")).await;
    assert_eq!(client.reply().await.status, 404);
}

#[tokio::test]
async fn an_object_never_changes_and_says_so() {
    let server = Server::start().await;
    let path = path_of(OBJECT);
    server.put(&path, OBJECT).await;
    let reply = server.get(&path).await;
    let etag = format!("\"{}\"", sha256(OBJECT));
    assert_eq!(reply.header("etag"), Some(etag.as_str()));
    let immutable = Some("public, max-age=31536000, immutable");
    assert_eq!(reply.header("cache-control"), immutable);
    let again = format!("GET {path} HTTP/1.1\r\nHost: test\r\nIf-None-Match: {etag}\r\n\r\n");
    let reply = server.ask(again).await;
    assert_eq!(
        (reply.status, reply.header("cache-control")),
        (304, immutable)
    );
}

#[tokio::test]
async fn what_a_credential_opened_is_not_for_caches_in_between() {
    let policy = one_secret(Scope::Write, Anonymous::Read);
    let server = Server::with_policy(policy).await;
    let path = path_of(OBJECT);
    let stored = server.ask(with_token(put(&path, OBJECT), SECRET)).await;
    assert_eq!(stored.status, 200);
    for (request, who) in [
        (get(&path).into_bytes(), "public"),
        (with_token(get(&path), SECRET), "private"),
    ] {
        let reply = server.ask(request).await;
        let control = reply.header("cache-control").unwrap();
        assert!(control.starts_with(who), "{control}");
    }
}

#[tokio::test]
async fn a_part_of_an_object_is_206() {
    let server = Server::start().await;
    let path = path_of(OBJECT);
    server.put(&path, OBJECT).await;
    let ranged =
        |range: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\nRange: {range}\r\n\r\n");
    let reply = server.ask(ranged("bytes=3-8")).await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "object"));
    assert_eq!(reply.header("content-range"), Some("bytes 3-8/16"));
    let reply = server.ask(ranged("bytes=16-")).await;
    assert_eq!(reply.status, 416);
}

#[tokio::test]
async fn a_body_with_another_hash_is_400_and_stores_nothing() {
    let server = Server::start().await;
    let path = path_of(b"something else");
    assert_eq!(server.put(&path, OBJECT).await.status, 400);
    assert_eq!(server.get(&path).await.status, 404);
    assert_eq!(server.get(&path_of(OBJECT)).await.status, 404);
}

#[tokio::test]
async fn malformed_hashes_and_wrong_methods_are_refused() {
    let server = Server::start().await;
    let hash = sha256(OBJECT);
    for bad in [
        "",
        "a",
        &hash[1..],
        &hash.to_uppercase(),
        &format!("{hash}0"),
        "..%2f",
    ] {
        let path = format!("/api/v1/objects/{bad}");
        assert_eq!(server.get(&path).await.status, 400, "{path}");
        assert_eq!(server.put(&path, OBJECT).await.status, 400, "{path}");
    }
    assert_eq!(
        server
            .get(&format!("/api/v1/objects/ab/{hash}"))
            .await
            .status,
        404
    );
    let post = format!(
        "POST {} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
        path_of(OBJECT)
    );
    let reply = server.ask(post).await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD, PUT, DELETE"))
    );
}

#[tokio::test]
async fn callers_get_what_their_credential_allows() {
    let policy = one_secret(Scope::Read, Anonymous::None);
    let server = Server::with_policy(policy).await;
    let path = path_of(OBJECT);
    assert_eq!(server.get(&path).await.status, 401);
    assert_eq!(
        server.ask(with_token(get(&path), "trout")).await.status,
        401
    );
    assert_eq!(server.ask(with_token(get(&path), SECRET)).await.status, 404);
    let refused = server.ask(with_token(put(&path, OBJECT), SECRET)).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn objects_and_bazels_blobs_are_the_same_and_namespaces_are_apart() {
    let server = Server::start().await;
    server.put(&path_of(OBJECT), OBJECT).await;
    let blob = format!("/cas/{}", sha256(OBJECT));
    assert_eq!(server.get(&blob).await.body, OBJECT);
    let elsewhere = format!("/ns/other{}", path_of(OBJECT));
    assert_eq!(server.get(&elsewhere).await.status, 404);
}
