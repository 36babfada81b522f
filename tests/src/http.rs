//! A raw HTTP/1.1 client on a blocking socket: it sends exactly the bytes a test wants, and reads answers strictly.
//!
//! Not a general client: no redirects, no pools, no TLS. A body that ends early is an error, never a short answer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest silence of the server that a test waits for.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
const MAX_HEADER_LINES: usize = 256;

/// An answer of the server.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case with their values, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    answer_began: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        Connection::open_patiently(address, READ_TIMEOUT)
    }

    /// Connects; the server may be silent for so long.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open_patiently(address: SocketAddr, silence: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        Ok(Connection {
            stream: BufReader::new(stream),
            answer_began: false,
        })
    }

    /// The server's address.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().peer_addr()
    }

    /// Whether any of the answer to the last request came.
    pub fn answer_began(&self) -> bool {
        self.answer_began
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Tells the server that nothing more will come, while answers can still be read.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write)
    }

    /// Sends a request with `headers` (whole lines without line ends) and a body, and reads the answer.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for an answer that is not HTTP; `UnexpectedEof` for one cut short.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&[u8]>,
    ) -> io::Result<Response> {
        self.answer_began = false;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: cache.test\r\n");
        for line in headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        if let Some(body) = body {
            head.push_str("Content-Length: ");
            head.push_str(&body.len().to_string());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        // One write for small requests, as real clients do.
        let body = body.unwrap_or_default();
        let sent = if body.len() <= 64 << 10 {
            let mut bytes = head.into_bytes();
            bytes.extend_from_slice(body);
            self.send_raw(&bytes)
        } else {
            self.send_raw(head.as_bytes())
                .and_then(|()| self.send_raw(body))
        };
        // A server that refuses early closes its receiving side; its answer still counts.
        match (sent, self.response(method == "HEAD")) {
            (_, Ok(response)) => Ok(response),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        }
    }

    /// Reads one answer, skipping interim ones (100 Continue).
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub fn response(&mut self, head_only: bool) -> io::Result<Response> {
        loop {
            let mut response = self.response_head()?;
            if (100..200).contains(&response.status) {
                continue;
            }
            if !head_only && response.status != 204 && response.status != 304 {
                response.body = self.response_body(&response)?;
            }
            return Ok(response);
        }
    }

    /// Reads the head of the next answer only, interim ones included. The body stays unread.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub fn response_head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|word| word.parse().ok());
        let (true, Some(status)) = (version == "HTTP/1.1" || version == "HTTP/1.0", status) else {
            return Err(invalid(&format!("not a status line: {line:?}")));
        };
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(invalid(&format!("not a header: {line:?}")));
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            if headers.len() > MAX_HEADER_LINES {
                return Err(invalid("too many headers"));
            }
        }
        Ok(Response {
            status,
            headers,
            body: Vec::new(),
        })
    }

    /// Whether the server has closed: waits until it does or sends something.
    ///
    /// # Errors
    /// A time-out, when neither happens.
    pub fn closed(&mut self) -> io::Result<bool> {
        match self.stream.fill_buf() {
            Ok(bytes) => Ok(bytes.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn response_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.header("transfer-encoding") == Some("chunked") {
            return self.chunked_body();
        }
        let mut body = Vec::new();
        if let Some(length) = response.header("content-length") {
            let length: u64 = length.parse().map_err(|_| invalid("content-length"))?;
            self.stream.by_ref().take(length).read_to_end(&mut body)?;
            if body.len() as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    fn chunked_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
            let before = body.len() as u64;
            self.stream.by_ref().take(size).read_to_end(&mut body)?;
            if body.len() as u64 != before + size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = self.line()?;
            if size == 0 {
                return Ok(body);
            }
            if !end.is_empty() {
                return Err(invalid("no line end after a chunk"));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let read = self.stream.by_ref().take(64 << 10).read_line(&mut line)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.answer_began = true;
        if !line.ends_with("\r\n") {
            return Err(invalid(&format!("a line without an end: {line:?}")));
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// As [`Connection::request`].
pub fn once(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: Option<&[u8]>,
) -> io::Result<Response> {
    Connection::open(address)?.request(method, path, headers, body)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}
