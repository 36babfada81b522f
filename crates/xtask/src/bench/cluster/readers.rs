//! Readers of one body at the same time, on one thread: when the first byte came to each of them.
//!
//! Not the generator, which knows whole answers only. A reader's clock starts before it connects: the S3 server takes a
//! new connection for every request.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

/// One read takes up to this much, so that no reader keeps the others waiting.
const READ_BYTES: usize = 64 << 10;
/// A run in which nothing comes for this long has failed.
const STALL: Duration = Duration::from_mins(1);

struct Reader {
    stream: TcpStream,
    began: Instant,
    head: Vec<u8>,
    body_bytes: u64,
    first_byte: Option<Duration>,
}

/// Sends a request on so many connections and reads bodies of this length; how long each first byte took.
pub(super) fn read(
    address: SocketAddr,
    request: &str,
    readers: usize,
    length: u64,
) -> Result<Vec<Duration>> {
    let mut poll = Poll::new()?;
    let mut open = Vec::new();
    for number in 0..readers {
        open.push(Reader::begin(address, request, &poll, Token(number))?);
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut events = Events::with_capacity(readers);
    // Events are edges: whoever is not yet dry is asked again without one.
    let mut ready: Vec<usize> = Vec::new();
    while open.iter().any(|reader| reader.body_bytes < length) {
        let wait = if ready.is_empty() {
            STALL
        } else {
            Duration::ZERO
        };
        poll.poll(&mut events, Some(wait))?;
        ready.extend(events.iter().map(|event| event.token().0));
        ensure!(!ready.is_empty(), "nothing comes any more");
        ready.sort_unstable();
        ready.dedup();
        let mut more = Vec::new();
        for number in ready {
            if open[number].go_on(&mut buffer, length)? {
                more.push(number);
            }
        }
        ready = more;
    }
    let firsts = open.into_iter().map(|reader| reader.first_byte);
    firsts.collect::<Option<_>>().context("a body is empty")
}

impl Reader {
    fn begin(address: SocketAddr, request: &str, poll: &Poll, token: Token) -> Result<Reader> {
        let began = Instant::now();
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes())?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry()
            .register(&mut stream, token, Interest::READABLE)?;
        Ok(Reader {
            stream,
            began,
            head: Vec::new(),
            body_bytes: 0,
            first_byte: None,
        })
    }

    /// Reads once; whether there may be more at once.
    fn go_on(&mut self, buffer: &mut [u8], length: u64) -> Result<bool> {
        match self.stream.read(buffer) {
            Ok(0) if self.body_bytes < length => bail!("the body was cut short"),
            Ok(0) => Ok(false),
            Ok(count) => {
                self.take(&buffer[..count])?;
                Ok(self.body_bytes < length)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error).context("reading failed"),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let mut body = bytes.len();
        if self.first_byte.is_none() {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(());
            };
            ensure!(
                self.head.starts_with(b"HTTP/1.1 200 "),
                "a read is answered with {}",
                String::from_utf8_lossy(&self.head[..end])
            );
            body = self.head.len() - end - 4;
            if body > 0 {
                self.first_byte = Some(self.began.elapsed());
            } else {
                self.head.truncate(end + 4);
            }
        }
        self.body_bytes += body as u64;
        Ok(())
    }
}
