//! Blobs as streams of messages: `google.bytestream.ByteStream`.
//!
//! What a blob is called, plain or compressed, is in `names`. Read: `read`. Write: `write`, whose messages are in `stream`.

mod read;
mod stream;
mod write;

pub(super) use read::read;
pub(super) use write::write;
