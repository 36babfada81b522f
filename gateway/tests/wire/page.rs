//! The page for people, the figures behind it, and the rows of a namespace.

use serde_json::Value;

use crate::support::{Reply, Server, get, guarded, sha256};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
const KEY: &str = "0123456789abcdef0123456789abcdef";

fn json(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    serde_json::from_slice(&reply.body).unwrap()
}

/// A server that Gradle and Bazel used: two hits, one miss.
async fn used() -> Server {
    let server = Server::start().await;
    let blob = format!("/cas/{}", sha256(b"hello"));
    let entry = format!("/ns/team-a/cache/{KEY}");
    for (path, body) in [(&blob, "hello"), (&entry, "outputs")] {
        assert_eq!(server.put(path, body.as_bytes()).await.status, 200);
        assert_eq!(server.get(path).await.status, 200);
    }
    assert_eq!(
        server.get(&format!("/cas/{}", sha256(b"x"))).await.status,
        404
    );
    server
}

#[tokio::test]
async fn a_browser_gets_a_page_that_may_run_nothing_but_its_own_script() {
    let server = Server::start().await;
    let reply = server.call("GET", "/", &[BROWSER], b"").await;
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
    let page = reply.text();
    assert!(page.contains("<noscript>") && page.contains("0 blobs, 0 entries"));
    assert!(!page.contains("http://test") && !page.contains("https://"));
    let plain = server.get("/").await;
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(plain.header("vary"), Some("Accept"));
    assert!(plain.text().contains("/api/v1/usage"));
}

#[tokio::test]
async fn usage_tells_what_is_held_and_what_was_asked_for() {
    let server = used().await;
    let usage = json(&server.get("/api/v1/usage").await);
    assert_eq!(usage["total"]["hits"], 2);
    assert_eq!(usage["total"]["misses"], 1);
    assert_eq!(usage["total"]["served_bytes"], 12);
    assert_eq!(usage["tools"][0]["name"], "bazel_http");
    assert_eq!(usage["tools"][0]["hit_rate"], 0.5);
    assert_eq!(usage["tools"][1]["name"], "gradle");
    assert_eq!(usage["step_seconds"], 3600);
    let step = usage["tools"][1]["steps"][0].as_array().unwrap();
    assert_eq!(step[1..], [1, 0, 7, 7].map(Value::from));
    let held = usage["held"].as_array().unwrap();
    let row = held
        .iter()
        .find(|row| row["namespace"] == "team-a")
        .unwrap();
    assert_eq!((&row["kind"], &row["count"]), (&"gradle".into(), &1.into()));
    let day = json(&server.get("/api/v1/usage?window=24h").await);
    assert_eq!(
        (&day["step_seconds"], &day["total"]["hits"]),
        (&600.into(), &2.into())
    );
    let stats = json(&server.get("/api/v1/stats?window=7d").await);
    assert_eq!(stats["window"]["hits"], 2);
    assert!(
        json(&server.get("/api/v1/stats").await)
            .get("window")
            .is_none()
    );
    let top = json(&server.get("/api/v1/top?limit=1").await);
    assert_eq!(top["tools"].as_array().unwrap().len(), 1);
    assert_eq!(top["namespaces"][0]["name"], "default");
    for bad in [
        "usage?window=x",
        "stats?window=-1d",
        "top?limit=0",
        "top?window=%ff",
    ] {
        assert_eq!(
            server.get(&format!("/api/v1/{bad}")).await.status,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn health_has_what_builders_clients_look_for() {
    let server = used().await;
    let health = json(&server.get("/health").await);
    assert_eq!(
        (&health["cache_hits"], &health["cache_misses"]),
        (&2.into(), &1.into())
    );
    let rate = health["hit_rate"].as_f64().unwrap();
    assert!((66.0..67.0).contains(&rate), "percent: {rate}");
    for member in ["uptime", "storage_used", "storage_total"] {
        assert!(health[member].is_u64(), "{member}");
    }
}

#[tokio::test]
async fn figures_survive_a_restart() {
    let server = used().await;
    let store = server.store.clone();
    server.finish().await;
    let again = Server::over(std::sync::Arc::new(store.clone()), store, |_| {}).await;
    let stats = json(&again.get("/api/v1/stats?window=7d").await);
    assert_eq!(
        (&stats["hits"], &stats["window"]["hits"]),
        (&0.into(), &2.into())
    );
}

#[tokio::test]
async fn a_caller_sees_the_namespaces_it_may_read() {
    let (policy, tokens) = guarded("team-a");
    let server = Server::with_policy(policy).await;
    assert_eq!(server.get("/api/v1/usage").await.status, 401);
    let basic = server.get("/api/v1/usage").await;
    assert!(
        basic
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic")
    );
    assert_eq!(server.call("GET", "/", &[BROWSER], b"").await.status, 200);
    let header = format!("Authorization: Bearer {}", tokens.write);
    let path = format!("/cache/{KEY}");
    assert_eq!(
        server.call("PUT", &path, &[&header], b"x").await.status,
        200
    );
    assert_eq!(server.call("GET", &path, &[&header], b"").await.status, 200);
    let usage = json(&server.call("GET", "/api/v1/usage", &[&header], b"").await);
    let names = usage["namespaces"].as_array().unwrap();
    assert_eq!((names.len(), &names[0]["name"]), (1, &"team-a".into()));
}

async fn rows(server: &Server, query: &str) -> (Vec<String>, Option<String>) {
    let listing = json(&server.get(&format!("/api/v1/entries?{query}")).await);
    let rows = listing["entries"].as_array().unwrap().iter();
    let names = rows.map(|row| {
        assert!(row["created"].as_str().unwrap().ends_with('Z') && row["size_bytes"].is_u64());
        format!(
            "{}/{}",
            row["tool"].as_str().unwrap(),
            row["key"].as_str().unwrap()
        )
    });
    (names.collect(), listing["next"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn rows_are_listed_page_by_page() {
    let server = Server::start().await;
    let mut expected = Vec::new();
    for number in 0..5 {
        let key = format!("{number}{}", &KEY[1..]);
        server.put(&format!("/ns/a%2Fb/cache/{key}"), b"x").await;
        expected.push(format!("gradle/{key}"));
    }
    let mut blobs = Vec::new();
    for body in ["a", "b", "c"] {
        let hash = sha256(body.as_bytes());
        server
            .put(&format!("/ns/a%2Fb/cas/{hash}"), body.as_bytes())
            .await;
        blobs.push(format!("blob/{hash}"));
    }
    blobs.sort();
    expected.extend(blobs.iter().cloned());
    assert_eq!(
        rows(&server, "namespace=a%2Fb").await,
        (expected.clone(), None)
    );
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let (page, next) = rows(&server, &format!("namespace=a%2Fb&limit=2{after}")).await;
        assert!(page.len() <= 2);
        found.extend(page);
        let Some(next) = next else { break };
        after = format!("&after={}", next.replace('/', "%2F"));
    }
    assert_eq!(found, expected);
    let (only, _) = rows(&server, "namespace=a%2Fb&tool=gradle&prefix=3").await;
    assert_eq!(only, [expected[3].clone()]);
    let prefix = &blobs[1]["blob/".len().."blob/".len() + 6];
    let (one, _) = rows(
        &server,
        &format!("namespace=a%2Fb&tool=blob&prefix={prefix}"),
    )
    .await;
    assert_eq!(one, [blobs[1].clone()]);
    assert_eq!(rows(&server, "").await, (Vec::new(), None));
    for bad in [
        "tool=internal",
        "tool=x",
        "after=x",
        "after=x/y",
        "limit=x",
        "namespace=..",
    ] {
        let reply = server.get(&format!("/api/v1/entries?{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn one_row_or_all_of_them_can_be_removed() {
    let server = used().await;
    let hash = sha256(b"hello");
    let delete = |path: String| format!("DELETE {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    let row = format!("/api/v1/entries?namespace=team-a&tool=gradle&key={KEY}");
    assert_eq!(server.ask(delete(row.clone())).await.status, 204);
    assert_eq!(server.ask(delete(row)).await.status, 404);
    assert_eq!(
        server.get(&format!("/ns/team-a/cache/{KEY}")).await.status,
        404
    );
    let blob = format!("/api/v1/entries?tool=blob&key={hash}");
    assert_eq!(server.ask(delete(blob)).await.status, 204);
    for bad in [
        "tool=gradle",
        "key=x",
        "tool=blob&key=x",
        "tool=internal&key=history",
    ] {
        let path = format!("/api/v1/entries?{bad}");
        assert_eq!(server.ask(delete(path)).await.status, 400, "{bad}");
    }
    server.put(&format!("/ns/team-a/cache/{KEY}"), b"x").await;
    let twice = "/ns/other/api/v1/namespaces/team-a".to_owned();
    assert_eq!(server.ask(delete(twice)).await.status, 400);
    let all = "/api/v1/namespaces/team-a".to_owned();
    assert_eq!(server.ask(delete(all.clone())).await.status, 204);
    assert_eq!(
        rows(&server, "namespace=team-a").await.0,
        Vec::<String>::new()
    );
    let foreign = delete(all).replace("Host", "Origin: http://evil\r\nHost");
    assert_eq!(server.ask(foreign).await.status, 403);
    assert_eq!(server.get("/api/v1/namespaces/team-a").await.status, 405);
}

#[tokio::test]
async fn rows_need_the_right_that_fits() {
    let (policy, tokens) = guarded("team-a");
    let server = Server::with_policy(policy).await;
    let entry = format!("/api/v1/entries?tool=gradle&key={KEY}");
    let status = async |method: &str, path: &str, token: &str| {
        let header = format!("Authorization: Bearer {token}");
        server.call(method, path, &[&header], b"").await.status
    };
    for (method, path, expected) in [
        ("GET", "/api/v1/entries", [200, 200, 200]),
        ("DELETE", &entry, [403, 404, 404]),
        ("DELETE", "/api/v1/namespaces/team-a", [403, 403, 204]),
        ("DELETE", "/api/v1/namespaces/team-b", [403, 403, 403]),
        ("GET", "/api/v1/entries?namespace=team-b", [403, 403, 403]),
    ] {
        for (token, expected) in [&tokens.read, &tokens.write, &tokens.admin]
            .into_iter()
            .zip(expected)
        {
            assert_eq!(
                status(method, path, token).await,
                expected,
                "{method} {path}"
            );
        }
    }
    assert_eq!(server.ask(get("/api/v1/entries")).await.status, 401);
}
