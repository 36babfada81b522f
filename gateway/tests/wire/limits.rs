//! Rate limits: what passes, what is told, and how each client is refused.

use zimcache_config::LimitsConfig;
use zimcache_gateway::Policy;

use crate::support::{Reply, Server, get, guarded, sha256};

const HEADERS: [&str; 6] = [
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

fn limits(change: impl FnOnce(&mut LimitsConfig)) -> Policy {
    let mut limits = LimitsConfig::default();
    change(&mut limits);
    Policy {
        limits,
        ..Policy::default()
    }
}

fn number(reply: &Reply, header: &str) -> u64 {
    let value = reply.header(header);
    value.expect(header).parse().expect(header)
}

#[tokio::test]
async fn two_hundred_quick_requests_meet_429_after_about_a_hundred() {
    let policy = limits(|limits| limits.per_address = Some("10/s burst 100".parse().unwrap()));
    let server = Server::with_policy(policy).await;
    let mut client = server.connect().await;
    let mut passed = 0;
    for _ in 0..200 {
        client.send(get("/health")).await;
        let reply = client.reply().await;
        assert_eq!(number(&reply, "ratelimit-limit"), 100);
        if reply.status == 200 {
            passed += 1;
            continue;
        }
        assert_eq!(reply.status, 429);
        assert!(number(&reply, "retry-after") >= 1);
        assert_eq!(number(&reply, "x-ratelimit-remaining"), 0);
        assert!(
            number(&reply, "x-ratelimit-reset") > 1_700_000_000,
            "seconds since 1970"
        );
    }
    assert!((100..=130).contains(&passed), "{passed} passed");
}

#[tokio::test]
async fn every_answer_tells_what_is_left_and_none_does_without_limits() {
    let policy = limits(|limits| limits.global = Some("1000/h".parse().unwrap()));
    let server = Server::with_policy(policy).await;
    let hash = sha256(b"x");
    for (nth, path) in ["/health", "/nobody", "/ns/../x", &format!("/cas/{hash}")]
        .into_iter()
        .enumerate()
    {
        let reply = server.get(path).await;
        assert_eq!(number(&reply, "ratelimit-remaining"), 999 - nth as u64);
        assert_eq!(number(&reply, "x-ratelimit-limit"), 1000);
    }
    let free = Server::start().await;
    let reply = free.get("/health").await;
    assert!(HEADERS.iter().all(|name| reply.header(name).is_none()));
}

#[tokio::test]
async fn a_token_has_a_limit_of_its_own() {
    let (mut policy, tokens) = guarded("default");
    policy.limits.per_token = Some("2/h".parse().unwrap());
    let server = Server::with_policy(policy).await;
    let mut statuses = Vec::new();
    for token in [&tokens.read, &tokens.read, &tokens.read, &tokens.write] {
        let header = format!("Authorization: Bearer {token}");
        let reply = server.call("GET", "/api/v1/stats", &[&header], b"").await;
        statuses.push(reply.status);
    }
    assert_eq!(statuses, [200, 200, 429, 200]);
}

#[tokio::test]
async fn behind_a_listed_proxy_each_client_has_a_bucket() {
    let policy = limits(|limits| limits.per_address = Some("1/h".parse().unwrap()));
    let server = Server::with_both(policy, |config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let from = |list: &str| {
        format!("GET /health HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {list}\r\n\r\n")
    };
    for (list, status) in [
        ("203.0.113.1", 200),
        ("203.0.113.1", 429),
        ("198.51.100.7, 203.0.113.1, 127.0.0.9", 429),
        ("203.0.113.1, 203.0.113.2", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
    ] {
        assert_eq!(server.ask(from(list)).await.status, status, "{list}");
    }
}

/// What a client over its limit is told: never a status that breaks its build.
const REFUSALS: &[(&str, &str, u16)] = &[
    ("GET", "/cache/{32}", 404),
    ("PUT", "/cache/{32}", 413),
    ("GET", "/cas/{64}", 404),
    ("GET", "/ac/{64}", 404),
    ("PUT", "/cas/{64}", 429),
    ("GET", "/ccache/{40}", 404),
    ("PUT", "/ccache/{40}", 429),
    ("GET", "/maven/v1.1/g/a/x/buildinfo.xml", 404),
    ("PUT", "/maven/v1.1/g/a/x/buildinfo.xml", 500),
    ("GET", "/v1/cache/1234567890", 404),
    ("PUT", "/v1/cache/1234567890", 403),
    ("GET", "/v8/artifacts/0123456789abcdef", 429),
    ("PUT", "/v8/artifacts/0123456789abcdef", 429),
    ("GET", "/webdav/.sccache_check", 404),
    ("PUT", "/webdav/.sccache_check", 429),
    ("GET", "/webdav/0/1/2/{64}", 404),
    ("PROPFIND", "/webdav/", 429),
    ("GET", "/artifacts/{64}", 429),
    ("PUT", "/artifacts/{64}", 429),
    ("GET", "/v1/artifacts/{64}", 429),
    ("PUT", "/v1/artifacts/{64}", 429),
    ("GET", "/api/v1/artifacts/{64}", 429),
    ("GET", "/_apis/artifactcache/cache?keys=k&version=v", 429),
    ("GET", "/api/v1/objects/{64}", 429),
    ("GET", "/health", 429),
    ("GET", "/metrics", 429),
    ("GET", "/api/v1/stats", 429),
];

#[tokio::test]
async fn a_client_over_its_limit_is_refused_in_its_own_words() {
    let policy = limits(|limits| limits.global = Some("1/h".parse().unwrap()));
    let server = Server::with_policy(policy).await;
    assert_eq!(server.get("/health").await.status, 200);
    let hex = sha256(b"key");
    for (method, path, expected) in REFUSALS {
        let path = [32, 40, 64]
            .into_iter()
            .fold((*path).to_owned(), |path, digits| {
                path.replace(&format!("{{{digits}}}"), &hex[..digits])
            });
        let reply = server.call(method, &path, &[], b"body").await;
        assert_eq!(reply.status, *expected, "{method} {path}");
        assert_eq!(number(&reply, "ratelimit-remaining"), 0, "{method} {path}");
        if reply.status == 429 {
            assert!(reply.header("retry-after").is_some(), "{method} {path}");
        }
    }
}
