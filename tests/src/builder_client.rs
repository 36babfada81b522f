//! A client that behaves on the wire as Builder's does, mistakes included; written from the description of its behaviour.
//!
//! It finds `Content-Length` only when spelled exactly so; reads a body after HEAD, too; knows neither chunks nor
//! redirects; takes any status below 400 for success; never drops a socket, dead or not; sends `Host` without the port and
//! ignores the path of its URL; compresses what it sends and never decompresses what it gets.
//! Not here: file hashing, chunking by content, threads.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::zstd_frames;

/// Bytes it reads at once; a head must fit.
const READ_BYTES: usize = 8 << 10;
/// Smaller bodies are sent as they are.
const COMPRESSED_FROM_BYTES: usize = 1 << 10;
const TRIES: u32 = 3;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Any status below 400, with the body.
    Success(u16, Vec<u8>),
    /// 404.
    Miss,
    /// 401 or 403; not tried again.
    Forbidden,
    /// Anything else, after three tries.
    Failed(String),
}

/// A client with one pooled socket.
#[derive(Debug)]
pub struct Client {
    host: String,
    port: u16,
    token: String,
    timeout: Duration,
    socket: Option<TcpStream>,
}

impl Client {
    /// A client of this base URL; the token may be empty.
    ///
    /// # Errors
    /// When the URL names no port that is a number.
    pub fn new(url: &str, token: &str, timeout: Duration) -> Result<Client> {
        // TLS is not spoken; the scheme is cut off all the same.
        let rest = url
            .trim_start_matches("http://")
            .trim_start_matches("https://");
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().context("a port")?),
            None => (authority, 80),
        };
        Ok(Client {
            host: host.to_owned(),
            port,
            token: token.to_owned(),
            timeout,
            socket: None,
        })
    }

    /// Asks whether a key is there.
    pub fn head(&mut self, key: &str) -> Outcome {
        self.request("HEAD", key, &[])
    }

    /// Gets an object, as it comes.
    pub fn get(&mut self, key: &str) -> Outcome {
        self.request("GET", key, &[])
    }

    /// Removes an object.
    pub fn delete(&mut self, key: &str) -> Outcome {
        self.request("DELETE", key, &[])
    }

    /// Sends an object: compressed without saying so, if that saves a twentieth.
    pub fn put(&mut self, key: &str, body: &[u8]) -> Outcome {
        if body.len() > COMPRESSED_FROM_BYTES {
            let compressed = zstd_frames::compress(body);
            if compressed.len() <= body.len() - body.len() / 20 {
                return self.request("PUT", key, &compressed);
            }
        }
        self.request("PUT", key, body)
    }

    fn request(&mut self, method: &str, key: &str, body: &[u8]) -> Outcome {
        let mut failure = String::new();
        for _ in 0..TRIES {
            match self.attempt(method, key, body) {
                Ok((404, _)) => return Outcome::Miss,
                Ok((401 | 403, _)) => return Outcome::Forbidden,
                Ok((status, body)) if status < 400 => return Outcome::Success(status, body),
                Ok((status, _)) => failure = format!("status {status}"),
                Err(error) => failure = format!("{error:#}"),
            }
        }
        Outcome::Failed(failure)
    }

    fn attempt(&mut self, method: &str, key: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let head = self.head_of(method, key, body.len());
        let socket = match &mut self.socket {
            Some(socket) => socket,
            empty => {
                let socket = TcpStream::connect((self.host.as_str(), self.port))?;
                socket.set_read_timeout(Some(self.timeout))?;
                // Whatever happens from here on, this socket is used for ever.
                empty.insert(socket)
            }
        };
        socket.write_all(head.as_bytes())?;
        socket.write_all(body)?;
        read_answer(socket)
    }

    fn head_of(&self, method: &str, key: &str, length: usize) -> String {
        let (host, token) = (&self.host, &self.token);
        let authorization = match token.as_str() {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        // An empty body is sent without any sign of it.
        let content = match length {
            0 => String::new(),
            length => {
                format!("Content-Length: {length}\r\nContent-Type: application/octet-stream\r\n")
            }
        };
        format!(
            "{method} /artifacts/{key} HTTP/1.1\r\nHost: {host}\r\n{authorization}\
             User-Agent: Builder/1.0\r\nConnection: keep-alive\r\n{content}\r\n"
        )
    }
}

/// Reads a head and as many bytes as `Content-Length` says; without one, what happened to come with the head.
fn read_answer(socket: &mut TcpStream) -> Result<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        ensure!(
            bytes.len() < READ_BYTES,
            "a head of more than {READ_BYTES} bytes"
        );
        read_some(socket, &mut bytes)?;
    };
    let head = std::str::from_utf8(&bytes[..end])?.to_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("not an answer: {head:?}"))?;
    let length = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("Content-Length: "));
    if let Some(length) = length {
        let length: usize = length.trim().parse().context("Content-Length")?;
        while bytes.len() < end + length {
            read_some(socket, &mut bytes)?;
        }
        bytes.truncate(end + length);
    }
    Ok((status, bytes.split_off(end)))
}

fn read_some(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0_u8; READ_BYTES];
    match socket.read(&mut buffer) {
        Ok(0) => bail!("the socket is closed"),
        Ok(length) => bytes.extend(&buffer[..length]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("nothing came in time"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered_with(answer: &'static str, ask: impl Fn(&mut Client) -> Outcome) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!(
            "http://{}/ignored/path",
            listener.local_addr().expect("bound")
        );
        let server = std::thread::spawn(move || {
            let mut socket = listener.accept().expect("a client").0;
            let mut request = [0_u8; 4096];
            let length = socket.read(&mut request).expect("a request");
            socket.write_all(answer.as_bytes()).expect("answered");
            // Until the client has had enough.
            let _ = socket.read(&mut request[length..]);
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let mut client = Client::new(&url, "", Duration::from_millis(200)).expect("a client");
        let outcome = ask(&mut client);
        drop(client);
        let request = server.join().expect("served");
        assert!(
            request.contains(" /artifacts/K HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
            "{request}"
        );
        outcome
    }

    #[test]
    fn a_redirect_is_a_success_and_its_body_the_object() {
        let outcome = answered_with(
            "HTTP/1.1 302 Found\r\nContent-Length: 2\r\nLocation: /\r\n\r\nno",
            |client| client.get("K"),
        );
        assert_eq!(outcome, Outcome::Success(302, b"no".to_vec()));
    }

    #[test]
    fn a_length_in_lower_case_is_not_seen() {
        let outcome = answered_with(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok left over",
            |client| client.get("K"),
        );
        assert_eq!(outcome, Outcome::Success(200, b"ok left over".to_vec()));
    }

    #[test]
    fn a_length_after_head_makes_it_wait_in_vain() {
        let outcome = answered_with("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", |client| {
            client.head("K")
        });
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
}
