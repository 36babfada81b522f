//! Promises of the products this one follows that belong to no single dialect: browsers of other origins, one secret,
//! URLs that expire, the versions of TLS, limits on ZIM's objects, rules that change under load.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use zimcache_auth::{Anonymous, Scope};
use zimcache_config::{GatewayConfig, TlsConfig, TlsVersion};
use zimcache_gateway::{Gateway, Listener, Policy, SigningKey, Stores, Tls};
use zimcache_store::memory::MemoryStore;
use zimcache_types::{Clock as _, SystemClock};

use crate::{
    secret::{SECRET, one_secret, with_token},
    support::{Server, get, put, request, sha256, within},
};

#[tokio::test]
async fn a_listed_origin_may_ask_from_a_browser_and_another_is_told_nothing() {
    let policy = Policy {
        cors_origins: vec!["https://builds.example".to_owned()],
        ..one_secret(Scope::Write, Anonymous::None)
    };
    let server = Server::with_policy(policy).await;
    let ask = async |origin: &str, path: &str| {
        let headers = [
            format!("Origin: {origin}"),
            "Access-Control-Request-Method: PUT".to_owned(),
        ];
        let headers = [&*headers[0], &*headers[1]];
        server.call("OPTIONS", path, &headers, b"").await
    };
    for path in [
        "/artifacts/test123",
        "/health",
        "/nobody's",
        "/v8/artifacts",
    ] {
        let reply = ask("https://builds.example", path).await;
        assert_eq!(reply.status, 204, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", "https://builds.example"),
            (
                "access-control-allow-headers",
                "Authorization, Content-Type",
            ),
            ("access-control-max-age", "86400"),
            ("access-control-expose-headers", "ETag, Content-Length"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        let methods = reply.header("access-control-allow-methods").unwrap();
        for method in ["GET", "PUT", "HEAD", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
        let stranger = ask("https://evil.example", path).await;
        assert!(!stranger.head.contains("access-control"), "{path}");
    }
}

#[tokio::test]
async fn one_secret_opens_a_short_key_and_nothing_that_resembles_it_does() {
    let server = Server::with_policy(one_secret(Scope::Write, Anonymous::None)).await;
    let path = "/artifacts/test123";
    let stored = server.ask(with_token(put(path, b"data"), SECRET)).await;
    assert_eq!(stored.status, 201);
    let read = server.ask(with_token(get(path), SECRET)).await;
    assert_eq!((read.status, read.text().as_str()), (200, "data"));
    for wrong in [
        &format!("{SECRET}x"),
        &SECRET[..SECRET.len() - 1],
        "Swordfish",
    ] {
        let refused = server.ask(with_token(get(path), wrong)).await;
        assert_eq!(refused.status, 401, "{wrong}");
    }
}

#[tokio::test]
async fn health_and_figures_for_prometheus_need_no_credentials() {
    let server = Server::with_policy(one_secret(Scope::Read, Anonymous::None)).await;
    for path in ["/health", "/metrics"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
        let wrong = server.ask(with_token(get(path), "trout")).await;
        assert_eq!(wrong.status, 200, "{path}");
    }
    let object = format!("/api/v1/objects/{}", sha256(b"x"));
    assert_eq!(server.get(&object).await.status, 401);
}

#[tokio::test]
async fn a_hundred_objects_a_minute_pass_and_the_next_is_told_to_wait() {
    let mut policy = Policy::default();
    policy.limits.per_address = Some("100/m".parse().unwrap());
    let server = Server::with_policy(policy).await;
    let path = format!("/api/v1/objects/{}", sha256(b"x"));
    let mut client = server.connect().await;
    for _ in 0..100 {
        client.send(get(&path)).await;
        assert_eq!(client.reply().await.status, 404);
    }
    // A bucket of a hundred a minute has a token again after 0.6 s; on a slow machine some came back meanwhile.
    let mut refused = None;
    for _ in 0..100 {
        client.send(get(&path)).await;
        let reply = client.reply().await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    assert_eq!(refused.unwrap().header("retry-after"), Some("1"));
}

/// A signature as a server with this secret makes it, written anew from its description.
fn signature(secret: &[u8], parts: [&str; 5]) -> String {
    let mut block = [0; 64];
    block[..32].copy_from_slice(&Sha256::digest(secret));
    let mut mac = Hmac::<Sha256>::new(&block.into());
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn a_signed_url_opens_until_its_time_and_not_a_second_longer() {
    let server = Server::start().await;
    server.gateway.set_signing_key(SigningKey::new(b"secret"));
    let message = format!("{{\"key\": \"k\", \"version\": \"{}\"}}", sha256(b"v"));
    let create = "/twirp/github.actions.results.api.v1.CacheService/CreateCacheEntry";
    let json = ["Content-Type: application/json"];
    let answer = server.ask(request("POST", create, &json, message.as_bytes()));
    let answer: serde_json::Value = serde_json::from_slice(&answer.await.body).unwrap();
    let url = answer["signed_upload_url"].as_str().unwrap();
    let (_, path) = url.split_once("http://test").unwrap();
    let (path, _) = path.split_once('?').unwrap();
    let id = path.split('/').nth(3).unwrap();
    let now = SystemClock.now().0 / 1_000;
    for (until, status) in [(now - 1, 403), (now - 86_400, 403), (now + 60, 201)] {
        let until = until.to_string();
        let signed = signature(b"secret", ["actions-cache", "write", "default", id, &until]);
        let url = format!("{path}?ns=default&se={until}&sig={signed}");
        assert_eq!(server.ask(put(&url, b"x")).await.status, status, "{until}");
    }
}

/// Whether a client of this version of TLS is served.
async fn shakes_hands(oldest: TlsVersion, offered: &'static SupportedProtocolVersion) -> bool {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = Tls::new(chain.as_bytes(), key.as_bytes(), oldest).unwrap();
    let store = Arc::new(MemoryStore::default());
    let stores = Stores {
        blobs: store.clone(),
        entries: store.clone(),
        admin: store,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::new(GatewayConfig::default(), stores);
    zimcache_telemetry::task::spawn("gateway", async move {
        let listeners = vec![Listener::Tls(listener, tls)];
        gateway.serve(listeners, std::future::pending()).await
    });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[offered])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let done = within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    done.is_ok_and(|stream| stream.get_ref().1.protocol_version() == Some(offered.version))
}

#[tokio::test]
async fn tls_1_3_is_spoken_alone_unless_1_2_is_allowed() {
    let by_default = TlsConfig::default().min_version;
    assert!(shakes_hands(by_default, &TLS13).await);
    assert!(!shakes_hands(by_default, &TLS12).await);
    assert!(shakes_hands(TlsVersion::V1_2, &TLS12).await);
    assert!(shakes_hands(TlsVersion::V1_2, &TLS13).await);
}

/// Closed and without limits, or open with limits: an answer shows which of its two halves it was made by.
fn rules(open: bool) -> Policy {
    if !open {
        return one_secret(Scope::Read, Anonymous::None);
    }
    let mut policy = Policy::default();
    policy.limits.global = Some("1000000/s".parse().unwrap());
    policy
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_change_under_load_are_the_old_ones_or_the_new_ones() {
    let server = Server::with_policy(rules(false)).await;
    let gateway = server.gateway.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let changes = zimcache_telemetry::task::spawn("changes", async move {
        let mut open = false;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            open = !open;
            gateway.set_policy(rules(open));
            tokio::task::yield_now().await;
        }
    });
    let path = format!("/cas/{}", sha256(b"x"));
    let mut client = server.connect().await;
    let mut seen = BTreeSet::new();
    let mut asked = 0;
    while asked < 2_000 || (seen.len() < 2 && asked < 200_000) {
        asked += 1;
        client.send(get(&path)).await;
        let reply = client.reply().await;
        seen.insert((reply.status, reply.header("ratelimit-limit").is_some()));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    within(changes).await.unwrap();
    assert_eq!(seen, BTreeSet::from([(401, false), (404, true)]));
}

#[tokio::test]
async fn options_is_answered_on_any_path_without_credentials() {
    let server = Server::with_policy(one_secret(Scope::Write, Anonymous::None)).await;
    for path in ["/artifacts/test123", "/cas/x", "/health", "/nobody's", "/"] {
        let reply = server.call("OPTIONS", path, &[], b"").await;
        assert_eq!(reply.status, 204, "{path}");
        assert!(reply.header("allow").unwrap().contains("GET"), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), None, "{path}");
    }
}
