//! A connection against a server written out by hand: windows, settings, answers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    super::super::{
        corpus::{Blob, Payload},
        load::{self, Limit, Outcome, Pace, Plan},
    },
    CallList,
    frames::{self, Head, Piece},
    protobuf,
};

/// Room the server gives for one upload; small, so that it must be given more often.
const WINDOW: usize = 1_000;

/// What the server saw of one connection.
#[derive(Default)]
struct Seen {
    data: Vec<u8>,
    acknowledged: bool,
    longest: usize,
}

/// Answers one call with `message` after it has read all of it.
fn serve(message: &'static [u8], grpc_status: &'static [u8]) -> (SocketAddr, JoinHandle<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        converse(&mut stream, message, grpc_status)
    });
    (address, server)
}

fn converse(stream: &mut TcpStream, message: &[u8], grpc_status: &[u8]) -> Seen {
    let mut preface = [0; frames::PREFACE.len()];
    stream.read_exact(&mut preface).unwrap();
    assert_eq!(preface, frames::PREFACE);
    let mut out = Vec::new();
    let [.., high, low] = (WINDOW as u32).to_be_bytes();
    frames::put(&mut out, frames::SETTINGS, 0, 0, &[0, 4, 0, 0, high, low]);
    frames::put(&mut out, frames::PING, 0, 0, b"balance?");
    stream.write_all(&out).unwrap();
    let mut seen = Seen::default();
    let mut reader = frames::Reader::default();
    let mut buffer = [0; 4096];
    let mut ended = false;
    // Room of the connection: the default, and what is given back.
    let mut room = 65_535;
    while !ended {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the client has left");
        let mut given = 0;
        let fed = reader.feed(&buffer[..count], |piece| {
            match piece {
                Piece::Data(head, bytes, last) => {
                    seen.data.extend_from_slice(bytes);
                    seen.longest = seen.longest.max(head.length);
                    given += bytes.len();
                    ended |= last && head.flags & frames::END_STREAM != 0;
                }
                Piece::Frame(head, _) if head.flags & frames::ACK != 0 => {
                    seen.acknowledged |= head.kind == frames::SETTINGS;
                }
                Piece::Frame(..) => {}
            }
            Ok(())
        });
        fed.unwrap();
        assert!(seen.data.len() <= room, "more than there is room for");
        room += given;
        if given > 0 && !ended {
            for stream_id in [0, 1] {
                let mut out = Vec::new();
                let more = (given as u32).to_be_bytes();
                frames::put(&mut out, frames::WINDOW, 0, stream_id, &more);
                stream.write_all(&out).unwrap();
            }
        }
    }
    stream.write_all(&answer(message, grpc_status)).unwrap();
    seen
}

/// Headers, the message in two frames, trailers.
fn answer(message: &[u8], grpc_status: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frames::put(&mut out, frames::HEADERS, frames::END_HEADERS, 1, &[0x88]);
    let mut data = vec![0];
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(message);
    let (one, two) = data.split_at(3);
    for part in [one, two] {
        frames::put(&mut out, frames::DATA, 0, 1, part);
    }
    let mut block = b"\x40\x0bgrpc-status".to_vec();
    block.push(grpc_status.len() as u8);
    block.extend_from_slice(grpc_status);
    let flags = frames::END_HEADERS | frames::END_STREAM;
    let (begin, end) = block.split_at(4);
    let head = Head {
        length: begin.len(),
        kind: frames::HEADERS,
        flags: flags & frames::END_STREAM,
        stream: 1,
    };
    head.put(&mut out);
    out.extend_from_slice(begin);
    frames::put(&mut out, frames::CONTINUATION, frames::END_HEADERS, 1, end);
    out
}

fn call(address: SocketAddr, calls: &CallList<'_>) -> Outcome {
    let plan = Plan {
        address,
        connections: 1,
        work: calls,
        pace: Pace::Closed,
        limit: Limit::Once,
    };
    load::run(&plan).unwrap()
}

fn upload<'a>(payload: &'a Payload, blob: &Blob) -> CallList<'a> {
    let mut calls = CallList::new(payload, false);
    calls.upload(blob);
    calls
}

/// A batch's answer with one blob stored.
const STORED: &[u8] = b"\x0a\x02\x12\x00";

#[test]
fn an_upload_larger_than_the_window_goes_out_as_room_is_given() {
    // Larger than both windows of the beginning.
    let payload = Payload::new(200_000);
    let blob = payload.uniform(1, 200_000, 1)[0];
    let calls = upload(&payload, &blob);
    let (address, server) = serve(STORED, b"0");
    let outcome = call(address, &calls);
    assert_eq!(outcome.first_error, None);
    assert_eq!((outcome.requests, outcome.body_bytes), (1, 200_000));
    let seen = server.join().unwrap();
    assert!(seen.acknowledged, "the settings");
    assert!(seen.longest <= 16 << 10, "{}", seen.longest);
    assert!(seen.data.ends_with(&payload.body(&blob)));
    let message: Vec<_> = protobuf::Fields::of(&seen.data[5..]).collect();
    assert!(matches!(message[..], [Ok((2, _))]));
}

#[test]
fn a_call_that_fails_is_an_error() {
    let payload = Payload::new(10);
    let blob = payload.uniform(1, 10, 1)[0];
    for (message, status) in [
        (STORED, &b"8"[..]),
        (b"", b"0"),
        (b"\x0a\x04\x12\x02\x08\x03", b"0"),
    ] {
        let calls = upload(&payload, &blob);
        let (address, server) = serve(message, status);
        let outcome = call(address, &calls);
        assert_eq!((outcome.requests, outcome.errors), (0, 1));
        server.join().unwrap();
    }
}
