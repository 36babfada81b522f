//! A gateway to talk to, a client that speaks bytes, and stores that fail.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use zimcache_auth::{Authenticator, Grant, Scope, Sources, TokenFile, TokenSpec};
use zimcache_config::GatewayConfig;
use zimcache_gateway::{DrainReport, Gateway, Policy, Stores};
use zimcache_store::{
    BlobStore, BlobWriter, ByteRange, CreateOptions, Entry, EntryInfo, EntryMeta, EntryStore,
    EntryWriter, Error, Precondition, Reader, Result, Touch, memory::MemoryStore,
};
use zimcache_types::{Digest, EntryKey, EntryKind, Function, Namespace, SystemClock};

/// Longest that any single wait of a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway over a store in RAM.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) store: MemoryStore,
    pub(crate) gateway: Gateway,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<DrainReport>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(|_| {}).await
    }

    /// A server whose settings were changed.
    pub(crate) async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Server {
        let store = MemoryStore::default();
        Server::over(Arc::new(store.clone()), store, change).await
    }

    /// A server whose blobs are in another store.
    pub(crate) async fn over(
        blobs: Arc<dyn BlobStore>,
        store: MemoryStore,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Server {
        let stores = Stores {
            blobs,
            entries: Arc::new(store.clone()),
            admin: Arc::new(store.clone()),
        };
        Server::of(stores, store, Policy::default(), change).await
    }

    /// A server that knows callers and limits.
    pub(crate) async fn with_policy(policy: Policy) -> Server {
        Server::with_both(policy, |_| {}).await
    }

    /// A server with rules and changed settings.
    pub(crate) async fn with_both(
        policy: Policy,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Server {
        let store = MemoryStore::default();
        let shared = Arc::new(store.clone());
        let stores = Stores {
            blobs: shared.clone(),
            entries: shared.clone(),
            admin: shared,
        };
        Server::of(stores, store, policy, change).await
    }

    /// A server where every store fails like this.
    pub(crate) async fn failing(failure: Failure) -> Server {
        let store = MemoryStore::default();
        let stores = Stores {
            blobs: Arc::new(Failing(failure)),
            entries: Arc::new(Failing(failure)),
            admin: Arc::new(store.clone()),
        };
        Server::of(stores, store, Policy::default(), |_| {}).await
    }

    /// A server over any stores.
    pub(crate) async fn of(
        stores: Stores,
        store: MemoryStore,
        policy: Policy,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Server {
        let mut config = GatewayConfig::default();
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let gateway = Gateway::new(config, stores);
        gateway.set_policy(policy);
        let served = gateway.clone();
        let serving = zimcache_telemetry::task::spawn("gateway", async move {
            let shutdown = async move { drop(stopped.await) };
            served.serve(vec![listener.into()], shutdown).await
        });
        Server {
            address,
            store,
            gateway,
            stop: Some(stop),
            serving,
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(get(path)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.ask(put(path, body)).await
    }

    /// Sends one request of any method on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Reply {
        let mut client = self.connect().await;
        client.send(request(method, path, headers, body)).await;
        client.reply_to(method).await
    }

    /// Puts a blob straight into the store, and gives its path.
    pub(crate) async fn stock(&self, body: &[u8]) -> String {
        let digest = Digest::of(Function::Sha256, body);
        let namespace = Namespace::default();
        let created = self
            .store
            .create(&namespace, &digest, CreateOptions::default());
        let mut writer = created.await.unwrap();
        writer.write(Bytes::copy_from_slice(body)).await.unwrap();
        writer.commit().await.unwrap();
        format!("/cas/{}", digest.hash)
    }

    /// Begins to drain.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Drains and waits for the end.
    pub(crate) async fn finish(mut self) -> DrainReport {
        self.stop();
        within(self.serving).await.unwrap()
    }
}

/// Secrets of three tokens for one namespace.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) read: String,
    pub(crate) write: String,
    pub(crate) admin: String,
}

/// A policy that knows three tokens for a namespace and nobody else.
pub(crate) fn guarded(namespace: &str) -> (Policy, Tokens) {
    let mut file = TokenFile::default();
    let mut create = |scope| {
        let namespace = namespace.parse().unwrap();
        let spec = TokenSpec {
            grant: Grant { namespace, scope },
            lifetime: None,
            note: String::new(),
        };
        let (token, _) = file.create(spec, &SystemClock).unwrap();
        token.expose().to_owned()
    };
    let tokens = Tokens {
        read: create(Scope::Read),
        write: create(Scope::Write),
        admin: create(Scope::Admin),
    };
    let policy = Policy {
        authenticator: Authenticator::new(Sources {
            tokens: Some(file),
            ..Sources::default()
        }),
        ..Policy::default()
    };
    (policy, tokens)
}

/// A request of any method: header lines without line ends, and a body whose length is told.
pub(crate) fn request(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
    for line in headers {
        head.push_str(line);
        head.push_str("\r\n");
    }
    let length = body.len();
    head.extend(["Content-Length: ", &length.to_string(), "\r\n\r\n"]);
    [head.as_bytes(), body].concat()
}

/// A GET request.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A PUT request.
pub(crate) fn put(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// SHA-256 of a body as hex.
pub(crate) fn sha256(body: &[u8]) -> String {
    Digest::of(Function::Sha256, body).hash.to_hex()
}

/// Bytes of a connection, no client library between.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        let stream = within(TcpStream::connect(address)).await.unwrap();
        Client {
            stream,
            received: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The next answer.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// The next answer to a request with this method.
    pub(crate) async fn reply_to(&mut self, method: &str) -> Reply {
        let head_end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "closed in a header: {}", self.text());
        };
        let head = String::from_utf8(self.received.drain(..head_end).collect()).unwrap();
        let mut reply = Reply::parse(&head);
        let bodiless = method == "HEAD" || matches!(reply.status, 100 | 204 | 304);
        if bodiless {
            return reply;
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = self.chunked().await;
            return reply;
        }
        let length: usize = reply.header("content-length").unwrap().parse().unwrap();
        while self.received.len() < length {
            assert!(self.more().await, "closed in a body: {}", self.text());
        }
        reply.body = self.received.drain(..length).collect();
        reply
    }

    async fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = find(&self.received, b"\r\n") {
                    break at;
                }
                assert!(self.more().await, "closed in a chunk");
            };
            let line = String::from_utf8(self.received.drain(..line_end + 2).collect()).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            while self.received.len() < length + 2 {
                assert!(self.more().await, "closed in a chunk");
            }
            body.extend(self.received.drain(..length + 2).take(length));
            if length == 0 {
                return body;
            }
        }
    }

    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 8192];
        let n = within(self.stream.read(&mut chunk)).await.unwrap_or(0);
        self.received.extend_from_slice(&chunk[..n]);
        n > 0
    }

    /// Everything until the other side closes.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        self.text()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// Fails a test that waits for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("took too long")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn parse(head: &str) -> Reply {
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply {
            status,
            head: head.to_owned(),
            body: Vec::new(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut pairs = lines.filter_map(|line| line.split_once(": "));
        pairs
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How a [`Failing`] store fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    Disk,
    Full,
    Corrupt,
}

/// A store where everything fails.
#[derive(Debug)]
pub(crate) struct Failing(pub Failure);

impl Failing {
    fn fail<T>(&self) -> Result<T> {
        Err(match self.0 {
            Failure::Disk => Error::disk("read", std::io::Error::other("sector 17")),
            Failure::Full => Error::OutOfSpace("the disk is full"),
            Failure::Corrupt => Error::Corrupt("checksum"),
        })
    }
}

#[async_trait]
impl BlobStore for Failing {
    async fn open(&self, _: &Namespace, _: &Digest, _: ByteRange) -> Result<Option<Reader>> {
        self.fail()
    }

    async fn create(
        &self,
        _: &Namespace,
        _: &Digest,
        _: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>> {
        self.fail()
    }

    async fn missing(&self, _: &Namespace, _: &[Digest], _: Touch) -> Result<Vec<bool>> {
        self.fail()
    }

    async fn delete(&self, _: &Namespace, _: &Digest) -> Result<bool> {
        self.fail()
    }
}

#[async_trait]
impl EntryStore for Failing {
    async fn get(&self, _: &EntryKey, _: ByteRange) -> Result<Option<Entry>> {
        self.fail()
    }

    async fn put(
        &self,
        _: &EntryKey,
        _: EntryMeta,
        _: Precondition,
        _: Option<u64>,
    ) -> Result<Box<dyn EntryWriter>> {
        self.fail()
    }

    async fn delete(&self, _: &EntryKey) -> Result<bool> {
        self.fail()
    }

    async fn list(
        &self,
        _: &Namespace,
        _: EntryKind,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<EntryInfo>> {
        self.fail()
    }

    async fn purge(&self, _: &Namespace) -> Result<()> {
        self.fail()
    }
}
