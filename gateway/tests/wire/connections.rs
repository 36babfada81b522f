//! Connections: keep-alive, Expect, slow and silent peers, the cap, cut bodies, the drain.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use zimcache_config::GatewayConfig;

use crate::support::{Client, Server, get, put, sha256, within};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_mins(1);

/// All waits long, so that the one under test is the one that ends.
fn patient(config: &mut GatewayConfig) {
    config.first_byte_timeout = LONG;
    config.header_timeout = LONG;
    config.idle_timeout = LONG;
    config.body_timeout = LONG;
}

/// The connection ends without another byte, long before any other wait would have ended it.
async fn ends(client: &mut Client) {
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_silent_connection_is_closed_before_its_first_byte() {
    let server = Server::with(|config| {
        patient(config);
        config.first_byte_timeout = SHORT;
    })
    .await;
    let mut client = server.connect().await;
    ends(&mut client).await;
}

#[tokio::test]
async fn a_header_that_trickles_in_is_cut_off() {
    let server = Server::with(|config| {
        patient(config);
        config.header_timeout = SHORT;
    })
    .await;
    let mut client = server.connect().await;
    let mut pace = tokio::time::interval(SHORT / 4);
    let header = format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(1000));
    for byte in header.bytes() {
        pace.tick().await;
        // Fails once the server has had enough.
        if client.stream.write_all(&[byte]).await.is_err() {
            return;
        }
    }
    panic!("the server took a byte every {pace:?} for ever");
}

#[tokio::test]
async fn a_preface_that_never_ends_is_cut_off() {
    let server = Server::with(|config| {
        patient(config);
        config.header_timeout = SHORT;
    })
    .await;
    let mut client = server.connect().await;
    client.send("PRI * HTTP/2.0\r\n").await;
    ends(&mut client).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_between_requests() {
    let server = Server::with(|config| {
        patient(config);
        config.idle_timeout = SHORT;
    })
    .await;
    let mut client = server.connect().await;
    client.send(get("/health")).await;
    assert_eq!(client.reply().await.status, 200);
    ends(&mut client).await;
}

#[tokio::test]
async fn an_upload_that_pauses_is_408_and_leaves_nothing() {
    let server = Server::with(|config| {
        patient(config);
        config.body_timeout = SHORT;
    })
    .await;
    let body = vec![b'x'; 5000];
    let request = put(&format!("/cas/{}", sha256(&body)), &body);
    let mut client = server.connect().await;
    client.send(&request[..request.len() - 1]).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 408);
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn a_slow_upload_that_goes_on_is_not_cut() {
    const PAUSE: Duration = Duration::from_secs(2);
    let server = Server::with(|config| {
        patient(config);
        config.body_timeout = PAUSE;
    })
    .await;
    let body = vec![b'x'; 25];
    let request = put(&format!("/cas/{}", sha256(&body)), &body);
    let (head, body) = request.split_at(request.len() - body.len());
    let mut client = server.connect().await;
    client.send(head).await;
    let since = Instant::now();
    let mut pace = tokio::time::interval(PAUSE / 20);
    for byte in body {
        pace.tick().await;
        client.send([*byte]).await;
    }
    assert_eq!(client.reply().await.status, 200);
    assert!(since.elapsed() > PAUSE);
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off() {
    let server = Server::with(|config| {
        patient(config);
        config.body_timeout = SHORT;
    })
    .await;
    let body = vec![b'x'; 64 << 20];
    let path = server.stock(&body).await;
    let mut client = server.connect().await;
    client.send(get(&path)).await;
    let gauge = "zimcache_connections 1\n";
    within(async {
        while !server.get("/metrics").await.text().contains(gauge) {
            tokio::time::sleep(SHORT / 8).await;
        }
    })
    .await;
    assert!(client.rest().await.len() < body.len());
}

#[tokio::test]
async fn a_body_cut_short_leaves_nothing() {
    let server = Server::start().await;
    let body = vec![b'x'; 100_000];
    let request = put(&format!("/cas/{}", sha256(&body)), &body);
    for length in [
        request.len() - body.len(),
        request.len() / 2,
        request.len() - 1,
    ] {
        let mut client = server.connect().await;
        client.send(&request[..length]).await;
        client.stream.shutdown().await.unwrap();
        let answer = client.rest().await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn a_length_that_is_too_short_makes_the_digest_wrong_and_the_rest_a_bad_request() {
    let server = Server::start().await;
    let hash = sha256(b"hello");
    let request =
        format!("PUT /cas/{hash} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nhello");
    let mut client = server.connect().await;
    client.send(request).await;
    assert_eq!(client.reply().await.status, 400);
    client.stream.shutdown().await.unwrap();
    let rest = client.rest().await;
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 400"),
        "{rest}"
    );
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn expect_is_answered_100_only_when_the_body_is_wanted() {
    let server = Server::with(|config| config.max_blob_size.0 = 1000).await;
    let hash = sha256(b"hello");
    let ask = |method: &str, path: &str, length: usize| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let good = format!("/cas/{hash}");
    let mut client = server.connect().await;
    client.send(ask("PUT", &good, 5)).await;
    assert_eq!(client.reply().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.reply().await.status, 200);
    for (method, path, length, status) in [
        ("PUT", "/cas/nonsense", 5, 400),
        ("PUT", "/a%2fb/cas/x", 5, 400),
        ("PUT", &good[..], 1001, 413),
        ("PUT", "/nowhere", 5, 404),
        ("POST", &good[..], 5, 405),
        ("PUT", &format!("/ac/{hash}")[..], 1001, 413),
        ("PUT", "/ccache/nonsense", 5, 400),
    ] {
        let mut client = server.connect().await;
        client.send(ask(method, path, length)).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test]
async fn a_refused_client_that_is_still_sending_gets_to_read_why() {
    let server = Server::with(|config| config.max_blob_size.0 = 1000).await;
    let body = vec![b'x'; 4 << 20];
    let request = put(&format!("/cas/{}", sha256(&body)), &body);
    let mut client = server.connect().await;
    client.send(request).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_small_refused_body_leaves_the_connection_usable() {
    let server = Server::with(|config| config.max_blob_size.0 = 1000).await;
    let mut client = server.connect().await;
    client.send(put("/cas/nonsense", &[b'x'; 5000])).await;
    assert_eq!(client.reply().await.status, 400);
    client.send(get("/health")).await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn at_the_cap_the_longest_idle_connection_goes_and_the_new_one_is_served() {
    let server = Server::with(|config| config.max_connections = 3).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        client.send(get("/health")).await;
        assert_eq!(client.reply().await.status, 200);
        clients.push(client);
    }
    let mut newest = server.connect().await;
    newest.send(get("/health")).await;
    assert_eq!(newest.reply().await.status, 200);
    assert_eq!(clients[0].rest().await, "");
    for client in &mut clients[1..] {
        client.send(get("/health")).await;
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn silent_connections_at_the_cap_make_room() {
    let server = Server::with(|config| config.max_connections = 4).await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(server.connect().await);
    }
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_busy_connection_is_not_cut_for_a_new_one() {
    let server = Server::with(|config| config.max_connections = 2).await;
    let body = vec![b'x'; 5000];
    let request = put(&format!("/cas/{}", sha256(&body)), &body);
    let (first, second) = request.split_at(request.len() - 10);
    let mut busy = server.connect().await;
    busy.send(first).await;
    for _ in 0..6 {
        assert_eq!(server.get("/health").await.status, 200);
    }
    busy.send(second).await;
    assert_eq!(busy.reply().await.status, 200);
}

#[tokio::test]
async fn a_drain_lets_the_request_under_way_finish_and_closes_the_idle() {
    let mut server = Server::start().await;
    let body = vec![b'x'; 5000];
    let path = format!("/cas/{}", sha256(&body));
    let request = put(&path, &body);
    let (first, second) = request.split_at(request.len() - 10);
    let mut idle = server.connect().await;
    idle.send(get("/health")).await;
    assert_eq!(idle.reply().await.status, 200);
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.send(first).await;
    busy_is_seen(&server).await;
    server.stop();
    assert_eq!(idle.rest().await, "");
    assert_eq!(silent.rest().await, "");
    busy.send(second).await;
    let reply = busy.reply().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(busy.rest().await, "");
    let address = server.address;
    let report = server.finish().await;
    assert_eq!(report.cut, 0);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// Waits until three connections are open, which the watched one is the last of.
async fn busy_is_seen(server: &Server) {
    within(async {
        loop {
            let page = server.get("/metrics").await.text();
            if page.contains("zimcache_connections 4") {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_finish_in_time() {
    let mut server = Server::with(|config| config.drain_timeout = SHORT).await;
    let body = vec![b'x'; 5000];
    let request = put(&format!("/cas/{}", sha256(&body)), &body);
    let mut stuck = server.connect().await;
    stuck.send(&request[..request.len() - 10]).await;
    let mut probe = server.connect().await;
    probe.send(get("/health")).await;
    assert_eq!(probe.reply().await.status, 200);
    let since = Instant::now();
    server.stop();
    let store = server.store.clone();
    let report = server.finish().await;
    assert_eq!(report.cut, 1);
    assert!(since.elapsed() < LONG);
    assert_eq!(stuck.rest().await, "");
    assert!(store.blob_names().is_empty());
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    use tokio::io::AsyncReadExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zimcache.sock");
    let store = zimcache_store::memory::MemoryStore::default();
    let stores = zimcache_gateway::Stores {
        blobs: std::sync::Arc::new(store.clone()),
        entries: std::sync::Arc::new(store.clone()),
        admin: std::sync::Arc::new(store),
    };
    let gateway = zimcache_gateway::Gateway::new(GatewayConfig::default(), stores);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = zimcache_telemetry::task::spawn("gateway", async move {
        let shutdown = async move { drop(stopped.await) };
        gateway.serve(vec![listener.into()], shutdown).await
    });
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = "POST /api/v1/gc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stop);
    within(serving).await.unwrap();
}
