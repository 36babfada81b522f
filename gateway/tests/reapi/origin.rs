//! A server that the gateway fetches from: HTTP/1.1 over bare sockets, one request per connection, so that a test says
//! byte for byte what is answered and sees byte for byte what was asked.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};

/// What an origin does with a request.
type Answer = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

/// A server to fetch from.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Origin {
    /// A server that answers each path so.
    pub(crate) async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        Origin::waiting(move |path| {
            let bytes = answer(path);
            Box::pin(std::future::ready(bytes))
        })
        .await
    }

    /// A server whose answers may take their time.
    pub(crate) async fn waiting(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::default();
        let answer = Arc::new(answer);
        let seen = Arc::clone(&heads);
        let serving = zimcache_telemetry::task::spawn("origin", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                zimcache_telemetry::task::spawn("origin connection", async move {
                    serve(stream, &*answer, &seen).await;
                });
            }
        });
        Origin {
            address,
            heads,
            serving,
        }
    }

    /// The URL of a path here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests so far.
    pub(crate) async fn heads(&self) -> Vec<String> {
        self.heads.lock().await.clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&str) -> Answer + Send + Sync),
    heads: &Mutex<Vec<String>>,
) {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while !received.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => received.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8(received).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().await.push(head);
    let bytes = answer(&path).await;
    // Whoever asked may have hung up.
    if stream.write_all(&bytes).await.is_ok() {
        stream.shutdown().await.ok();
    }
}

/// A whole answer.
pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A whole answer whose length is not told beforehand.
pub(crate) fn chunked(body: &[u8]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(64 << 10) {
        answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer
}

/// An answer without a body.
pub(crate) fn status(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// A redirect.
pub(crate) fn redirect(location: &str) -> Vec<u8> {
    let head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n";
    format!("{head}Location: {location}\r\n\r\n").into_bytes()
}
