//! Turborepo's remote cache.

use serde_json::{Value, json};

use crate::support::{Failure, Reply, Server, guarded};

const HASH: &str = "/v8/artifacts/8b8703f0575118ea";

fn json(reply: &Reply) -> Value {
    assert_eq!(reply.header("content-type"), Some("application/json"));
    serde_json::from_slice(&reply.body).unwrap()
}

async fn query(server: &Server, team: &str, body: &Value) -> Reply {
    let path = format!("/v8/artifacts{team}");
    let body = body.to_string();
    server.call("POST", &path, &[], body.as_bytes()).await
}

#[tokio::test]
async fn an_artifact_comes_back_with_the_headers_that_came_with_it() {
    let server = Server::start().await;
    assert_eq!(server.get(HASH).await.status, 404);
    let headers = [
        "x-artifact-duration: 221",
        "x-artifact-tag: LgcqtsAfTKTuFrvXkuNsCxJ5ORJP0bbdwyWROanh61Y=",
        "x-artifact-sha: 834351ddeaca245e279dae9f01450f91434ff230",
        "x-artifact-dirty-hash: a265ae27e5dc4d21",
        "x-artifact-client-ci: GITHUB_ACTIONS",
    ];
    let reply = server.call("PUT", HASH, &headers, b"zstd").await;
    assert_eq!(reply.status, 200);
    assert_eq!(json(&reply), json!({ "urls": [HASH] }));
    for (method, body) in [("GET", &b"zstd"[..]), ("HEAD", b"")] {
        let reply = server.call(method, HASH, &[], b"").await;
        assert_eq!((reply.status, &reply.body[..]), (200, body));
        assert_eq!(reply.header("content-length"), Some("4"));
        for line in &headers[..4] {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(reply.header(name), Some(value), "{method}");
        }
        assert_eq!(reply.header("x-artifact-client-ci"), None);
    }
    assert_eq!(server.put(HASH, b"bare").await.status, 200);
    let reply = server.get(HASH).await;
    assert_eq!(reply.text(), "bare");
    assert_eq!(reply.header("x-artifact-tag"), None);
    assert_eq!(server.call("DELETE", HASH, &[], b"").await.status, 204);
    assert_eq!(server.get(HASH).await.status, 404);
}

#[tokio::test]
async fn every_way_to_name_a_team_is_a_namespace_of_its_own() {
    let server = Server::start().await;
    let teams = [
        "",
        "?teamId=team_x",
        "?slug=acme",
        "?teamId=team_x&slug=acme",
    ];
    for team in teams {
        let path = format!("/{HASH}{team}");
        assert_eq!(server.put(&path, team.as_bytes()).await.status, 200);
    }
    for (path, body) in [
        (format!("{HASH}?"), ""),
        (format!("{HASH}?teamId=&slug="), ""),
        (format!("/ns/default{HASH}?slug=acme"), ""),
        (format!("{HASH}?slug=acme&teamId=team_x"), teams[3]),
        (format!("/ns/team_x{HASH}"), teams[1]),
        (format!("{HASH}?sl%75g=no&slug=ac%6de"), teams[2]),
        (format!("/ns/team_x%2Facme{HASH}"), teams[3]),
    ] {
        assert_eq!(server.get(&path).await.text(), body, "{path}");
    }
    for bad in [
        "?slug=..",
        "?slug=a%20b",
        "?teamId=team_x&slug=..",
        "?slug=%ff",
    ] {
        let reply = server.get(&format!("{HASH}{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}");
        assert_eq!(json(&reply)["error"]["code"], "invalid");
    }
}

#[tokio::test]
async fn a_query_tells_size_duration_and_tag_and_null_for_a_miss() {
    let server = Server::start().await;
    let put = async |hash: &str, headers: &[&str], body: &[u8]| {
        let path = format!("/v8/artifacts/{hash}?slug=acme");
        assert_eq!(server.call("PUT", &path, headers, body).await.status, 200);
    };
    let tagged = ["x-artifact-duration: 194", "x-artifact-tag: t="];
    put("tagged", &tagged, b"12345").await;
    put("large", &[], &vec![1; 3 << 20]).await;
    put("empty", &["x-artifact-duration: 7"], b"").await;
    let hashes = json!({ "hashes": ["tagged", "large", "empty", "absent", "no/hash", "tagged"] });
    let reply = query(&server, "?slug=acme", &hashes).await;
    assert_eq!(reply.status, 200);
    let expected = json!({
        "tagged": { "size": 5, "taskDurationMs": 194, "tag": "t=" },
        "large": { "size": 3 << 20, "taskDurationMs": 0 },
        "empty": { "size": 0, "taskDurationMs": 7 },
        "absent": null,
        "no/hash": null,
    });
    assert_eq!(json(&reply), expected);
    let reply = query(&server, "?slug=other", &json!({ "hashes": ["tagged"] })).await;
    assert_eq!(json(&reply), json!({ "tagged": null }));
    assert_eq!(
        json(&query(&server, "", &json!({ "hashes": [] })).await),
        json!({})
    );
}

#[tokio::test]
async fn a_query_is_bounded_and_has_to_be_one() {
    let server = Server::start().await;
    let many = |n: usize| json!({ "hashes": vec!["a"; n] });
    assert_eq!(query(&server, "", &many(4096)).await.status, 200);
    for bad in [
        many(4097),
        json!([]),
        json!({}),
        json!({ "hashes": [1] }),
        json!(""),
    ] {
        let reply = query(&server, "", &bad).await;
        assert_eq!(reply.status, 400);
        assert_eq!(json(&reply)["error"]["code"], "invalid");
    }
    let large = " ".repeat((1 << 20) + 1);
    for path in ["/v8/artifacts", "/v8/artifacts/events"] {
        let reply = server.call("POST", path, &[], large.as_bytes()).await;
        assert_eq!(reply.status, 413, "{path}");
        assert_eq!(json(&reply)["error"]["code"], "too_large");
    }
}

#[tokio::test]
async fn status_says_enabled_and_events_are_taken() {
    let server = Server::start().await;
    let reply = server.get("/v8/artifacts/status?slug=acme").await;
    assert_eq!(reply.status, 200);
    assert_eq!(json(&reply), json!({ "status": "enabled" }));
    let events = br#"[{"sessionId":"s","source":"REMOTE","event":"MISS","hash":"a","duration":0}]"#;
    let reply = server
        .call("POST", "//v8/artifacts/events?slug=acme", &[], events)
        .await;
    assert_eq!(reply.status, 200);
    let reply = server.get("/v8/artifacts/events").await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("POST, OPTIONS"))
    );
}

#[tokio::test]
async fn a_preflight_needs_no_token_and_lets_turbo_send_its_own() {
    let (policy, _) = guarded("acme");
    let server = Server::with_policy(policy).await;
    for path in [
        HASH,
        "/v8/artifacts",
        "/v8/artifacts/status",
        "/v8/artifacts/events",
    ] {
        let headers = [
            "access-control-request-method: GET",
            "access-control-request-headers: Authorization, User-Agent",
        ];
        let reply = server.call("OPTIONS", path, &headers, b"").await;
        assert_eq!(reply.status, 200, "{path}");
        let allowed = reply.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("Authorization") && allowed.contains("x-artifact-tag"));
        let methods = reply.header("access-control-allow-methods").unwrap();
        assert!(methods.contains("PUT"), "{methods}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
        assert_eq!(reply.header("location"), None);
    }
}

#[tokio::test]
async fn who_may_not_is_told_so_in_the_words_that_keep_reads() {
    let (policy, tokens) = guarded("acme");
    let server = Server::with_policy(policy).await;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (read, write) = (bearer(&tokens.read), bearer(&tokens.write));
    let path = format!("{HASH}?slug=acme");
    assert_eq!(server.call("PUT", &path, &[&write], b"x").await.status, 200);
    let default = format!("{HASH}?slug=default");
    for own in [HASH, &default] {
        assert_eq!(server.call("GET", own, &[&read], b"").await.text(), "x");
    }
    let elsewhere = format!("{HASH}?slug=other");
    for (method, path, auth) in [
        ("PUT", &path, &read),
        ("PUT", &elsewhere, &write),
        ("GET", &elsewhere, &write),
    ] {
        let reply = server.call(method, path, &[auth], b"").await;
        assert_eq!(reply.status, 403, "{method} {path}");
        let error = &json(&reply)["error"];
        assert_eq!(error["code"], "forbidden");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("these credentials do not allow "),
            "{message}"
        );
    }
    for (method, path) in [
        ("GET", HASH),
        ("PUT", HASH),
        ("POST", "/v8/artifacts"),
        ("GET", "/v8/artifacts/status"),
        ("POST", "/v8/artifacts/events"),
        ("GET", "/v2/user"),
    ] {
        let reply = server
            .call(method, path, &["Authorization: Bearer wrong"], b"{}")
            .await;
        assert_eq!(reply.status, 401, "{method} {path}");
        assert_eq!(json(&reply)["error"]["code"], "unauthenticated");
        assert!(reply.header("www-authenticate").is_some());
    }
}

#[tokio::test]
async fn login_and_link_find_what_they_ask_for() {
    let server = Server::start().await;
    let user = json(&server.get("/v2/user").await);
    assert_eq!(user["user"]["username"], "anonymous");
    assert_eq!(
        json(&server.get("/v2/teams?limit=100").await),
        json!({ "teams": [] })
    );
    let token = json(&server.get("/v5/user/tokens/current").await);
    assert_eq!(token["token"]["type"], "token");
    assert_eq!(token["token"]["scopes"][0]["type"], "user");
    assert_eq!(server.call("PUT", "/v2/user", &[], b"").await.status, 405);
}

#[tokio::test]
async fn malformed_metadata_hashes_and_methods_are_refused() {
    let server = Server::with(|config| config.max_blob_size.0 = 10).await;
    for header in [
        "x-artifact-duration: 1.5",
        "x-artifact-duration: -1",
        "x-artifact-duration: soon",
        "x-artifact-duration: 18446744073709551616",
        "x-artifact-tag: \u{fc}",
        &format!("x-artifact-tag: {}", "t".repeat(9000)),
    ] {
        let reply = server.call("PUT", HASH, &[header], b"x").await;
        assert_eq!(reply.status, 400, "{header}");
    }
    assert_eq!(server.get(HASH).await.status, 404);
    assert_eq!(server.put(HASH, &[0; 11]).await.status, 413);
    for bad in ["a.b", "a%2fb", &"1".repeat(129)] {
        let path = format!("/v8/artifacts/{bad}");
        assert_eq!(server.get(&path).await.status, 400, "{bad}");
        assert_eq!(server.put(&path, b"x").await.status, 400, "{bad}");
    }
    let reply = server.call("PATCH", HASH, &[], b"").await;
    let allowed = Some("GET, HEAD, PUT, DELETE, OPTIONS");
    assert_eq!((reply.status, reply.header("allow")), (405, allowed));
}

#[tokio::test]
async fn a_store_that_fails_is_told_as_json_without_its_inner_texts() {
    let server = Server::failing(Failure::Disk).await;
    for (method, path) in [("GET", HASH), ("PUT", HASH), ("POST", "/v8/artifacts")] {
        let body = br#"{"hashes":["a"]}"#;
        let reply = server.call(method, path, &[], body).await;
        assert_eq!(reply.status, 503, "{method} {path}");
        assert_eq!(
            json(&reply)["error"]["message"],
            "the store cannot do this now"
        );
        assert_eq!(reply.header("retry-after"), Some("5"));
    }
    let server = Server::failing(Failure::Full).await;
    assert_eq!(server.put(HASH, b"x").await.status, 507);
}
