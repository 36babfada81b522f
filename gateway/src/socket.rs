//! A connection's byte stream: TCP, TLS or Unix, with the bytes read ahead put back, reporting to the connection's watch.
//!
//! HTTP/2 writes frame by frame and flushes after each, a system call for 16 KiB. So its frames are gathered, and sent
//! when there are enough of them or when the connection has nothing more to say ([`Gathered`]). Not here: protocols.
//! Invariant: every byte read or written and every write that blocks is recorded on the connection, which is what its
//! timeouts rest on.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

use crate::{
    metrics::Traffic,
    tls::Tls,
    watch::{Conn, Phase},
};

/// The first bytes of an HTTP/2 connection.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for the first read; a typical request fits.
const FIRST_READ: usize = 4 << 10;

/// Most bytes gathered before they are sent.
const GATHERED_BYTES: usize = 256 << 10;

/// Most bytes thrown away so that a refusal reaches a peer that is still sending.
const LINGER_BYTES: u64 = 16 << 20;

/// What the gateway accepts connections on.
#[derive(Debug)]
pub(crate) enum Socket {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A TCP connection with TLS in it.
    Tls(Box<TlsStream<TcpStream>>),
    /// A connection on a Unix socket.
    Unix(UnixStream),
}

/// A connection as it was accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// It can be used.
    Ready(Socket),
    /// Its handshake comes first.
    Tls(TcpStream, Tls),
}

impl Accepted {
    /// The connection after its handshake.
    pub(crate) async fn ready(self) -> io::Result<Socket> {
        match self {
            Accepted::Ready(socket) => Ok(socket),
            Accepted::Tls(stream, tls) => Ok(Socket::Tls(Box::new(tls.accept(stream).await?))),
        }
    }
}

/// Which HTTP a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A socket, and what is to be sent on it.
#[derive(Debug)]
struct Wire {
    socket: Socket,
    gathers: bool,
    gathered: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    conn: Arc<Conn>,
    traffic: Traffic,
}

impl Wire {
    /// Sends all that was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let rest = IoSlice::new(&self.gathered[self.sent..]);
            let wrote = self.socket.poll_write(cx, &[rest]);
            let sent = ready!(self.wrote(wrote))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.sent = 0;
        self.gathered.clear();
        if self.conn.between_requests() {
            self.gathered.shrink_to(FIRST_READ);
        }
        self.socket.poll_flush(cx)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if !self.gathers || (self.gathered.is_empty() && length >= GATHERED_BYTES) {
            let wrote = self.socket.poll_write(cx, pieces);
            return self.wrote(wrote);
        }
        if self.gathered.len() >= GATHERED_BYTES {
            ready!(self.poll_send(cx))?;
        }
        if length >= FIRST_READ {
            self.gathered
                .reserve_exact(GATHERED_BYTES - self.gathered.len());
        }
        let before = self.gathered.len();
        for piece in pieces {
            let room = GATHERED_BYTES - self.gathered.len();
            self.gathered
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Poll::Ready(Ok(self.gathered.len() - before))
    }

    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Ready(Ok(n)) => {
                self.conn.on_written();
                self.traffic.sent.inc_by(*n as u64);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.conn.on_blocked(),
        }
        outcome
    }
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Socket::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tcp(_) | Socket::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What a connection has gathered to send. Whoever drives the connection sends it each time the connection waits.
#[derive(Debug)]
pub(crate) struct Gathered(Arc<Mutex<Wire>>);

impl Gathered {
    /// Sends it.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.lock();
        if wire.gathered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        wire.poll_send(cx)
    }
}

/// A socket under watch.
#[derive(Debug)]
pub(crate) struct Watched {
    wire: Arc<Mutex<Wire>>,
    ahead: Bytes,
    linger_bytes: u64,
    conn: Arc<Conn>,
    traffic: Traffic,
}

impl Watched {
    pub(crate) fn new(socket: Socket, conn: Arc<Conn>, traffic: Traffic) -> Watched {
        let wire = Wire {
            socket,
            gathers: false,
            gathered: Vec::new(),
            sent: 0,
            conn: Arc::clone(&conn),
            traffic: traffic.clone(),
        };
        Watched {
            wire: Arc::new(Mutex::new(wire)),
            ahead: Bytes::new(),
            linger_bytes: LINGER_BYTES,
            conn,
            traffic,
        }
    }

    /// Gathers what is written from now on.
    pub(crate) fn gather(&mut self) -> Gathered {
        self.wire.lock().gathers = true;
        Gathered(Arc::clone(&self.wire))
    }

    /// Waits for the first bytes and tells which HTTP they begin; the bytes are read again later. `None` when the
    /// peer closed without a word.
    pub(crate) async fn detect(&mut self) -> io::Result<Option<Spoken>> {
        let mut seen = BytesMut::with_capacity(FIRST_READ);
        let spoken = loop {
            if self.read_buf(&mut seen).await? == 0 {
                break (!seen.is_empty()).then_some(Spoken::Http1);
            }
            let length = seen.len().min(PREFACE.len());
            if seen[..length] != PREFACE[..length] {
                if is_part_of_a_line(&seen) {
                    continue;
                }
                break Some(Spoken::Http1);
            }
            if length == PREFACE.len() {
                break Some(Spoken::Http2);
            }
        };
        self.ahead = seen.freeze();
        Ok(spoken)
    }

    /// What was read so far and will be read again.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Throws away what still comes in, so that the peer gets to read our answer before its connection is reset.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 8 << 10];
        while self.linger_bytes > 0 {
            let mut buf = ReadBuf::new(&mut scrap);
            let outcome = ready!(Pin::new(&mut *self).poll_read(cx, &mut buf));
            let received = buf.filled().len() as u64;
            if outcome.is_err() || received == 0 {
                return Poll::Ready(());
            }
            self.linger_bytes = self.linger_bytes.saturating_sub(received);
        }
        Poll::Ready(())
    }
}

/// Whether this is the start of a request line: who sends it can only be told from all of it.
fn is_part_of_a_line(seen: &[u8]) -> bool {
    let starts_with_a_method = seen.first().is_some_and(u8::is_ascii_uppercase);
    starts_with_a_method && seen.len() < FIRST_READ && !seen.contains(&b'\n')
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let outcome = self.wire.lock().socket.poll_read(cx, buf);
        let received = buf.filled().len() - before;
        if received > 0 {
            self.conn.on_read();
            self.traffic.received.inc_by(received as u64);
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.lock().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.lock();
        if wire.gathers {
            return Poll::Ready(Ok(()));
        }
        wire.socket.poll_flush(cx)
    }

    /// Closes our side. A peer that was refused in the middle of a request may still be sending; closing both sides
    /// now would reset the connection and take the answer away from it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.conn.phase() != Phase::Linger {
            let interrupted = self.conn.refused_early() || self.conn.phase() == Phase::Head;
            let mut wire = self.wire.lock();
            ready!(wire.poll_send(cx))?;
            ready!(wire.socket.poll_close(cx))?;
            drop(wire);
            if !interrupted || self.conn.is_http2() {
                return Poll::Ready(Ok(()));
            }
            self.conn.enter(Phase::Linger);
        }
        self.poll_linger(cx).map(Ok)
    }
}
