//! A running server, as seen from a command: plain HTTP/1.1 requests to its `/api/v1` routes.
//!
//! Invariants: answers are bounded; a status other than 200 is a failure that carries the server's own words; an
//! answer of lines is handed on line by line while the server still works.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::runtime::{self, Runtime};

use crate::error::{Error, Result};

/// Most bytes of an answer, or of one line of it, that are taken.
const ANSWER_BYTES: usize = 1 << 20;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server by its URL.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Server {
    /// A server at a URL such as `http://127.0.0.1:8080`; nothing is sent yet.
    pub(crate) fn at(url: &str) -> Result<Server> {
        let refused = || Error::Url {
            url: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| refused())?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(refused());
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Ok(Server {
            url: url.trim_end_matches('/').to_owned(),
            runtime: runtime.map_err(Error::Runtime)?,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// The body of a GET.
    pub(crate) fn get(&self, path: &str) -> Result<Bytes> {
        self.runtime.block_on(async {
            let response = self.send(Method::GET, path, Bytes::new()).await?;
            self.whole_body(response).await
        })
    }

    /// The body that answers a POST of JSON.
    pub(crate) fn post(&self, path: &str, json: Bytes) -> Result<Bytes> {
        self.runtime.block_on(async {
            let response = self.send(Method::POST, path, json).await?;
            self.whole_body(response).await
        })
    }

    /// Hands every line that answers an empty POST to `on_line`, as it arrives.
    pub(crate) fn post_lines(
        &self,
        path: &str,
        mut on_line: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.runtime.block_on(async {
            let response = self.send(Method::POST, path, Bytes::new()).await?;
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

    async fn send(&self, method: Method, path: &str, json: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(json))
            .map_err(|_| Error::Url {
                url: self.url.clone(),
            })?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| Error::Unreachable {
            url: self.url.clone(),
            source: error.into(),
        })?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let text = self.whole_body(response).await?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        Err(Error::Refused { status, text })
    }

    async fn whole_body(&self, response: Response<Incoming>) -> Result<Bytes> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES);
        let collected = body.collect().await;
        Ok(collected
            .map_err(|error| self.broken_off(error))?
            .to_bytes())
    }

    fn broken_off(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::BrokenOff {
            url: self.url.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_urls_name_a_server() {
        for good in [
            "http://127.0.0.1:8080",
            "http://[::1]:1/",
            "http://host/prefix",
        ] {
            assert!(Server::at(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "https://host",
            "ftp://host",
            "http://",
            "http://a/?b",
        ] {
            assert!(matches!(Server::at(bad), Err(Error::Url { .. })), "{bad}");
        }
    }
}
