//! HTTP/2 with prior knowledge on the same port.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Server, get, sha256, within};

type Sender = http2::SendRequest<Full<Bytes>>;

async fn connect(server: &Server) -> Sender {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    zimcache_telemetry::task::spawn("client", connection);
    sender
}

async fn ask(sender: &mut Sender, method: &str, path: &str, body: &[u8]) -> (StatusCode, Bytes) {
    try_to_ask(sender, method, path, body).await.unwrap()
}

/// Fails when no answer begins.
async fn try_to_ask(
    sender: &mut Sender,
    method: &str,
    path: &str,
    body: &[u8],
) -> hyper::Result<(StatusCode, Bytes)> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://test{path}"))
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap();
    let response = within(sender.send_request(request)).await?;
    let (head, body) = response.into_parts();
    if head.status == StatusCode::NOT_FOUND {
        assert_eq!(head.headers["content-length"], "0");
    }
    let body = within(body.collect()).await.unwrap();
    Ok((head.status, body.to_bytes()))
}

#[tokio::test]
async fn the_same_port_speaks_both() {
    let server = Server::start().await;
    let body = vec![b'x'; 3 << 20];
    let path = format!("/cas/{}", sha256(&body));
    let mut sender = connect(&server).await;
    assert_eq!(
        ask(&mut sender, "GET", &path, b"").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ask(&mut sender, "PUT", &path, &body).await.0,
        StatusCode::OK
    );
    assert_eq!(server.get(&path).await.body, body);
    let (status, got) = ask(&mut sender, "GET", &path, b"").await;
    assert_eq!((status, got.as_ref()), (StatusCode::OK, &body[..]));
    assert_eq!(
        ask(&mut sender, "PUT", &path, b"wrong").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        ask(&mut sender, "DELETE", &path, b"").await.0,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn many_streams_run_at_once() {
    let server = Server::start().await;
    let sender = connect(&server).await;
    let mut tasks = Vec::new();
    for index in 0_u32..200 {
        let mut sender = sender.clone();
        tasks.push(zimcache_telemetry::task::spawn("stream", async move {
            let body = index.to_be_bytes().repeat(1000);
            let path = format!("/cas/{}", sha256(&body));
            assert_eq!(
                ask(&mut sender, "PUT", &path, &body).await.0,
                StatusCode::OK
            );
            assert_eq!(ask(&mut sender, "GET", &path, b"").await.1, body);
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    assert_eq!(server.store.blob_names().len(), 200);
}

#[tokio::test]
async fn a_drain_says_goodbye_to_http2_too() {
    let mut server = Server::start().await;
    let mut sender = connect(&server).await;
    assert_eq!(
        ask(&mut sender, "GET", "/health", b"").await.0,
        StatusCode::OK
    );
    server.stop();
    let report = server.finish().await;
    assert_eq!(report.cut, 0);
    within(async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_although_it_pings() {
    let server = Server::with(|config| {
        config.header_timeout = Duration::from_millis(200);
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    stream.write_all(&ping).await.unwrap();
    let mut scrap = Vec::new();
    within(stream.read_to_end(&mut scrap)).await.unwrap();
}

/// A connection that speaks frames.
async fn frames(server: &Server, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    stream.write_all(preface).await.unwrap();
    stream.write_all(&frame(4, 0, 0, settings)).await.unwrap();
    stream
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

/// HEADERS of a whole GET request: pseudo headers and more, each as a literal.
fn get_frame(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let literal = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        [&[length][..], text.as_bytes()].concat()
    };
    let mut block = vec![0x82, 0x86, 0x04];
    block.extend(literal(path));
    block.push(0x01);
    block.extend(literal("test"));
    for (name, value) in more {
        block.push(0x00);
        block.extend(literal(name));
        block.extend(literal(value));
    }
    frame(1, 0x05, 1, &block)
}

/// The kinds of the frames that come for the stream, until one ends it or the connection.
async fn kinds_received(stream: &mut TcpStream) -> Vec<u8> {
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        if within(stream.read_exact(&mut head)).await.is_err() {
            return kinds;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        within(stream.read_exact(&mut payload)).await.unwrap();
        kinds.push(head[3]);
        let ends_stream = matches!(head[3], 0 | 1) && head[4] & 1 == 1;
        if ends_stream || matches!(head[3], 3 | 7) {
            return kinds;
        }
    }
}

#[tokio::test]
async fn headers_that_belong_to_http1_or_hide_a_line_end_are_refused() {
    const HEADERS: u8 = 1;
    let server = Server::start().await;
    let mut honest = frames(&server, &[]).await;
    honest
        .write_all(&get_frame("/health", &[("x", "y")]))
        .await
        .unwrap();
    assert!(kinds_received(&mut honest).await.contains(&HEADERS));
    for bad in [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("te", "gzip"),
        ("X-Upper", "y"),
        ("x", "a\r\nb: c"),
        ("x\r\n", "y"),
        ("x", "a\0b"),
        (":path", "/again"),
    ] {
        let mut stream = frames(&server, &[]).await;
        stream
            .write_all(&get_frame("/health", &[bad]))
            .await
            .unwrap();
        let kinds = kinds_received(&mut stream).await;
        assert!(!kinds.contains(&HEADERS), "{bad:?} {kinds:?}");
    }
    assert_eq!(server.get("/health").await.status, 200);
}

/// A stream whose client never opens its window holds a connection no longer than a body may pause.
#[tokio::test]
async fn a_stream_that_is_not_read_ends_its_connection() {
    let server = Server::with(|config| {
        config.body_timeout = Duration::from_millis(200);
    })
    .await;
    let body = vec![b'x'; 1 << 20];
    let path = server.stock(&body).await;
    // An initial window of zero: nothing of a body may be sent.
    let mut stream = frames(&server, &[0, 4, 0, 0, 0, 0]).await;
    stream.write_all(&get_frame(&path, &[])).await.unwrap();
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received)).await.ok();
    assert!(received.len() < body.len());
    assert_eq!(server.ask(get("/health")).await.status, 200);
}

#[tokio::test]
async fn an_old_connection_ends_and_no_call_on_it_fails() {
    let age = Duration::from_secs(1);
    let server = Server::with(|config| config.max_connection_age = Some(age)).await;
    let body = vec![b'x'; 300_000];
    let path = format!("/cas/{}", sha256(&body));
    let mut sender = connect(&server).await;
    assert_eq!(
        ask(&mut sender, "PUT", &path, &body).await.0,
        StatusCode::OK
    );
    let since = std::time::Instant::now();
    let mut calls = 0;
    within(async {
        // A connection that takes no new call was said goodbye to; whatever was sent before is answered.
        while sender.ready().await.is_ok() {
            match try_to_ask(&mut sender, "GET", &path, b"").await {
                Ok((status, got)) => {
                    assert_eq!((status, got.len()), (StatusCode::OK, body.len()));
                    calls += 1;
                }
                // The goodbye came after the look: the call was never sent.
                Err(error) => assert!(error.is_canceled(), "{error:?}"),
            }
        }
    })
    .await;
    assert!(calls > 0 && since.elapsed() > age / 2, "{calls} calls");
    let mut sender = connect(&server).await;
    assert_eq!(ask(&mut sender, "GET", &path, b"").await.0, StatusCode::OK);
}
