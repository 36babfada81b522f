//! A server on a folder, a client of its byte stream, and blobs.

use std::time::Duration;

use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest,
    byte_stream_client::ByteStreamClient,
};
use rustix::process::Signal;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use zimcache_types::{Digest, Function};

use crate::process::{Folder, Server};

/// Longest that any single wait may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// What goes wrong with a call.
pub(crate) type Outcome<T> = Result<T, Status>;

/// A server that can be killed and started again on the same folder.
pub(crate) struct Host {
    pub(crate) folder: Folder,
    server: Option<Server>,
}

impl Host {
    pub(crate) fn start() -> Host {
        let folder = Folder::new();
        let server = Server::start(&folder, &[]);
        Host {
            folder,
            server: Some(server),
        }
    }

    /// Ends it as the system does, in the middle of whatever it does, and starts it again.
    pub(crate) fn restart(&mut self, signal: Signal) {
        if let Some(server) = self.server.take() {
            server.signal(signal);
            server.wait();
        }
        self.server = Some(Server::start(&self.folder, &[]));
    }

    pub(crate) fn client(&self) -> ByteStreamClient<Channel> {
        let address = self.server.as_ref().unwrap().address;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        ByteStreamClient::new(endpoint.connect_lazy())
    }
}

/// Fails a test that waits for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap()
}

/// Bytes that compress, and depend on the seed.
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

/// `{hash}/{size}` of a blob.
pub(crate) fn place(blob: &[u8]) -> String {
    let hash = Digest::of(Function::Sha256, blob).hash;
    format!("{hash}/{}", blob.len())
}

/// The name of an upload.
pub(crate) fn upload(uuid: &str, is_packed: bool, blob: &[u8]) -> String {
    let kind = if is_packed {
        "compressed-blobs/zstd"
    } else {
        "blobs"
    };
    format!("uploads/{uuid}/{kind}/{}", place(blob))
}

/// A blob, or the part of it from a byte on, as it travels.
pub(crate) fn travelling(part: &[u8], is_packed: bool) -> Vec<u8> {
    if !is_packed {
        return part.to_vec();
    }
    let frames = part.chunks(100_000);
    frames
        .flat_map(|frame| zstd::bulk::compress(frame, 1).unwrap())
        .collect()
}

pub(crate) fn message(name: &str, offset: usize, data: &[u8], finish: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: i64::try_from(offset).unwrap(),
        finish_write: finish,
        data: data.to_vec(),
    }
}

/// The messages of a write that begins at an offset.
pub(crate) fn messages(name: &str, first: usize, data: &[u8]) -> Vec<WriteRequest> {
    const EACH: usize = 256 << 10;
    let last = data.len().saturating_sub(1) / EACH;
    let chunk = |at: usize| &data[at * EACH..data.len().min((at + 1) * EACH)];
    (0..=last)
        .map(|at| message(name, first + at * EACH, chunk(at), at == last))
        .collect()
}

pub(crate) async fn send(
    client: &mut ByteStreamClient<Channel>,
    messages: Vec<WriteRequest>,
) -> Outcome<i64> {
    let messages = futures_util::stream::iter(messages);
    let answer = within(client.write(messages)).await?;
    Ok(answer.into_inner().committed_size)
}

pub(crate) async fn read(client: &mut ByteStreamClient<Channel>, name: String) -> Outcome<Vec<u8>> {
    let request = ReadRequest {
        resource_name: name,
        ..ReadRequest::default()
    };
    let mut messages = within(client.read(request)).await?.into_inner();
    let mut data = Vec::new();
    while let Some(message) = within(messages.message()).await? {
        data.extend(message.data);
    }
    Ok(data)
}

pub(crate) async fn held(
    client: &mut ByteStreamClient<Channel>,
    name: &str,
) -> QueryWriteStatusResponse {
    let request = QueryWriteStatusRequest {
        resource_name: name.to_owned(),
    };
    let answer = within(client.query_write_status(request)).await;
    answer.unwrap().into_inner()
}

/// A write whose messages are sent one by one.
pub(crate) struct OpenWrite {
    messages: mpsc::Sender<WriteRequest>,
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
