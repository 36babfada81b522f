//! A byte stream whose small writes go out together, when the connection that makes them has nothing more to say.
//!
//! HTTP/2 writes the frame of every value by itself, and flushes after each. Here a flush waits: [`Gathered::poll_send`]
//! sends what was gathered, and whoever polls the connection calls it afterwards. What is large is not copied: it goes
//! out at once, behind what was gathered before it. Invariant: bytes leave in the order in which they were written.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Io;

/// Writes from this size on are not copied.
const LARGE_BYTES: usize = 16 << 10;
/// How much is gathered at most.
const MOST_BYTES: usize = 64 << 10;

/// The stream. Clones share it: one is the connection's, one sends. The lock is never contended, both are polled by one
/// task.
#[derive(Debug)]
pub(crate) struct Gathered<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    io: T,
    waiting: BytesMut,
}

impl<T> Clone for Gathered<T> {
    fn clone(&self) -> Gathered<T> {
        Gathered(Arc::clone(&self.0))
    }
}

impl<T: Io> Gathered<T> {
    pub(crate) fn new(io: T) -> Gathered<T> {
        Gathered(Arc::new(Mutex::new(Inner {
            io,
            waiting: BytesMut::new(),
        })))
    }

    /// Sends what was gathered.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(cx)
    }
}

impl<T: Io> Inner<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(sent);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length < LARGE_BYTES {
            if self.waiting.len() + length > MOST_BYTES {
                ready!(self.poll_send(cx))?;
            }
            for slice in slices {
                self.waiting.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(length));
        }
        if self.waiting.is_empty() || !self.io.is_write_vectored() {
            ready!(self.poll_send(cx))?;
            return Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        }
        let first = [IoSlice::new(&self.waiting)];
        let all: Vec<IoSlice<'_>> = first.into_iter().chain(slices.iter().copied()).collect();
        let sent = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all))?;
        let of_waiting = sent.min(self.waiting.len());
        self.waiting.advance(of_waiting);
        match sent - of_waiting {
            // Some of what was gathered is left, or nothing more went out: the rest takes another turn.
            0 => {
                ready!(self.poll_send(cx))?;
                Pin::new(&mut self.io).poll_write_vectored(cx, slices)
            }
            more => Poll::Ready(Ok(more)),
        }
    }
}

impl<T: Io> AsyncRead for Gathered<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buffer)
    }
}

impl<T: Io> AsyncWrite for Gathered<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_arrive_in_their_order_whatever_their_sizes() {
        let (near, mut far) = duplex(10_000);
        let reading = zimcache_telemetry::task::spawn("test", async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        let mut stream = Gathered::new(near);
        let sizes = [
            1, 20_000, 7, 3_000, 70_000, 15_000, 15_000, 40_000, 16_384, 0, 5,
        ];
        let mut sent = Vec::new();
        for (number, size) in (0_u8..).zip(sizes) {
            let bytes = vec![number; size];
            stream.write_all(&bytes).await.unwrap();
            sent.extend(bytes);
        }
        stream.shutdown().await.unwrap();
        drop(stream);
        assert!(reading.await.unwrap() == sent);
    }

    #[tokio::test]
    async fn small_writes_wait_until_they_are_sent() {
        let (near, mut far) = duplex(1_000);
        let mut stream = Gathered::new(near);
        for _ in 0..3 {
            stream.write_all(b"abc").await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut buffer = [0; 100];
        let early = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut buffer);
            Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut buffer).is_ready())
        });
        assert!(!early.await);
        poll_fn(|cx| stream.poll_send(cx)).await.unwrap();
        assert_eq!(far.read(&mut buffer).await.unwrap(), 9);
    }
}
