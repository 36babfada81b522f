//! `google.bytestream.ByteStream`: blobs as streams of messages.

mod clients;
mod packed;
mod raw;
mod read;
mod resume;
mod stores;
mod write;
