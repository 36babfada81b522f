//! Reading a value: a concrete enum, so that the fast path is a match arm.
//!
//! A [`Reader`] yields chunks that have already passed their checksum. A failure in the middle is an error, never a
//! short value. Cancellation: dropping a reader at any point is safe.

use std::{
    fmt,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// Which bytes of a value are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ByteRange {
    /// All of it.
    #[default]
    Full,
    /// From a byte, to a byte (inclusive) or the end.
    From {
        /// First byte.
        first: u64,
        /// Last byte, inclusive; the end when `None` or behind it.
        last: Option<u64>,
    },
    /// The last so many bytes.
    Suffix(u64),
}

impl ByteRange {
    /// The half-open range inside a value of `size` bytes.
    ///
    /// # Errors
    /// `RangeInvalid` when nothing of the value lies in the range.
    pub fn resolve(self, size: u64) -> Result<Range<u64>> {
        match self {
            ByteRange::Full => Ok(0..size),
            ByteRange::From { first, last } => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                if first >= size || end <= first {
                    return Err(Error::RangeInvalid { size });
                }
                Ok(first..end)
            }
            ByteRange::Suffix(length) => {
                if length == 0 || size == 0 {
                    return Err(Error::RangeInvalid { size });
                }
                Ok(size - length.min(size)..size)
            }
        }
    }
}

/// Something chunks can be read from by position, for example a value on disk.
pub trait ChunkSource: Send + Sync + fmt::Debug + 'static {
    /// Verified bytes from `position`, at least one, none behind `end`; `None` when they are not in memory and
    /// reading them would block.
    ///
    /// # Errors
    /// `Corrupt` or `Disk`.
    fn read_now(&self, position: u64, end: u64) -> Result<Option<Bytes>>;

    /// The same, waiting for the disk. Called on a thread that may block.
    ///
    /// # Errors
    /// `Corrupt` or `Disk`.
    fn read_blocking(&self, position: u64, end: u64) -> Result<Bytes>;

    /// The whole value as zstd frames, if that is how it is stored.
    fn zstd_form(&self) -> Option<Reader> {
        None
    }
}

/// A value that arrives piece by piece, in order, from somewhere else.
pub trait ChunkStream: Send + Sync + fmt::Debug + 'static {
    /// The next bytes, at least one; `None` at the end. What yields fewer or more bytes than were promised has failed.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>>;
}

/// In which form a reader yields a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it was put.
    Identity,
    /// zstd frames, one after the other; windows are at most 1 MiB.
    Zstd,
}

/// A value, or a range of it, being read.
#[derive(Debug)]
pub struct Reader {
    total: u64,
    range: Range<u64>,
    /// Longest chunk that is taken from memory, in bytes.
    piece: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Bytes(Bytes),
    Source {
        source: Arc<dyn ChunkSource>,
        position: u64,
        pending: Option<JoinHandle<Result<Bytes>>>,
    },
    Stream {
        stream: Box<dyn ChunkStream>,
        position: u64,
    },
}

impl Reader {
    /// A whole value in memory.
    pub fn from_bytes(value: Bytes) -> Reader {
        let total = value.len() as u64;
        Reader {
            total,
            range: 0..total,
            piece: u64::MAX,
            body: Body::Bytes(value),
        }
    }

    /// The asked range of a value in memory; `range` must lie inside.
    pub fn from_bytes_range(value: &Bytes, range: Range<u64>) -> Reader {
        let total = value.len() as u64;
        let slice = value.slice(range.start as usize..range.end as usize);
        Reader {
            total,
            range,
            piece: u64::MAX,
            body: Body::Bytes(slice),
        }
    }

    /// A range of a value of `total` bytes that is read piece by piece.
    pub fn from_source(source: Arc<dyn ChunkSource>, total: u64, range: Range<u64>) -> Reader {
        let position = range.start;
        Reader {
            total,
            range,
            piece: u64::MAX,
            body: Body::Source {
                source,
                position,
                pending: None,
            },
        }
    }

    /// Takes at most so many bytes at once where they are in memory: for callers that copy them, which is several times
    /// faster while they are in a core's cache.
    #[must_use]
    pub const fn in_pieces_of(mut self, bytes: u64) -> Reader {
        self.piece = bytes;
        self
    }

    /// A range of a value of `total` bytes that is in memory; the rest of the value need not be.
    pub fn from_part(total: u64, first: u64, part: Bytes) -> Reader {
        Reader {
            total,
            range: first..first + part.len() as u64,
            piece: u64::MAX,
            body: Body::Bytes(part),
        }
    }

    /// A range of a value of `total` bytes that arrives from elsewhere.
    pub fn from_stream(total: u64, range: Range<u64>, stream: Box<dyn ChunkStream>) -> Reader {
        let position = range.start;
        Reader {
            total,
            range,
            piece: u64::MAX,
            body: Body::Stream { stream, position },
        }
    }

    /// Size in bytes of the whole value.
    pub const fn total_bytes(&self) -> u64 {
        self.total
    }

    /// The range that is being read.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// How many bytes are still to come.
    pub fn remaining_bytes(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Source { position, .. } | Body::Stream { position, .. } => {
                self.range.end - position
            }
        }
    }

    /// The stored form, for a caller that can take it: zstd frames when the reader is at the start of a full value that
    /// is stored so, else the same reader. [`Reader::remaining_bytes`] is the length of what it yields.
    pub fn into_stored(self) -> (Encoding, Reader) {
        let full = self.range == (0..self.total);
        let stored = match &self.body {
            Body::Source {
                source,
                position: 0,
                pending: None,
            } if full => source.zstd_form(),
            _ => None,
        };
        match stored {
            Some(reader) => (Encoding::Zstd, reader),
            None => (Encoding::Identity, self),
        }
    }

    /// The rest in one piece where it is already in memory.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes),
            Body::Source { .. } | Body::Stream { .. } => None,
        }
    }

    /// The next chunk; `None` at the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match &mut self.body {
            Body::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Bytes(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Body::Source {
                source,
                position,
                pending,
            } => {
                let piece_end = self.range.end.min(position.saturating_add(self.piece));
                let ends = (piece_end, self.range.end);
                let chunk = ready!(poll_source(source, *position, ends, pending, cx));
                if let Some(Ok(bytes)) = &chunk {
                    *position += bytes.len() as u64;
                }
                Poll::Ready(chunk)
            }
            Body::Stream { stream, position } => {
                let left = self.range.end - *position;
                let chunk = ready!(poll_stream(&mut **stream, left, cx));
                if let Some(Ok(bytes)) = &chunk {
                    *position += bytes.len() as u64;
                }
                Poll::Ready(chunk)
            }
        }
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt` or `Disk`.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// All remaining bytes. For values known to be small.
    ///
    /// # Errors
    /// `Corrupt` or `Disk`; `TooLarge` when more than `limit` bytes remain.
    pub async fn read_all(mut self, limit: u64) -> Result<Bytes> {
        if self.remaining_bytes() > limit {
            return Err(Error::TooLarge { limit });
        }
        let Some(first) = self.next_chunk().await.transpose()? else {
            return Ok(Bytes::new());
        };
        if self.remaining_bytes() == 0 {
            return Ok(first);
        }
        let mut all = Vec::with_capacity(first.len() + self.remaining_bytes() as usize);
        all.extend_from_slice(&first);
        while let Some(chunk) = self.next_chunk().await.transpose()? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }
}

fn poll_source(
    source: &Arc<dyn ChunkSource>,
    position: u64,
    (piece_end, end): (u64, u64),
    pending: &mut Option<JoinHandle<Result<Bytes>>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes>>> {
    if pending.is_none() {
        if position >= end {
            return Poll::Ready(None);
        }
        match source.read_now(position, piece_end) {
            Ok(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
            Ok(None) => {}
            Err(error) => return Poll::Ready(Some(Err(error))),
        }
        let source = Arc::clone(source);
        *pending = Some(tokio::task::spawn_blocking(move || {
            source.read_blocking(position, end)
        }));
    }
    let Some(handle) = pending.as_mut() else {
        return Poll::Ready(None);
    };
    let joined = ready!(Pin::new(handle).poll(cx));
    *pending = None;
    Poll::Ready(Some(joined.unwrap_or(Err(Error::Stopping))))
}

/// The next chunk of a stream that owes `left` bytes. Too few or too many are a failure, never a value.
fn poll_stream(
    stream: &mut dyn ChunkStream,
    left: u64,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes>>> {
    if left == 0 {
        return Poll::Ready(None);
    }
    Poll::Ready(match ready!(stream.poll_chunk(cx)) {
        Some(Ok(bytes)) if bytes.len() as u64 > left => {
            Some(Err(Error::Corrupt("more bytes came than were promised")))
        }
        None => Some(Err(Error::Corrupt("the value broke off"))),
        chunk => chunk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Pieces(Vec<&'static [u8]>);

    impl ChunkStream for Pieces {
        fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next.map(|piece| Ok(Bytes::from_static(piece))))
        }
    }

    #[tokio::test]
    async fn a_stream_gives_exactly_the_bytes_it_promised_or_fails() {
        let reader = |total, pieces: &[&'static [u8]]| {
            Reader::from_stream(total, 0..total, Box::new(Pieces(pieces.to_vec())))
        };
        let mut exact = reader(5, &[b"ab", b"cde"]);
        assert_eq!(exact.next_chunk().await.unwrap().unwrap(), "ab");
        assert_eq!(exact.remaining_bytes(), 3);
        assert_eq!(exact.read_all(9).await.unwrap(), "cde");
        for pieces in [&[&b"ab"[..]][..], &[b"abc", b"def"]] {
            let failure = reader(5, pieces).read_all(9).await.unwrap_err();
            assert!(matches!(failure, Error::Corrupt(_)), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_part_in_memory_knows_its_place_in_the_value() {
        let part = Reader::from_part(10, 4, Bytes::from_static(b"efg"));
        assert_eq!((part.total_bytes(), part.range()), (10, 4..7));
        assert_eq!(part.read_all(3).await.unwrap(), "efg");
    }

    #[test]
    fn ranges_resolve_like_http_says() {
        let from = |first, last| ByteRange::From { first, last };
        assert_eq!(ByteRange::Full.resolve(0).unwrap(), 0..0);
        assert_eq!(from(0, Some(0)).resolve(10).unwrap(), 0..1);
        assert_eq!(from(5, None).resolve(10).unwrap(), 5..10);
        assert_eq!(from(5, Some(u64::MAX)).resolve(10).unwrap(), 5..10);
        assert_eq!(ByteRange::Suffix(3).resolve(10).unwrap(), 7..10);
        assert_eq!(ByteRange::Suffix(30).resolve(10).unwrap(), 0..10);
        for bad in [
            from(10, None),
            from(11, Some(12)),
            from(5, Some(4)),
            ByteRange::Suffix(0),
        ] {
            assert!(
                matches!(bad.resolve(10), Err(Error::RangeInvalid { size: 10 })),
                "{bad:?}"
            );
        }
        assert!(ByteRange::Suffix(1).resolve(0).is_err());
    }
}
