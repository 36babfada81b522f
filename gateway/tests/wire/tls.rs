//! TLS on the port: HTTP/1.1 and HTTP/2 inside, certificates replaced while serving, plain HTTP told so.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zimcache_config::{GatewayConfig, TlsVersion};
use zimcache_gateway::{Gateway, Listener, Stores, Tls};
use zimcache_store::memory::MemoryStore;

use crate::support::{Client, get, put, sha256, within};

/// A certificate for this machine that signs itself.
struct Certificate {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Certificate {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Certificate {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    fn tls(&self) -> Tls {
        Tls::new(self.chain.as_bytes(), self.key.as_bytes(), TlsVersion::V1_3).unwrap()
    }
}

/// Starts a gateway that speaks TLS; it ends with the test's runtime.
async fn start(tls: Tls) -> SocketAddr {
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
    address
}

async fn connect(
    server: SocketAddr,
    trusted: &Certificate,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(server).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

async fn read_until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).contains(end) {
        let mut chunk = [0; 1024];
        let length = within(stream.read(&mut chunk)).await.unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&received).into_owned()
}

#[tokio::test]
async fn a_value_is_served_inside_tls() {
    let certificate = Certificate::new();
    let server = start(certificate.tls()).await;
    let mut stream = connect(server, &certificate, b"http/1.1").await.unwrap();
    let path = format!("/cas/{}", sha256(b"hello"));
    stream.write_all(&put(&path, b"hello")).await.unwrap();
    let stored = read_until(&mut stream, "\r\n\r\n").await;
    assert!(stored.starts_with("HTTP/1.1 200 OK\r\n"), "{stored}");
    stream.write_all(get(&path).as_bytes()).await.unwrap();
    let reply = read_until(&mut stream, "hello").await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn http_2_is_agreed_on_in_the_handshake() {
    let certificate = Certificate::new();
    let server = start(certificate.tls()).await;
    let mut stream = connect(server, &certificate, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frame = [0; 9];
    within(stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "the first frame is SETTINGS");
}

#[tokio::test]
async fn a_replaced_certificate_is_used_for_new_connections() {
    let (old, new) = (Certificate::new(), Certificate::new());
    let tls = old.tls();
    let server = start(tls.clone()).await;
    let mut kept = connect(server, &old, b"http/1.1").await.unwrap();
    tls.replace(new.chain.as_bytes(), new.key.as_bytes())
        .unwrap();
    connect(server, &new, b"http/1.1").await.unwrap();
    assert!(connect(server, &old, b"http/1.1").await.is_err());
    kept.write_all(get("/health").as_bytes()).await.unwrap();
    assert!(
        read_until(&mut kept, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_changes_nothing() {
    let (old, other) = (Certificate::new(), Certificate::new());
    let tls = old.tls();
    assert!(tls.replace(b"nonsense", old.key.as_bytes()).is_err());
    assert!(tls.replace(old.chain.as_bytes(), b"nonsense").is_err());
    assert!(
        tls.replace(old.chain.as_bytes(), other.key.as_bytes())
            .is_err()
    );
    let server = start(tls).await;
    connect(server, &old, b"http/1.1").await.unwrap();
}

#[tokio::test]
async fn plain_http_is_told_to_speak_tls() {
    let server = start(Certificate::new().tls()).await;
    let mut client = Client::connect(server).await;
    client.send(get("/health")).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 400);
    assert!(String::from_utf8_lossy(&reply.body).contains("https://"));
}
