//! A running server, as seen from a command: HTTP/1.1 requests in clear or over TLS, with the user's token; gRPC where a
//! build tool speaks it.
//!
//! Invariants: answers that are taken whole are bounded; a status that was not asked for is a failure that says what to
//! do, with the server's own words; nothing waits for ever on a server that went silent while it sends a body; the
//! token is sent to the URL's server alone, redirects are not followed.

mod calls;
mod outgoing;
mod tls;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    runtime::{self, Runtime},
    time::timeout,
};
use zimcache_types::Namespace;

pub(crate) use self::{calls::Called, outgoing::Outgoing};
use crate::{
    error::{Error, Result},
    settings::Endpoint,
};

/// Most bytes of an answer, or of one line of it, that are taken.
const ANSWER_BYTES: usize = 4 << 20;
/// How long a body may pause between two pieces.
const STALL: Duration = Duration::from_mins(1);

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// A server by its URL.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    /// What stands before a path to be in the namespace: empty, or `/ns/NAME`.
    room: String,
    credentials: Option<HeaderValue>,
    runtime: Runtime,
    client: Client<HttpsConnector<HttpConnector>, Outgoing>,
}

/// A whole answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Server {
    /// A server at a URL such as `https://cache.example`; nothing is sent yet.
    pub(crate) fn at(endpoint: &Endpoint) -> Result<Server> {
        Server::speaking(endpoint, Version::Http1)
    }

    /// The same over HTTP/2 without asking first, as gRPC wants it.
    pub(crate) fn over_http2(endpoint: &Endpoint) -> Result<Server> {
        Server::speaking(endpoint, Version::Http2)
    }

    fn speaking(endpoint: &Endpoint, version: Version) -> Result<Server> {
        let uri = parse_url(&endpoint.url)?;
        let is_https = uri.scheme_str() == Some("https");
        let connector = tls::connector(is_https, endpoint.ca.as_deref(), version)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let token = endpoint.token.as_ref();
        let credentials =
            token.map(|token| HeaderValue::try_from(format!("Bearer {}", token.reveal())));
        let mut credentials = credentials.transpose().map_err(|_| Error::TokenText)?;
        if let Some(value) = &mut credentials {
            value.set_sensitive(true);
        }
        let namespace = endpoint.namespace.as_ref();
        Ok(Server {
            url: endpoint.url.trim_end_matches('/').to_owned(),
            room: namespace.map(room_of).unwrap_or_default(),
            credentials,
            runtime: runtime.map_err(Error::Runtime)?,
            client: Client::builder(TokioExecutor::new())
                .http2_only(version == Version::Http2)
                .build(connector),
        })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A path inside the namespace of the settings.
    pub(crate) fn in_room(&self, path: &str) -> String {
        format!("{}{path}", self.room)
    }

    /// The body of a GET.
    pub(crate) fn get(&self, path: &str) -> Result<Bytes> {
        self.whole(Method::GET, path, Bytes::new())
    }

    /// The body of a GET that must be there in time.
    pub(crate) fn get_within(&self, path: &str, limit: Duration) -> Result<Bytes> {
        let request = self.request(Method::GET, path, Outgoing::bytes(Bytes::new()))?;
        let answered = self
            .runtime
            .block_on(async { timeout(limit, async { self.accepted(request).await }).await });
        let answer = answered.unwrap_or_else(|_| Err(Error::Silent(self.url.clone())))?;
        Ok(answer.body)
    }

    /// The body that answers a POST of JSON.
    pub(crate) fn post(&self, path: &str, json: Bytes) -> Result<Bytes> {
        self.whole(Method::POST, path, json)
    }

    /// The body that answers a DELETE.
    pub(crate) fn delete(&self, path: &str) -> Result<Bytes> {
        self.whole(Method::DELETE, path, Bytes::new())
    }

    /// Sends a body with PUT.
    pub(crate) fn put(&self, path: &str, body: Outgoing) -> Result<()> {
        let request = self.request(Method::PUT, path, body)?;
        self.runtime.block_on(self.accepted(request)).map(drop)
    }

    /// Whatever answers a request, failures by status included.
    pub(crate) fn exchange(&self, request: Request<Outgoing>) -> Result<Answer> {
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            self.whole_answer(response).await
        })
    }

    /// A request with the caller's credentials, to be completed.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: Outgoing,
    ) -> Result<Request<Outgoing>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(
                header::USER_AGENT,
                concat!("zim/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(credentials) = &self.credentials {
            request = request.header(header::AUTHORIZATION, credentials);
        }
        request.body(body).map_err(|_| self.bad_url())
    }

    /// Begins a download from an offset on.
    pub(crate) fn download(&self, path: &str, offset: u64) -> Result<Download<'_>> {
        let mut request = self.request(Method::GET, path, Outgoing::bytes(Bytes::new()))?;
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"));
            request
                .headers_mut()
                .insert(header::RANGE, range.map_err(|_| self.bad_url())?);
        }
        let response = self.runtime.block_on(async {
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::OK
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
                _ => Err(self.refusal(&self.whole_answer(response).await?)),
            }
        })?;
        let (head, body) = response.into_parts();
        Ok(Download {
            server: self,
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    /// Hands every line that answers an empty POST to `on_line`, as it arrives.
    pub(crate) fn post_lines(
        &self,
        path: &str,
        mut on_line: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let request = self.request(Method::POST, path, Outgoing::bytes(Bytes::new()))?;
        self.runtime.block_on(async {
            let response = self.send(request).await?;
            if response.status() != StatusCode::OK {
                return Err(self.refusal(&self.whole_answer(response).await?));
            }
            let mut body = response.into_body();
            let mut pending = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.broken_off(error.into()))?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                pending.extend_from_slice(&data);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    on_line(pending.split_to(end + 1).trim_ascii())?;
                }
                if pending.len() > ANSWER_BYTES {
                    return Err(Error::Answer("a line of it is too long".to_owned()));
                }
            }
            match pending.trim_ascii() {
                b"" => Ok(()),
                rest => on_line(rest),
            }
        })
    }

    fn whole(&self, method: Method, path: &str, json: Bytes) -> Result<Bytes> {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        let mut request = self.request(method, path, Outgoing::bytes(json))?;
        request.headers_mut().insert(header::CONTENT_TYPE, JSON);
        let answer = self.runtime.block_on(self.accepted(request))?;
        Ok(answer.body)
    }

    async fn accepted(&self, request: Request<Outgoing>) -> Result<Answer> {
        let response = self.send(request).await?;
        let answer = self.whole_answer(response).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(self.refusal(&answer))
    }

    async fn send(&self, request: Request<Outgoing>) -> Result<Response<Incoming>> {
        let response = self.client.request(request).await;
        response.map_err(|error| {
            let (url, is_connect) = (self.url.clone(), error.is_connect());
            let source: Box<dyn std::error::Error + Send + Sync> = error.into();
            if !is_connect {
                self.broken_off(source)
            } else if tls::is_refusal(&*source) {
                Error::Untrusted { url, source }
            } else {
                Error::Unreachable { url, source }
            }
        })
    }

    async fn whole_answer(&self, response: Response<Incoming>) -> Result<Answer> {
        let (head, body) = response.into_parts();
        let collected = timeout(STALL, Limited::new(body, ANSWER_BYTES).collect()).await;
        let collected = collected.map_err(|_| Error::Silent(self.url.clone()))?;
        Ok(Answer {
            status: head.status,
            body: collected
                .map_err(|error| self.broken_off(error))?
                .to_bytes(),
        })
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let url = self.url.clone();
        let text = words(&answer.body);
        match answer.status {
            StatusCode::UNAUTHORIZED if self.credentials.is_some() => Error::WrongToken { url },
            StatusCode::UNAUTHORIZED => Error::NoToken { url },
            StatusCode::FORBIDDEN => Error::Forbidden { url, text },
            StatusCode::NOT_FOUND => Error::NotThere { url },
            status => Error::Refused { status, text },
        }
    }

    /// A status that a check did not want; wrong credentials are told as such.
    pub(crate) fn unexpected(&self, what: String, answer: &Answer) -> Error {
        if answer.status == StatusCode::UNAUTHORIZED {
            return self.refusal(answer);
        }
        let text = words(&answer.body);
        Error::Check(
            format!("{what} was answered {}: {text}", answer.status)
                .trim_end_matches([' ', ':'])
                .to_owned(),
        )
    }

    fn bad_url(&self) -> Error {
        Error::Url {
            url: self.url.clone(),
        }
    }

    fn broken_off(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::BrokenOff {
            url: self.url.clone(),
            source,
        }
    }
}

/// An answer whose body arrives in pieces.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    server: &'a Server,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
}

impl Download<'_> {
    /// The next piece; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        let server = self.server;
        server.runtime.block_on(async {
            loop {
                let frame = timeout(STALL, self.body.frame()).await;
                let frame = frame.map_err(|_| Error::Silent(server.url.clone()))?;
                let Some(frame) = frame else { return Ok(None) };
                let frame = frame.map_err(|error| server.broken_off(error.into()))?;
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        })
    }

    /// Bytes that are still to come, where the server said so.
    pub(crate) fn length(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.body).exact()
    }
}

/// What stands before a path to be in the namespace.
pub(crate) fn room_of(namespace: &Namespace) -> String {
    format!("/ns/{}", namespace.as_str().replace('/', "%2F"))
}

/// Refuses what cannot be the URL of a server.
pub(crate) fn check_url(url: &str) -> Result<()> {
    parse_url(url).map(drop)
}

/// Whether somebody on the way could read a token.
pub(crate) fn is_in_clear(url: &str) -> bool {
    let Ok(uri) = parse_url(url) else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    uri.scheme_str() == Some("http") && !is_local
}

fn parse_url(url: &str) -> Result<Uri> {
    let refused = || Error::Url {
        url: url.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().ok_or_else(refused)?;
    if !is_http || uri.query().is_some() {
        return Err(refused());
    }
    if authority.as_str().contains('@') {
        return Err(Error::UrlWithPassword);
    }
    Ok(uri)
}

/// What an error's body says: its text, or the message in its JSON.
fn words(body: &[u8]) -> String {
    const LONGEST: usize = 500;
    let text = String::from_utf8_lossy(body);
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let error = parsed.as_ref().and_then(|value| value.get("error"));
    let message = error.and_then(|error| error.get("message").unwrap_or(error).as_str());
    let text = message.unwrap_or(&text).trim();
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Result<Server> {
        Server::at(&Endpoint {
            url: url.to_owned(),
            ..Endpoint::default()
        })
    }

    #[test]
    fn only_http_and_https_urls_name_a_server() {
        for good in [
            "http://127.0.0.1:8080",
            "http://[::1]:1/",
            "http://host/prefix",
            "https://host",
        ] {
            assert!(at(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:8080", "ftp://host", "http://", "http://a/?b"] {
            assert!(matches!(at(bad), Err(Error::Url { .. })), "{bad}");
        }
        assert!(matches!(at("http://u:p@h"), Err(Error::UrlWithPassword)));
    }

    #[test]
    fn a_token_is_in_clear_on_http_beyond_this_machine() {
        for clear in ["http://cache", "http://10.0.0.1:8080"] {
            assert!(is_in_clear(clear), "{clear}");
        }
        for fine in [
            "https://cache",
            "http://localhost:1",
            "http://127.0.0.1",
            "http://[::1]:8080",
        ] {
            assert!(!is_in_clear(fine), "{fine}");
        }
    }

    #[test]
    fn words_of_an_error_are_found_in_text_and_json() {
        assert_eq!(words(b"no\n"), "no");
        assert_eq!(words(br#"{"error":"bad key"}"#), "bad key");
        let nested = br#"{"error":{"code":"forbidden","message":"read only"}}"#;
        assert_eq!(words(nested), "read only");
    }

    #[test]
    fn a_namespace_stands_before_a_path() {
        let endpoint = Endpoint {
            url: "http://h".to_owned(),
            namespace: Some(crate::settings::namespace_of("team/a").unwrap()),
            ..Endpoint::default()
        };
        assert_eq!(
            Server::at(&endpoint).unwrap().in_room("/x"),
            "/ns/team%2Fa/x"
        );
    }
}
