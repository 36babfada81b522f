//! Bodies of requests: bytes at hand, or a file that is read while it is sent.
//!
//! A file is read with blocking calls: a command has nothing else to do. Its length is fixed before the first byte, and
//! a file that shrank meanwhile is a failure, never a shorter body.

use std::{
    fs::File,
    io::{self, Read as _},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use indicatif::ProgressBar;

/// Bytes read and sent at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A body on its way out.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// All of it; taken when sent.
    Bytes(Option<Bytes>),
    /// So many bytes of a file, told to a progress bar.
    File {
        file: File,
        left: u64,
        progress: ProgressBar,
    },
}

impl Outgoing {
    /// Bytes at hand, perhaps none.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Outgoing {
        let bytes = bytes.into();
        Outgoing::Bytes((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.get_mut() {
            Outgoing::Bytes(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Outgoing::File { left: 0, .. } => None,
            Outgoing::File {
                file,
                left,
                progress,
            } => Some(read(file, left, progress).map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Outgoing::Bytes(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Outgoing::File { left, .. } => *left,
        })
    }
}

fn read(file: &mut File, left: &mut u64, progress: &ProgressBar) -> io::Result<Bytes> {
    let wanted = CHUNK_BYTES.min(usize::try_from(*left).unwrap_or(CHUNK_BYTES));
    let mut chunk = BytesMut::zeroed(wanted);
    let got = file.read(&mut chunk)?;
    if got == 0 {
        let text = "the file became shorter while it was sent";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    chunk.truncate(got);
    *left -= got as u64;
    progress.inc(got as u64);
    Ok(chunk.freeze())
}
