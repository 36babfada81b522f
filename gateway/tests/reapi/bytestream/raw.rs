//! What the client library cannot send: messages in any frames, fields in any order, and bytes that are no call.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Request, StatusCode, body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::net::TcpStream;

use crate::support::{Server, pattern, place, within, write_name};

const WRITE: &str = "/google.bytestream.ByteStream/Write";
const READ: &str = "/google.bytestream.ByteStream/Read";
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;

/// How a call was answered.
#[derive(Debug)]
struct Answer {
    http: StatusCode,
    grpc: Option<i32>,
    data: Bytes,
}

impl Answer {
    /// The committed size in an answer to a write.
    fn committed(&self) -> i64 {
        use bazel_remote_apis::google::bytestream::WriteResponse;
        use prost::Message as _;
        assert_eq!(self.grpc, Some(0));
        WriteResponse::decode(&self.data[5..])
            .unwrap()
            .committed_size
    }
}

/// Sends a call in these frames.
async fn call(server: &Server, path: &str, media_type: &str, frames: Vec<Bytes>) -> Answer {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    zimcache_telemetry::task::spawn("client", connection);
    let frames = frames
        .into_iter()
        .map(|frame| Ok::<_, Infallible>(Frame::data(frame)));
    let request = Request::post(format!("http://test{path}"))
        .header("content-type", media_type)
        .header("te", "trailers")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    let collected = within(body.collect()).await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or(head.headers);
    let grpc = trailers.get("grpc-status");
    Answer {
        http: head.status,
        grpc: grpc.map(|code| code.to_str().unwrap().parse().unwrap()),
        data: collected.to_bytes(),
    }
}

async fn write(server: &Server, frames: Vec<Bytes>) -> Answer {
    call(server, WRITE, "application/grpc", frames).await
}

/// A message with its prefix.
fn prefixed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// A field of bytes.
fn bytes(number: u32, value: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(value.len() as u64, &mut field);
    field.extend_from_slice(value);
    field
}

/// A field that is a number.
fn number(number: u32, value: u64) -> Vec<u8> {
    let mut field = Vec::new();
    encode_key(number, WireType::Varint, &mut field);
    encode_varint(value, &mut field);
    field
}

fn name(blob: &[u8]) -> Vec<u8> {
    bytes(1, write_name(blob).as_bytes())
}

fn data(part: &[u8]) -> Vec<u8> {
    bytes(10, part)
}

fn finish() -> Vec<u8> {
    number(3, 1)
}

#[tokio::test]
async fn frames_of_a_single_byte_make_messages_all_the_same() {
    let server = Server::start().await;
    let blob = pattern(400, 2000);
    let first = prefixed(&[name(&blob), data(&blob[..1000])].concat());
    let last = prefixed(&[number(2, 1000), finish(), data(&blob[1000..])].concat());
    let frames = [first, last].concat();
    let frames = frames.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
    let answer = write(&server, frames.collect()).await;
    assert_eq!(answer.committed(), 2000);
}

#[tokio::test]
async fn one_message_may_hold_16_mib() {
    let server = Server::start().await;
    let blob = pattern(401, 16 << 20);
    let message = prefixed(&[name(&blob), finish(), data(&blob)].concat());
    let answer = write(&server, vec![message.into()]).await;
    assert_eq!(answer.committed(), 16 << 20);
    let longer = pattern(402, 17 << 20);
    let message = prefixed(&[name(&longer), finish(), data(&longer)].concat());
    let answer = write(&server, vec![message.into()]).await;
    assert_eq!(answer.grpc, Some(RESOURCE_EXHAUSTED));
}

#[tokio::test]
async fn a_message_that_is_compressed_is_not_implemented() {
    let server = Server::start().await;
    let blob = pattern(403, 1000);
    for flag in [1, 2, 255] {
        let mut message = prefixed(&[name(&blob), finish(), data(&blob)].concat());
        message[0] = flag;
        let answer = write(&server, vec![message.into()]).await;
        assert_eq!(
            (answer.http, answer.grpc),
            (StatusCode::OK, Some(UNIMPLEMENTED))
        );
    }
}

#[tokio::test]
async fn fields_that_nobody_knows_are_passed_over() {
    let server = Server::start().await;
    let blob = pattern(404, 1000);
    let mut fixed = Vec::new();
    encode_key(8, WireType::SixtyFourBit, &mut fixed);
    fixed.extend([7; 8]);
    encode_key(9, WireType::ThirtyTwoBit, &mut fixed);
    fixed.extend([7; 4]);
    let unknown = [
        number(4, u64::MAX),
        fixed,
        bytes(99, &[7; 300]),
        bytes(2000, b""),
    ]
    .concat();
    let message = [
        unknown.clone(),
        name(&blob),
        unknown.clone(),
        finish(),
        data(&blob),
        unknown,
    ];
    let answer = write(&server, vec![prefixed(&message.concat()).into()]).await;
    assert_eq!(answer.committed(), 1000);
}

#[tokio::test]
async fn fields_may_come_in_any_order() {
    let server = Server::start().await;
    let orders: [&[usize]; 6] = [
        &[0, 1, 2, 3],
        &[3, 2, 1, 0],
        &[3, 0, 1, 2],
        &[1, 3, 0, 2],
        &[2, 3, 1, 0],
        &[0, 3, 2, 1],
    ];
    for (seed, order) in orders.into_iter().enumerate() {
        let blob = pattern(410 + seed as u64, 3000);
        let message = |offset: usize, end: usize| {
            let fields = [
                name(&blob),
                number(2, offset as u64),
                number(3, u64::from(end == blob.len())),
                data(&blob[offset..end]),
            ];
            let fields: Vec<_> = order.iter().map(|at| fields[*at].clone()).collect();
            prefixed(&fields.concat())
        };
        let frames = vec![message(0, 1000).into(), message(1000, 3000).into()];
        assert_eq!(write(&server, frames).await.committed(), 3000, "{order:?}");
    }
}

#[tokio::test]
async fn messages_that_contradict_themselves_are_invalid() {
    let server = Server::start().await;
    let blob = pattern(420, 1000);
    let other = bytes(1, write_name(b"other").as_bytes());
    let mut group = Vec::new();
    encode_key(7, WireType::StartGroup, &mut group);
    for (what, message) in [
        (
            "data twice",
            [name(&blob), finish(), data(&blob), data(b"")].concat(),
        ),
        (
            "another name behind",
            [name(&blob), finish(), data(&blob), other].concat(),
        ),
        (
            "another offset behind",
            [name(&blob), finish(), data(&blob), number(2, 7)].concat(),
        ),
        (
            "a name that is a number",
            [number(1, 7), finish(), data(&blob)].concat(),
        ),
        (
            "an offset that is text",
            [name(&blob), bytes(2, b"0"), data(&blob)].concat(),
        ),
        (
            "a group",
            [name(&blob), group, finish(), data(&blob)].concat(),
        ),
        (
            "no text",
            [bytes(1, &[0xff, 0xfe]), finish(), data(&blob)].concat(),
        ),
        ("no message", vec![0xff; 20]),
        (
            "a field behind the end",
            [name(&blob), vec![0x52, 0x7f, 1]].concat(),
        ),
    ] {
        let answer = write(&server, vec![prefixed(&message).into()]).await;
        assert_eq!(answer.grpc, Some(INVALID_ARGUMENT), "{what}");
    }
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn a_body_that_ends_in_a_message_is_invalid() {
    let server = Server::start().await;
    let blob = pattern(421, 1000);
    let whole = prefixed(&[name(&blob), finish(), data(&blob)].concat());
    for end in [1, 4, 5, 6, 20, whole.len() - 1001, whole.len() - 1] {
        let answer = write(&server, vec![Bytes::copy_from_slice(&whole[..end])]).await;
        assert_eq!(answer.grpc, Some(INVALID_ARGUMENT), "{end}");
    }
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn a_read_takes_one_message() {
    let server = Server::start().await;
    let blob = pattern(422, 1000);
    server.stock(&blob).await;
    let request = prefixed(&bytes(1, format!("blobs/{}", place(&blob)).as_bytes()));
    let once = call(
        &server,
        READ,
        "application/grpc+proto",
        vec![request.clone().into()],
    )
    .await;
    assert_eq!((once.grpc, once.data.len()), (Some(0), 1000 + 5 + 3));
    let twice = [&request[..], &request].concat();
    let twice = call(&server, READ, "application/grpc", vec![twice.into()]).await;
    assert_eq!(twice.grpc, Some(INVALID_ARGUMENT));
    let none = call(&server, READ, "application/grpc", Vec::new()).await;
    assert_eq!(none.grpc, Some(INVALID_ARGUMENT));
    let other = call(&server, READ, "application/json", vec![request.into()]).await;
    assert_eq!(other.http, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn messages_may_be_cut_into_frames_anywhere(
        sizes in proptest::collection::vec(0_usize..4000, 1..6),
        cuts in proptest::collection::vec(0_usize..20_000, 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start().await;
            let blob = pattern(430, sizes.iter().sum());
            let (mut body, mut offset) = (Vec::new(), 0);
            for (at, size) in sizes.iter().enumerate() {
                let mut fields = if at == 0 { name(&blob) } else { Vec::new() };
                fields.extend(number(2, offset as u64));
                fields.extend(number(3, u64::from(at + 1 == sizes.len())));
                fields.extend(data(&blob[offset..offset + size]));
                body.extend(prefixed(&fields));
                offset += size;
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % body.len()).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let frames = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]);
            let frames = frames.filter(|frame| !frame.is_empty()).map(Bytes::copy_from_slice);
            let answer = write(&server, frames.collect()).await;
            assert_eq!(answer.committed(), blob.len() as i64);
            assert_eq!(server.store.blob_names().len(), usize::from(!blob.is_empty()));
        });
    }
}
