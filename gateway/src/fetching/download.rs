//! One download: asked for, redirected, and its body as it arrives.
//!
//! Invariants: every hop is judged anew, by the allow-list and by its addresses; headers that the client gave are sent
//! to the server that they were given for and to no other; nothing of ours is sent along, no cookie, no credential. A
//! body comes as it is: an answer in a coding that was not asked for is refused.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{task::JoinHandle, time::timeout};
use zimcache_config::AssetsConfig;
use zimcache_telemetry::task;

use super::{Failure, connect::Connector, target::Target};
use crate::{Error, body::Body, cache::Chunks, error::Result as Taken};

/// Most redirects that are followed.
const MOST_REDIRECTS: usize = 5;
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("zimcache/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Whether a client may have this header sent: none that frames the request, names another host, or changes which bytes
/// come back.
pub(crate) fn may_be_sent(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 12] = [
        header::ACCEPT_ENCODING,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::IF_RANGE,
        header::RANGE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::FORWARDED,
    ];
    let text = name.as_str();
    let prefixes = ["if-", "proxy-", "x-forwarded-", "keep-alive"];
    !OURS.contains(name) && !prefixes.iter().any(|prefix| text.starts_with(prefix))
}

/// A body that is arriving.
#[derive(Debug)]
pub(super) struct Download {
    body: Incoming,
    _connection: Connection,
    idle: Duration,
    length: Option<u64>,
    taken: u64,
    /// Why it broke off.
    failure: Option<Failure>,
}

/// The task of a connection; it ends with its download.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Download {
    /// Asks for a URL and follows redirects until there is an answer.
    pub(super) async fn begin(
        connector: &Connector,
        rules: &AssetsConfig,
        first: &Target,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Download, Failure> {
        let mut target = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            if !target.is_allowed(rules) {
                return Err(Failure::NotAllowed);
            }
            let own = if target.has_origin_of(first) {
                headers
            } else {
                &[]
            };
            let (response, connection) = ask(connector, rules, &target, own).await?;
            match response.status() {
                StatusCode::OK => {
                    return Download::of(response, connection, connector.patience.idle);
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(header::LOCATION);
                    let location = location.and_then(|value| value.to_str().ok());
                    let next = location.and_then(|location| target.follow(location));
                    target = next.ok_or(Failure::BadRedirect)?;
                }
                status => return Err(Failure::Status(status)),
            }
        }
        Err(Failure::BadRedirect)
    }

    fn of(
        response: Response<Incoming>,
        connection: Connection,
        idle: Duration,
    ) -> Result<Download, Failure> {
        let coding = response.headers().get(header::CONTENT_ENCODING);
        if coding.is_some_and(|coding| coding != IDENTITY) {
            return Err(Failure::Encoded);
        }
        let body = response.into_body();
        Ok(Download {
            length: body.size_hint().exact(),
            body,
            _connection: connection,
            idle,
            taken: 0,
            failure: None,
        })
    }

    /// How much has arrived.
    pub(super) const fn taken_bytes(&self) -> u64 {
        self.taken
    }

    /// Size of the whole body, where its server told it.
    pub(super) const fn length(&self) -> Option<u64> {
        self.length
    }

    /// Why it broke off, if it did.
    pub(super) fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next_bytes(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let frame = match timeout(self.idle, frame).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "a download broke off");
                    return Some(Err(Failure::BrokenOff));
                }
                Err(_) => return Some(Err(Failure::Silent)),
            };
            // Trailers carry nothing that we use.
            if let Ok(bytes) = frame.into_data() {
                self.taken += bytes.len() as u64;
                return Some(Ok(bytes));
            }
        }
    }
}

impl Chunks for Download {
    async fn next(&mut self) -> Option<Taken<Bytes>> {
        match self.next_bytes().await? {
            Ok(bytes) => Some(Ok(bytes)),
            Err(failure) => {
                self.failure = Some(failure);
                Some(Err(Error::BodyCut))
            }
        }
    }

    fn announced_bytes(&self) -> Option<u64> {
        self.length
    }
}

async fn ask(
    connector: &Connector,
    rules: &AssetsConfig,
    target: &Target,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<(Response<Incoming>, Connection), Failure> {
    let stream = connector.connect(target, rules.fetch_private).await?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|_| Failure::BrokenOff)?;
    let driven = async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to fetch from failed");
        }
    };
    let connection = Connection(task::spawn("origin", driven));
    let sent = sender.send_request(request(target, headers)?);
    let answered = timeout(connector.patience.idle, sent).await;
    let response = answered.map_err(|_| Failure::Silent)?;
    let response = response.map_err(|error| {
        tracing::debug!(%error, server = %target, "a server gave no answer");
        Failure::BrokenOff
    })?;
    Ok((response, connection))
}

fn request(
    target: &Target,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Request<Body>, Failure> {
    let mut all = HeaderMap::new();
    let host = HeaderValue::try_from(target.authority()).map_err(|_| Failure::Unreachable)?;
    all.insert(header::HOST, host);
    all.insert(header::USER_AGENT, USER_AGENT);
    all.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    all.insert(header::ACCEPT_ENCODING, IDENTITY);
    for (name, value) in headers {
        all.insert(name, value.clone());
    }
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = target.path.clone().into();
    *request.headers_mut() = all;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::{super::connect::System, *};

    /// What becomes of a download whose server sends this and then nothing more.
    async fn stalled(sent: &'static [u8]) -> Option<Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serving = task::spawn("origin", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(sent).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        let rules = AssetsConfig {
            fetch_from: vec![url.parse().unwrap()],
            fetch_private: true,
        };
        let target = Target::parse(&url).unwrap();
        let connector = Connector::new(System).impatient();
        let begun = Download::begin(&connector, &rules, &target, &[]).await;
        let failure = match begun {
            Ok(mut download) => loop {
                match download.next_bytes().await {
                    Some(Ok(_)) => {}
                    Some(Err(failure)) => break Some(failure),
                    None => break None,
                }
            },
            Err(failure) => Some(failure),
        };
        serving.await.unwrap();
        failure
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_is_given_up() {
        for sent in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        ] {
            assert_eq!(stalled(sent).await, Some(Failure::Silent));
        }
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
        assert_eq!(stalled(whole).await, None);
    }

    #[test]
    fn headers_that_frame_or_redirect_a_request_are_ours() {
        for name in [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "range",
            "if-none-match",
            "proxy-authorization",
            "x-forwarded-for",
            "accept-encoding",
        ] {
            assert!(!may_be_sent(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "authorization",
            "accept",
            "user-agent",
            "x-auth-token",
            "cookie",
        ] {
            assert!(may_be_sent(&HeaderName::from_static(name)), "{name}");
        }
    }
}
