//! Metro's artifacts.

use serde_json::Value;
use zimcache_auth::{Anonymous, Scope};

use crate::{
    secret::{SECRET, one_secret, with_token},
    support::{Server, get, put, request},
};

const PATH: &str = "/api/v1/artifacts/0123abCD";

async fn list(server: &Server, query: &str) -> (u16, Vec<String>) {
    let reply = server.get(&format!("/api/v1/artifacts{query}")).await;
    let page: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let rows = page["artifacts"].as_array().cloned().unwrap_or_default();
    let hashes = rows
        .iter()
        .map(|row| row["hash"].as_str().unwrap().to_owned());
    (reply.status, hashes.collect())
}

#[tokio::test]
async fn an_artifact_is_put_replaced_looked_at_read_and_deleted() {
    let server = Server::start().await;
    assert_eq!(server.get(PATH).await.status, 404);
    for body in [b"first".as_slice(), b"second"] {
        let reply = server.put(PATH, body).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(server.get(PATH).await.body, body);
    }
    let head = server.call("HEAD", PATH, &[], b"").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("6"))
    );
    assert_eq!(
        server.get("/api/v1/artifacts/0123abcd").await.status,
        404,
        "case is kept"
    );
    assert_eq!(server.call("DELETE", PATH, &[], b"").await.status, 204);
    assert_eq!(server.call("DELETE", PATH, &[], b"").await.status, 404);
}

#[tokio::test]
async fn malformed_keys_and_wrong_methods_are_refused() {
    let server = Server::start().await;
    let long = "a".repeat(129);
    for key in ["", "xyz", "12-4", "..%2f", &long] {
        let path = format!("/api/v1/artifacts/{key}");
        assert_eq!(server.get(&path).await.status, 400, "{path}");
        assert_eq!(server.put(&path, b"x").await.status, 400, "{path}");
    }
    assert_eq!(server.get("/api/v1/artifacts/ab/cd").await.status, 404);
    let post = server.call("POST", PATH, &[], b"").await;
    assert_eq!(
        (post.status, post.header("allow")),
        (405, Some("GET, HEAD, PUT, DELETE"))
    );
    let post = server.call("POST", "/api/v1/artifacts", &[], b"").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET")));
}

#[tokio::test]
async fn the_list_comes_in_order_a_page_at_a_time() {
    let server = Server::start().await;
    assert_eq!(list(&server, "").await, (200, vec![]));
    for key in ["cc", "aa", "bb"] {
        server
            .put(&format!("/api/v1/artifacts/{key}"), key.as_bytes())
            .await;
    }
    server
        .put(
            "/cache/00000000000000000000000000000000",
            b"of another tool",
        )
        .await;
    let keys = |keys: &[&str]| {
        (
            200,
            keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    };
    assert_eq!(list(&server, "").await, keys(&["aa", "bb", "cc"]));
    assert_eq!(list(&server, "?limit=2").await, keys(&["aa", "bb"]));
    assert_eq!(
        list(&server, "?limit=2&offset=2&sort=x").await,
        keys(&["cc"])
    );
    assert_eq!(list(&server, "?offset=3").await, keys(&[]));
    assert_eq!(list(&server, "?offset=100000").await, keys(&[]));
    let reply = server.get("/api/v1/artifacts?limit=1").await;
    let page: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&page["limit"], &page["offset"]), (&1.into(), &0.into()));
    assert_eq!(page["artifacts"][0]["size_bytes"], 2);
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=",
        "?offset=100001",
        "?offset=+1",
    ] {
        assert_eq!(list(&server, query).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn callers_get_what_their_credential_allows() {
    let server = Server::with_policy(one_secret(Scope::Read, Anonymous::None)).await;
    for path in [PATH, "/api/v1/artifacts"] {
        assert_eq!(server.get(path).await.status, 401, "{path}");
    }
    assert_eq!(server.ask(with_token(get(PATH), SECRET)).await.status, 404);
    assert_eq!(
        server.ask(with_token(put(PATH, b"x"), SECRET)).await.status,
        403
    );
    let delete = request("DELETE", PATH, &[], b"");
    assert_eq!(server.ask(with_token(delete, SECRET)).await.status, 403);
}

#[tokio::test]
async fn a_part_of_an_artifact_is_206() {
    let server = Server::start().await;
    server.put(PATH, b"0123456789").await;
    let reply = server.call("GET", PATH, &["Range: bytes=-3"], b"").await;
    assert_eq!((reply.status, reply.text().as_str()), (206, "789"));
}
