//! Every client in every situation: the status that it survives, and the body that it reads.
//!
//! What a client makes of a status differs: 403 to a GET ends a run of Nx, 503 costs Maven half a minute, 204 is a hit to
//! ccache, any error but 413 switches Gradle's reads off. The rows are what each of them needs; why is said in the
//! dialects. Written as (GET, PUT) where a situation concerns both.

use zimcache_config::LimitsConfig;
use zimcache_gateway::Policy;
use zimcache_types::{Digest, Function};

use crate::support::{Failure, Reply, Server, guarded};

const BODY: &[u8] = b"{}";
/// The name of [`BODY`] in a content-addressed store.
const CAS: &str = "/cas/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const AC: &str = "/ac/00000000000000000000000000000000000000000000000000000000000000ac";

/// What a client asks, and what it needs to hear.
struct Client {
    name: &'static str,
    path: &'static str,
    malformed: &'static str,
    headers: &'static [&'static str],
    /// What makes an answer this client's own: how errors are written.
    errors: Errors,
    /// A PUT over an existing key.
    again: u16,
    read_only: u16,
    /// A good token for another namespace.
    foreign: (u16, u16),
    bad_key: (u16, u16),
    too_large: u16,
    unavailable: (u16, u16),
    damaged: (u16, u16),
    full: u16,
    limited: (u16, u16),
}

#[derive(Clone, Copy, PartialEq)]
enum Errors {
    /// One line for people.
    Line,
    /// The same, and a refusal of credentials under the bare content type.
    BareLine,
    /// `{"error": {"code", "message"}}`.
    Json,
}

const BAZEL: Client = Client {
    name: "Bazel",
    path: CAS,
    malformed: "/cas/abc",
    headers: &[],
    errors: Errors::Line,
    again: 200,
    read_only: 403,
    foreign: (403, 403),
    bad_key: (400, 400),
    too_large: 413,
    unavailable: (503, 503),
    damaged: (404, 503),
    full: 507,
    limited: (404, 429),
};

const CLIENTS: [Client; 8] = [
    BAZEL,
    Client {
        name: "moon",
        path: AC,
        malformed: "/ac/abc",
        headers: &["Content-Type: application/json", "Accept: application/json"],
        ..BAZEL
    },
    Client {
        name: "ccache",
        path: "/ccache/01/23456789abcdef0123456789abcdef01234567",
        malformed: "/ccache/0",
        ..BAZEL
    },
    Client {
        name: "Gradle",
        path: "/cache/5f2b1a0c9d8e7f6a5b4c3d2e1f0a9b8c",
        malformed: "/cache/0",
        read_only: 413,
        foreign: (404, 413),
        unavailable: (404, 413),
        damaged: (404, 413),
        full: 413,
        limited: (404, 413),
        ..BAZEL
    },
    Client {
        name: "Maven",
        path: "/maven/v1.2/org.acme/core/0f3c9e/buildinfo.xml",
        malformed: "/maven/v1.2/../x",
        unavailable: (404, 500),
        damaged: (404, 500),
        limited: (404, 500),
        ..BAZEL
    },
    Client {
        name: "Nx",
        path: "/v1/cache/17406432119821937044",
        malformed: "/v1/cache/a.b",
        errors: Errors::BareLine,
        again: 409,
        foreign: (404, 403),
        bad_key: (404, 403),
        too_large: 403,
        unavailable: (404, 403),
        damaged: (404, 403),
        full: 403,
        limited: (404, 403),
        ..BAZEL
    },
    Client {
        name: "Turborepo",
        path: "/v8/artifacts/8b8703f0575118ea",
        malformed: "/v8/artifacts/a.b",
        errors: Errors::Json,
        limited: (429, 429),
        ..BAZEL
    },
    Client {
        name: "sccache",
        path: "/webdav/.sccache_check",
        malformed: "/webdav/../x",
        foreign: (404, 403),
        unavailable: (404, 503),
        limited: (404, 429),
        ..BAZEL
    },
];

impl Client {
    async fn ask(&self, server: &Server, method: &str, path: &str, token: &str) -> Reply {
        let auth = format!("Authorization: Bearer {token}");
        let mut headers = self.headers.to_vec();
        if !token.is_empty() {
            headers.push(&auth);
        }
        let body = if method == "PUT" { BODY } else { b"" };
        let reply = server.call(method, path, &headers, body).await;
        self.check_body(&reply, &format!("{} {method} {path}", self.name));
        reply
    }

    /// Asks and demands a status.
    async fn demand(&self, server: &Server, method: &str, token: &str, status: u16, when: &str) {
        let reply = self.ask(server, method, self.path, token).await;
        assert_eq!(reply.status, status, "{} {method}, {when}", self.name);
    }

    async fn demand_both(&self, server: &Server, token: &str, both: (u16, u16), when: &str) {
        self.demand(server, "GET", token, both.0, when).await;
        self.demand(server, "PUT", token, both.1, when).await;
    }

    /// What every answer of this status has to be.
    fn check_body(&self, reply: &Reply, what: &str) {
        let kind = reply.header("content-type");
        match reply.status {
            404 => assert_eq!(reply.header("content-length"), Some("0"), "{what}"),
            400.. if self.errors == Errors::Json => {
                assert_eq!(kind, Some("application/json"), "{what}");
                let error: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
                assert_eq!(error["error"]["code"] == "forbidden", reply.status == 403);
                assert!(error["error"]["message"].is_string(), "{what}");
            }
            400.. => {
                let line = reply.text();
                assert!(
                    line.ends_with('\n') && line.lines().count() == 1,
                    "{what}: {line}"
                );
                assert!(kind.unwrap().starts_with("text/plain"), "{what}");
                let bare = self.errors == Errors::BareLine && reply.status == 401;
                assert!(!bare || kind == Some("text/plain"), "{what}");
            }
            _ => assert!(reply.body.len() < 10 << 10, "{what}"),
        }
        assert_eq!(
            reply.status == 401,
            reply.header("www-authenticate").is_some(),
            "{what}"
        );
        assert!(!reply.text().contains("sector"), "{what}: {}", reply.text());
    }
}

#[test]
fn the_body_has_the_name_that_the_rows_use() {
    let named = Digest::of(Function::Sha256, BODY).hash.to_hex();
    assert_eq!(CAS, format!("/cas/{named}"));
}

#[tokio::test]
async fn a_miss_a_write_a_hit_and_a_write_again() {
    let server = Server::start().await;
    for client in &CLIENTS {
        for path in [client.path.to_owned(), format!("/ns/team{}", client.path)] {
            let missed = client.ask(&server, "GET", &path, "").await;
            let stored = client.ask(&server, "PUT", &path, "").await;
            let hit = client.ask(&server, "GET", &path, "").await;
            let again = client.ask(&server, "PUT", &path, "").await;
            let statuses = [&missed, &stored, &hit, &again].map(|reply| reply.status);
            assert_eq!(
                statuses,
                [404, 200, 200, client.again],
                "{} {path}",
                client.name
            );
            assert_eq!(hit.body, BODY, "{}", client.name);
        }
    }
}

#[tokio::test]
async fn a_reader_and_a_stranger() {
    let (policy, tokens) = guarded("default");
    let server = Server::with_policy(policy).await;
    for client in &CLIENTS {
        let (read, write) = (&tokens.read, &tokens.write);
        let early = (404, client.read_only);
        client.demand_both(&server, read, early, "reads only").await;
        client.demand(&server, "PUT", write, 200, "may write").await;
        client
            .demand(&server, "GET", read, 200, "reads only, hit")
            .await;
        client
            .demand_both(&server, "nobody's", (401, 401), "wrong token")
            .await;
        client
            .demand_both(&server, "", (401, 401), "no token")
            .await;
        let elsewhere = format!("/ns/other{}", client.path);
        let read = client.ask(&server, "GET", &elsewhere, write).await.status;
        let put = client.ask(&server, "PUT", &elsewhere, write).await.status;
        assert_eq!((read, put), client.foreign, "{}, elsewhere", client.name);
    }
}

#[tokio::test]
async fn a_malformed_key_and_a_value_that_is_too_large() {
    let server = Server::with(|config| config.max_blob_size.0 = 1).await;
    for client in &CLIENTS {
        let read = client
            .ask(&server, "GET", client.malformed, "")
            .await
            .status;
        let put = client
            .ask(&server, "PUT", client.malformed, "")
            .await
            .status;
        assert_eq!((read, put), client.bad_key, "{}", client.name);
        let when = "too large";
        client
            .demand(&server, "PUT", "", client.too_large, when)
            .await;
        client.demand(&server, "GET", "", 404, when).await;
    }
}

#[tokio::test]
async fn a_store_that_is_away_full_or_damaged() {
    let away = Server::failing(Failure::Disk).await;
    let full = Server::failing(Failure::Full).await;
    let damaged = Server::failing(Failure::Corrupt).await;
    for client in &CLIENTS {
        client
            .demand_both(&away, "", client.unavailable, "away")
            .await;
        client
            .demand_both(&damaged, "", client.damaged, "damaged")
            .await;
        client.demand(&full, "PUT", "", client.full, "full").await;
    }
}

#[tokio::test]
async fn a_caller_over_its_limit() {
    for client in &CLIENTS {
        let once = Some("1/h".parse().unwrap());
        let limits = LimitsConfig {
            reads: once,
            writes: once,
            ..LimitsConfig::default()
        };
        let policy = Policy {
            limits,
            ..Policy::default()
        };
        let server = Server::with_policy(policy).await;
        client
            .demand_both(&server, "", (404, 200), "within its limit")
            .await;
        client
            .demand_both(&server, "", client.limited, "over its limit")
            .await;
    }
}
