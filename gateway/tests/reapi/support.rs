//! Clients of a test gateway: channels, resource names, and whole uploads and downloads.
//!
//! The gateway itself, its policies and the stores that fail are those of the wire tests (`wire`).

use std::net::SocketAddr;

use bazel_remote_apis::{
    build::bazel::remote::execution::v2 as reapi,
    google::bytestream::{
        QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest,
        byte_stream_client::ByteStreamClient,
    },
};
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use zimcache_types::{Digest, Function};

pub(crate) use crate::wire::{Server, within};

/// A connection to a gateway. Connects at the first call.
pub(crate) fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_lazy()
}

/// The byte stream of a gateway.
pub(crate) fn bytestream(server: &Server) -> ByteStreamClient<Channel> {
    ByteStreamClient::new(channel(server.address)).max_decoding_message_size(64 << 20)
}

/// Bytes that differ from place to place, compress well, and depend on the seed.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend((state >> 40).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The digest of a blob, as a message.
pub(crate) fn digest(blob: &[u8]) -> reapi::Digest {
    reapi::Digest {
        hash: hash(Function::Sha256, blob),
        size_bytes: i64::try_from(blob.len()).unwrap(),
    }
}

/// The hash of a blob as hex.
pub(crate) fn hash(function: Function, blob: &[u8]) -> String {
    Digest::of(function, blob).hash.to_hex()
}

/// `{hash}/{size}` of a blob.
pub(crate) fn place(blob: &[u8]) -> String {
    format!("{}/{}", hash(Function::Sha256, blob), blob.len())
}

/// The name under which a blob is read.
pub(crate) fn read_name(blob: &[u8]) -> String {
    format!("blobs/{}", place(blob))
}

/// A name under which a blob is written.
pub(crate) fn write_name(blob: &[u8]) -> String {
    format!("uploads/{UUID}/blobs/{}", place(blob))
}

/// The same for a blob that travels as zstd.
pub(crate) fn packed_name(blob: &[u8]) -> String {
    format!("uploads/{UUID}/compressed-blobs/zstd/{}", place(blob))
}

/// Name of an upload.
pub(crate) const UUID: &str = "9d2f1ff8-6d2a-4b43-9a80-7c3a5d1f2b11";

/// What goes wrong with a call.
pub(crate) type Outcome<T> = Result<T, Status>;

/// Reads a resource, all of it.
pub(crate) async fn read(client: &mut ByteStreamClient<Channel>, name: &str) -> Outcome<Vec<u8>> {
    read_part(client, name, 0, 0).await
}

/// Reads a resource from an offset on.
pub(crate) async fn read_part(
    client: &mut ByteStreamClient<Channel>,
    name: &str,
    read_offset: i64,
    read_limit: i64,
) -> Outcome<Vec<u8>> {
    let request = ReadRequest {
        resource_name: name.to_owned(),
        read_offset,
        read_limit,
    };
    let mut messages = within(client.read(request)).await?.into_inner();
    let mut data = Vec::new();
    while let Some(message) = within(messages.message()).await? {
        assert!(
            message.data.len() <= 1 << 20,
            "a message has at most 1 MiB of data"
        );
        data.extend(message.data);
    }
    Ok(data)
}

/// One message of a write.
pub(crate) fn message(name: &str, offset: usize, data: &[u8], finish: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: i64::try_from(offset).unwrap(),
        finish_write: finish,
        data: data.to_vec(),
    }
}

/// The messages of a write that begins at an offset: the name in the first one only, the end in the last one.
pub(crate) fn messages(name: &str, first: usize, data: &[u8], each: usize) -> Vec<WriteRequest> {
    let mut chunks: Vec<&[u8]> = data.chunks(each).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let last = chunks.len() - 1;
    let numbered = chunks.into_iter().enumerate();
    numbered
        .map(|(at, chunk)| {
            let name = if at == 0 { name } else { "" };
            message(name, first + at * each, chunk, at == last)
        })
        .collect()
}

/// A write whose messages are sent one by one; it ends when the sender is dropped.
pub(crate) struct OpenWrite {
    pub(crate) messages: mpsc::Sender<WriteRequest>,
    answer: JoinHandle<Outcome<i64>>,
}

impl OpenWrite {
    pub(crate) fn begin(client: &ByteStreamClient<Channel>) -> OpenWrite {
        let (messages, mut sent) = mpsc::channel(1);
        let mut client = client.clone();
        let answer = zimcache_telemetry::task::spawn("write", async move {
            let sent = futures_util::stream::poll_fn(move |cx| sent.poll_recv(cx));
            let answer = client.write(sent).await?;
            Ok(answer.into_inner().committed_size)
        });
        OpenWrite { messages, answer }
    }

    /// Sends a message; false when nobody takes it any more.
    pub(crate) async fn send(&self, message: WriteRequest) -> bool {
        within(self.messages.send(message)).await.is_ok()
    }

    /// The answer, while the client could go on sending.
    pub(crate) async fn answer(self) -> Outcome<i64> {
        let answer = within(self.answer).await.unwrap();
        drop(self.messages);
        answer
    }

    /// The answer after the client has said nothing more.
    pub(crate) async fn close(self) -> Outcome<i64> {
        drop(self.messages);
        within(self.answer).await.unwrap()
    }

    /// Breaks the stream, as a lost connection does.
    pub(crate) async fn cut(self) {
        self.answer.abort();
        within(self.answer).await.ok();
    }
}

/// Sends messages, and gives the committed size.
pub(crate) async fn send(
    client: &mut ByteStreamClient<Channel>,
    messages: Vec<WriteRequest>,
) -> Outcome<i64> {
    let messages = futures_util::stream::iter(messages);
    let answer = within(client.write(messages)).await?;
    Ok(answer.into_inner().committed_size)
}

/// Writes data under a name in messages of 64 KiB.
pub(crate) async fn write(
    client: &mut ByteStreamClient<Channel>,
    name: &str,
    data: &[u8],
) -> Outcome<i64> {
    send(client, messages(name, 0, data, 64 << 10)).await
}

/// What is held of a write.
pub(crate) async fn held(
    client: &mut ByteStreamClient<Channel>,
    name: &str,
) -> Outcome<QueryWriteStatusResponse> {
    let request = QueryWriteStatusRequest {
        resource_name: name.to_owned(),
    };
    let answer = within(client.query_write_status(request)).await?;
    Ok(answer.into_inner())
}

/// The code of a call that must have failed.
pub(crate) fn code<T: std::fmt::Debug>(outcome: Outcome<T>) -> Code {
    outcome.expect_err("the call must fail").code()
}
