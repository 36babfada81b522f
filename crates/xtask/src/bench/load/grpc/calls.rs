//! The list of calls, encoded before the clock runs.
//!
//! Invariant: nothing is hashed or encoded per call while the generator measures; bytes bodies share are kept once.
//! Blobs of at most [`BATCH_LIMIT`] bytes go in batches of one, as most clients send them; larger ones are streamed in
//! messages of 1 MiB, as Pants and moon do.

use std::ops::Range;

use super::{
    super::{
        super::corpus::{Blob, Payload},
        Work,
    },
    Connection,
    protobuf::{put_bytes, put_head, put_number},
    reply::Expect,
};

/// The largest blob that goes in a batch.
const BATCH_LIMIT: u64 = 1 << 20;
/// Payload of one message of a streamed upload.
const MESSAGE_BYTES: usize = 1 << 20;
/// What stands before each message: not compressed, length in four bytes.
pub(super) const PREFIX_BYTES: usize = 5;

const FIND_MISSING: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
const BATCH_UPDATE: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
const BATCH_READ: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";
const GET_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
const UPDATE_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
const CAPABILITIES: &str = "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities";
const READ: &str = "/google.bytestream.ByteStream/Read";
const WRITE: &str = "/google.bytestream.ByteStream/Write";

/// A piece of a request.
#[derive(Debug, Clone)]
enum Piece {
    /// Bytes of its own.
    Own(Range<usize>),
    /// Bytes that bodies share.
    Shared(Range<usize>),
}

/// One call.
#[derive(Debug)]
struct Call {
    path: &'static str,
    pieces: Range<usize>,
    length: usize,
    upload_bytes: u64,
    expect: Expect,
}

/// Calls in order.
#[derive(Debug)]
pub(in super::super::super) struct CallList<'a> {
    payload: &'a Payload,
    own: Vec<u8>,
    pieces: Vec<Piece>,
    calls: Vec<Call>,
    repeat: bool,
}

impl<'a> CallList<'a> {
    /// An empty list. With `repeat` it starts again at its end.
    pub(in super::super::super) const fn new(payload: &'a Payload, repeat: bool) -> CallList<'a> {
        CallList {
            payload,
            own: Vec::new(),
            pieces: Vec::new(),
            calls: Vec::new(),
            repeat,
        }
    }

    /// Asks what the server can do: shows that it answers.
    pub(in super::super::super) fn capabilities(&mut self) {
        self.unary(CAPABILITIES, &[], 0, Expect::Anything);
    }

    /// Asks which of these are missing; `absent` are.
    pub(in super::super::super) fn find_missing(&mut self, asked: &[Blob], absent: &[Blob]) {
        let mut message = Vec::with_capacity(asked.len() * 76);
        for blob in asked {
            put_bytes(&mut message, 2, &digest(blob));
        }
        let reply = absent.iter().map(|blob| {
            let length = digest(blob).len();
            debug_assert!(length < 128, "a length of one byte");
            length + 2
        });
        let expect = Expect::Missing {
            reply_bytes: reply.sum(),
            absent: absent.iter().map(|blob| blob.hash).collect(),
        };
        self.unary(FIND_MISSING, &message, 0, expect);
    }

    /// Uploads small blobs in one batch, bytes and all.
    pub(in super::super::super) fn batch_update(&mut self, blobs: &[Blob]) {
        let mut message = Vec::new();
        for blob in blobs {
            let mut request = Vec::new();
            put_bytes(&mut request, 1, &digest(blob));
            put_bytes(&mut request, 2, &self.payload.body(blob));
            put_bytes(&mut message, 2, &request);
        }
        let bytes = blobs.iter().map(|blob| blob.length).sum();
        self.unary(BATCH_UPDATE, &message, bytes, Expect::Stored(blobs.len()));
    }

    /// Uploads one blob, in a batch or streamed as its size wants it.
    pub(in super::super::super) fn upload(&mut self, blob: &Blob) {
        if blob.length <= BATCH_LIMIT {
            self.upload_in_batch(blob);
        } else {
            self.upload_streamed(blob);
        }
    }

    fn upload_in_batch(&mut self, blob: &Blob) {
        let first = self.pieces.len();
        let length = blob.length as usize;
        let mut request = Vec::with_capacity(100);
        put_bytes(&mut request, 1, &digest(blob));
        put_head(&mut request, 2, length);
        let mut message = Vec::with_capacity(100);
        put_head(&mut message, 2, request.len() + length);
        message.extend_from_slice(&request);
        self.push_prefix(message.len() + length);
        self.push_own(&message);
        self.push_body(blob, 0..length);
        self.push_call(BATCH_UPDATE, first, blob.length, Expect::Stored(1));
    }

    fn upload_streamed(&mut self, blob: &Blob) {
        let first = self.pieces.len();
        let length = blob.length as usize;
        // The text of an upload's id is free; the key makes it distinct.
        let id = &blob.hash.to_hex()[..32];
        let name = format!("uploads/{id}/{}", resource(blob));
        for start in (0..length).step_by(MESSAGE_BYTES) {
            let end = length.min(start + MESSAGE_BYTES);
            let mut message = Vec::with_capacity(200);
            if start == 0 {
                put_bytes(&mut message, 1, name.as_bytes());
            }
            put_number(&mut message, 2, start as u64);
            put_number(&mut message, 3, u64::from(end == length));
            put_head(&mut message, 10, end - start);
            self.push_prefix(message.len() + end - start);
            self.push_own(&message);
            self.push_body(blob, start..end);
        }
        self.push_call(WRITE, first, blob.length, Expect::Committed(blob.length));
    }

    /// Reads one blob, in a batch or streamed as its size wants it.
    pub(in super::super::super) fn download(&mut self, blob: &Blob) {
        if blob.length <= BATCH_LIMIT {
            let mut message = Vec::with_capacity(80);
            put_bytes(&mut message, 2, &digest(blob));
            self.unary(BATCH_READ, &message, 0, Expect::Batched(*blob));
        } else {
            let mut message = Vec::with_capacity(100);
            put_bytes(&mut message, 1, resource(blob).as_bytes());
            self.unary(READ, &message, 0, Expect::Streamed(*blob));
        }
    }

    /// Stores the result of an action that made these outputs.
    pub(in super::super::super) fn update_result(&mut self, action: &Blob, outputs: &[Blob]) {
        let mut message = Vec::new();
        put_bytes(&mut message, 2, &digest(action));
        put_bytes(&mut message, 3, &action_result(outputs));
        self.unary(UPDATE_RESULT, &message, 0, Expect::Anything);
    }

    /// Asks for the result of an action that made these outputs.
    pub(in super::super::super) fn get_result(&mut self, action: &Blob, outputs: &[Blob]) {
        let mut message = Vec::new();
        put_bytes(&mut message, 2, &digest(action));
        let expect = Expect::Outputs(outputs.iter().map(|blob| blob.hash).collect());
        self.unary(GET_RESULT, &message, 0, expect);
    }

    fn unary(&mut self, path: &'static str, message: &[u8], upload_bytes: u64, expect: Expect) {
        let first = self.pieces.len();
        self.push_prefix(message.len());
        self.push_own(message);
        self.push_call(path, first, upload_bytes, expect);
    }

    fn push_prefix(&mut self, message_bytes: usize) {
        let [a, b, c, d] = (message_bytes as u32).to_be_bytes();
        self.push_own(&[0, a, b, c, d]);
    }

    fn push_own(&mut self, bytes: &[u8]) {
        let start = self.own.len();
        self.own.extend_from_slice(bytes);
        self.pieces.push(Piece::Own(start..self.own.len()));
    }

    /// A stretch of a blob's body.
    fn push_body(&mut self, blob: &Blob, part: Range<usize>) {
        let shared = self.payload.shared(blob.length).len();
        if part.start < shared {
            let end = part.end.min(shared);
            self.pieces.push(Piece::Shared(part.start..end));
        }
        if part.end > shared {
            let start = part.start.max(shared);
            let tail = blob.tail();
            self.push_own(&tail.as_bytes()[start - shared..part.end - shared]);
        }
    }

    fn push_call(&mut self, path: &'static str, first: usize, upload_bytes: u64, expect: Expect) {
        let pieces = first..self.pieces.len();
        let length = self.pieces[pieces.clone()].iter().map(|piece| match piece {
            Piece::Own(range) | Piece::Shared(range) => range.len(),
        });
        self.calls.push(Call {
            path,
            length: length.sum(),
            pieces,
            upload_bytes,
            expect,
        });
    }

    /// The method a call names.
    pub(super) fn path(&self, index: usize) -> &'static str {
        self.calls[index].path
    }

    /// Length of a call's messages with their prefixes.
    pub(super) fn request_bytes(&self, index: usize) -> usize {
        self.calls[index].length
    }

    /// What a call must be answered.
    pub(super) fn expect(&self, index: usize) -> &Expect {
        &self.calls[index].expect
    }

    /// Appends the next bytes of a call and moves its place on.
    pub(super) fn copy(
        &self,
        index: usize,
        place: &mut Place,
        mut wanted: usize,
        out: &mut Vec<u8>,
    ) {
        let pieces = &self.pieces[self.calls[index].pieces.clone()];
        while wanted > 0
            && let Some(piece) = pieces.get(place.piece)
        {
            let bytes = match piece {
                Piece::Own(range) => &self.own[range.clone()],
                Piece::Shared(range) => &self.payload.bytes()[range.clone()],
            };
            let rest = &bytes[place.offset..];
            let now = &rest[..rest.len().min(wanted)];
            out.extend_from_slice(now);
            wanted -= now.len();
            if now.len() == rest.len() {
                *place = Place {
                    piece: place.piece + 1,
                    offset: 0,
                };
            } else {
                place.offset += now.len();
            }
        }
    }
}

/// How far a call's bytes were taken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    piece: usize,
    offset: usize,
}

impl Work for CallList<'_> {
    type Channel = Connection;

    fn index(&self, number: usize) -> Option<usize> {
        if number < self.calls.len() {
            Some(number)
        } else if self.repeat && !self.calls.is_empty() {
            Some(number % self.calls.len())
        } else {
            None
        }
    }

    fn upload_bytes(&self, index: usize) -> u64 {
        self.calls[index].upload_bytes
    }
}

/// A digest message.
fn digest(blob: &Blob) -> Vec<u8> {
    let mut message = Vec::with_capacity(72);
    put_bytes(&mut message, 1, blob.hash.to_hex().as_bytes());
    put_number(&mut message, 2, blob.length);
    message
}

fn resource(blob: &Blob) -> String {
    format!("blobs/{}/{}", blob.hash, blob.length)
}

/// An action result naming these outputs, with the metadata clients want.
fn action_result(outputs: &[Blob]) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, blob) in outputs.iter().enumerate() {
        let mut file = Vec::new();
        put_bytes(&mut file, 1, format!("out/lib/part-{number}.o").as_bytes());
        put_bytes(&mut file, 2, &digest(blob));
        put_bytes(&mut message, 2, &file);
    }
    let mut metadata = Vec::new();
    put_bytes(&mut metadata, 1, b"bench");
    put_bytes(&mut message, 9, &metadata);
    message
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::{Fields, Value};
    use super::*;

    fn whole(list: &CallList<'_>, index: usize, step: usize) -> Vec<u8> {
        let mut place = Place::default();
        let mut bytes = Vec::new();
        while bytes.len() < list.request_bytes(index) {
            list.copy(index, &mut place, step, &mut bytes);
        }
        list.copy(index, &mut place, step, &mut bytes);
        bytes
    }

    #[test]
    fn a_call_taken_in_pieces_of_any_size_is_the_same_call() {
        let payload = Payload::new(100);
        let blob = payload.uniform(1, 100, 1)[0];
        let mut one = CallList::new(&payload, false);
        one.upload(&blob);
        let mut many = CallList::new(&payload, false);
        many.batch_update(&[blob]);
        let message = whole(&many, 0, usize::MAX);
        assert!(message.ends_with(&payload.body(&blob)));
        for step in 1..=message.len() {
            assert_eq!(whole(&one, 0, step), message, "in pieces of {step}");
        }
        assert_eq!((one.index(0), one.index(1)), (Some(0), None));
    }

    #[test]
    fn a_large_blob_is_streamed_in_messages_that_give_its_bytes() {
        let length = 5 * MESSAGE_BYTES as u64 / 2;
        let payload = Payload::new(length);
        let blob = payload.uniform(1, length, 1)[0];
        let mut list = CallList::new(&payload, true);
        list.upload(&blob);
        let bytes = whole(&list, 0, 1000);
        let mut rest = bytes.as_slice();
        let mut body = Vec::new();
        while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
            let (message, after) = after.split_at(length as usize);
            for field in Fields::of(message) {
                if let (10, Value::Bytes(data)) = field.unwrap() {
                    body.extend_from_slice(data);
                }
            }
            rest = after;
        }
        assert_eq!(body, payload.body(&blob));
        assert_eq!(list.index(7), Some(0));
    }
}
