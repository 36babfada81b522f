//! `zim setup TOOL --check`: a value goes to the server and comes back, over the very routes of the tool.
//!
//! Keys and values are random, so a check finds nothing but its own and harms nothing; what can be deleted afterwards
//! is. A caller who may only read is told so: that is no failure.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use rustix::rand::{GetRandomFlags, getrandom};
use zimcache_types::{Digest, Function, Namespace};

use crate::{
    error::{Error, Result},
    remote::{Answer, Outgoing, Server, room_of},
    settings::Endpoint,
};

/// Bytes of the value; the kernel gives so many at once.
const VALUE_BYTES: usize = 256;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// What was written came back.
    Works,
    /// Reading works, writing is refused.
    ReadOnly,
}

/// Headers of a request.
type Headers<'a> = [(&'static str, &'a str)];

/// A server, and a value that nobody has sent there before.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    server: &'a Server,
    endpoint: &'a Endpoint,
    value: [u8; VALUE_BYTES],
}

impl<'a> Probe<'a> {
    pub(super) fn new(server: &'a Server, endpoint: &'a Endpoint) -> Result<Probe<'a>> {
        let mut value = [0; VALUE_BYTES];
        let filled = getrandom(&mut value, GetRandomFlags::empty());
        filled.map_err(|error| Error::Runtime(error.into()))?;
        Ok(Probe {
            server,
            endpoint,
            value,
        })
    }

    /// The value.
    pub(super) fn value(&self) -> &[u8] {
        &self.value
    }

    /// So many random hex digits, at most 64: the beginning of the value's hash.
    pub(super) fn hex(&self, digits: usize) -> String {
        let hash = Digest::of(Function::Sha256, &self.value).hash;
        hash.to_hex().chars().take(digits).collect()
    }

    /// A random number of up to 20 digits.
    pub(super) fn decimal(&self) -> String {
        let first: [u8; 8] = self.value.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first).to_string()
    }

    /// The server and who calls.
    pub(super) fn endpoint(&self) -> &'a Endpoint {
        self.endpoint
    }

    /// The namespace, where one is set.
    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.endpoint.namespace.as_ref().map(Namespace::as_str)
    }

    /// A path in the namespace.
    pub(super) fn room(&self, path: &str) -> String {
        let room = self.endpoint.namespace.as_ref().map(room_of);
        format!("{}{path}", room.unwrap_or_default())
    }

    /// The path of the value under its own hash.
    pub(super) fn own_path(&self, folder: &str) -> String {
        format!("{folder}{}", self.hex(64))
    }

    /// The same, in the namespace.
    pub(super) fn blob_path(&self, folder: &str) -> String {
        self.room(&self.own_path(folder))
    }

    /// A URL that the server gave, as a path of it; its name for itself need not be ours.
    pub(super) fn local(&self, url: &str) -> String {
        if let Some(path) = url.strip_prefix(self.server.url()) {
            return path.to_owned();
        }
        let uri: Option<http::Uri> = url.parse().ok();
        let path = uri.as_ref().and_then(http::Uri::path_and_query);
        path.map_or_else(String::new, ToString::to_string)
    }

    /// Sends a request that has to be answered by one of the statuses.
    pub(super) fn expect(
        &self,
        method: Method,
        path: &str,
        headers: &Headers<'_>,
        body: &[u8],
        statuses: &[u16],
    ) -> Result<Answer> {
        self.send(method, path, headers, body, statuses, true)
    }

    /// The same to a signed URL, which takes no credentials.
    pub(super) fn expect_signed(
        &self,
        method: Method,
        path: &str,
        headers: &Headers<'_>,
        body: &[u8],
        statuses: &[u16],
    ) -> Result<Answer> {
        self.send(method, path, headers, body, statuses, false)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        headers: &Headers<'_>,
        body: &[u8],
        statuses: &[u16],
        introduced: bool,
    ) -> Result<Answer> {
        let what = format!("{method} {path}");
        let body = Outgoing::bytes(body.to_vec());
        let mut request = self.server.request(method, path, body)?;
        if !introduced {
            request.headers_mut().remove(header::AUTHORIZATION);
        }
        for (name, value) in headers {
            let value = HeaderValue::try_from(*value).map_err(|_| Error::TokenText)?;
            let name = HeaderName::from_static(name);
            request.headers_mut().insert(name, value);
        }
        let answer = self.server.exchange(request)?;
        if statuses.contains(&answer.status.as_u16()) {
            return Ok(answer);
        }
        Err(self.server.unexpected(what, &answer))
    }

    /// Writes the value under a key that is free, and reads it.
    pub(super) fn round_trip(&self, path: &str, headers: &Headers<'_>) -> Result<Outcome> {
        self.round_trip_of(path, headers, &self.value)
    }

    /// The same with a value that the route accepts.
    pub(super) fn round_trip_of(
        &self,
        path: &str,
        headers: &Headers<'_>,
        value: &[u8],
    ) -> Result<Outcome> {
        // 403 and 413 are how tools are told that they may only read.
        const PUT: [u16; 5] = [200, 201, 204, 403, 413];
        self.expect(Method::GET, path, headers, &[], &[404])?;
        let put = self.expect(Method::PUT, path, headers, value, &PUT)?;
        if !put.status.is_success() {
            return Ok(Outcome::ReadOnly);
        }
        let got = self.expect(Method::GET, path, headers, &[], &[200])?;
        same(got.body == value, path)?;
        // Not every tool may delete; what stays harms nothing.
        let any: Vec<u16> = (StatusCode::OK.as_u16()..600).collect();
        self.expect(Method::DELETE, path, &[], &[], &any)?;
        Ok(Outcome::Works)
    }
}

/// Fails unless what came back is right.
pub(super) fn same(right: bool, what: &str) -> Result<()> {
    if right {
        return Ok(());
    }
    Err(Error::Check(format!("{what} came back different")))
}
