//! Blobs that are written as zstd.

use std::io::Write as _;

use tonic::Code;
use zimcache_store::{BlobStore, Touch};
use zimcache_types::{Digest, Function, Namespace};

use crate::support::{
    OpenWrite, Server, bytestream, code, message, messages, packed_name, pattern, read, read_name,
    send, write,
};

/// Most bytes of a block.
const BLOCK_BYTES: usize = 128 << 10;

/// Frames in which nothing is smaller than it was.
pub(super) fn incompressible(blob: &[u8]) -> Vec<u8> {
    let frames = blob.chunks(BLOCK_BYTES).map(|block| {
        let size = (block.len() as u32).to_le_bytes();
        let head = ((block.len() as u32) << 3 | 1).to_le_bytes();
        let magic = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];
        [&magic[..], &size, &head[..3], block].concat()
    });
    frames.collect::<Vec<_>>().concat()
}

/// A frame that says nothing.
fn skippable(length: usize) -> Vec<u8> {
    let size = (length as u32).to_le_bytes();
    [&[0x50, 0x2a, 0x4d, 0x18][..], &size, &vec![7; length]].concat()
}

/// A frame without its content's size, with a window of so many bits and a checksum.
fn streamed(blob: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(blob).unwrap();
    encoder.finish().unwrap()
}

async fn is_absent(server: &Server, blob: &[u8]) -> bool {
    let digests = [Digest::of(Function::Sha256, blob)];
    let namespace = Namespace::default();
    let missing = server.store.missing(&namespace, &digests, Touch::No);
    missing.await.unwrap() == [true]
}

#[tokio::test]
async fn what_is_written_as_zstd_is_the_blob_that_it_unpacks_to() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [0, 1, 1000, 262_144, 262_145, (3 << 20) + 1] {
        for (kind, seed) in [(0, 100), (1, 101), (2, 102), (3, 103)] {
            let blob = pattern(seed, size);
            let data = match kind {
                0 => zstd::bulk::compress(&blob, 3).unwrap(),
                1 => incompressible(&blob),
                2 => streamed(&blob, 21),
                _ => {
                    let (front, back) = blob.split_at(size / 3);
                    let back = zstd::bulk::compress(back, 1).unwrap();
                    [streamed(front, 20), skippable(100), back, skippable(0)].concat()
                }
            };
            let committed = write(&mut client, &packed_name(&blob), &data).await;
            // The empty blob is there before it is written.
            let expected = if size == 0 { -1 } else { data.len() as i64 };
            assert_eq!(committed.unwrap(), expected, "{size} {kind}");
            assert_eq!(read(&mut client, &read_name(&blob)).await.unwrap(), blob);
        }
    }
}

#[tokio::test]
async fn offsets_count_the_bytes_that_travel() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(104, 1 << 20);
    let data = zstd::bulk::compress(&blob, 1).unwrap();
    let name = packed_name(&blob);
    let wrong = vec![
        message(&name, 0, &data[..1000], false),
        message(&name, 2000, &data[1000..], true),
    ];
    assert_eq!(code(send(&mut client, wrong).await), Code::InvalidArgument);
    let right = messages(&name, 0, &data, 8 << 10);
    assert_eq!(send(&mut client, right).await.unwrap(), data.len() as i64);
}

#[tokio::test]
async fn what_unpacks_to_something_else_is_invalid() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1000, 3 << 20] {
        let (blob, other) = (pattern(105, size), pattern(106, size));
        let name = packed_name(&blob);
        let good = zstd::bulk::compress(&blob, 1).unwrap();
        let mut flipped = streamed(&blob, 20);
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        for (what, data) in [
            ("other bytes", zstd::bulk::compress(&other, 1).unwrap()),
            ("too few", zstd::bulk::compress(&blob[1..], 1).unwrap()),
            (
                "too many",
                [&good[..], &zstd::bulk::compress(b"x", 1).unwrap()].concat(),
            ),
            ("nothing", Vec::new()),
            ("no zstd", blob.clone()),
            ("garbage behind it", [&good[..], b"garbage"].concat()),
            ("half a head behind it", [&good[..], &good[..3]].concat()),
            ("cut short", good[..good.len() - 1].to_vec()),
            ("a wrong checksum", flipped),
        ] {
            let outcome = write(&mut client, &name, &data).await;
            assert_eq!(code(outcome), Code::InvalidArgument, "{size}: {what}");
        }
        assert!(is_absent(&server, &blob).await);
    }
}

#[tokio::test]
async fn a_bomb_ends_when_it_unfolds_into_more_than_the_blob() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 1).unwrap();
    assert!(bomb.len() < 64 << 10);
    for size in [10, 300_000] {
        let blob = pattern(107, size);
        let outcome = write(&mut client, &packed_name(&blob), &bomb).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{size}");
    }
}

#[tokio::test]
async fn a_window_of_more_than_8_mib_is_refused() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(108, 1 << 20);
    let wide = streamed(&blob, 24);
    let outcome = write(&mut client, &packed_name(&blob), &wide).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
    let allowed = streamed(&blob, 23);
    let committed = write(&mut client, &packed_name(&blob), &allowed).await;
    assert_eq!(committed.unwrap(), allowed.len() as i64);
}

#[tokio::test]
async fn frames_that_say_nothing_end_when_they_are_too_many() {
    let server = Server::start().await;
    let client = bytestream(&server);
    for size in [1000, 300_000] {
        let blob = pattern(109, size);
        let open = OpenWrite::begin(&client);
        let (mut name, mut offset) = (packed_name(&blob), 0);
        let flood = skippable(50_000);
        while open.send(message(&name, offset, &flood, false)).await {
            offset += flood.len();
            name.clear();
            assert!(offset < 256 << 20, "the flood is taken for ever");
        }
        assert_eq!(code(open.answer().await), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn more_writes_than_decoders_all_end_well() {
    let server = Server::start().await;
    let client = bytestream(&server);
    let mut open = Vec::new();
    for seed in 0..80 {
        let blob = pattern(200 + seed, 400_000);
        let data = zstd::bulk::compress(&blob, 1).unwrap();
        let stream = OpenWrite::begin(&client);
        let half = data.len() / 2;
        let first = message(&packed_name(&blob), 0, &data[..half], false);
        assert!(stream.send(first).await);
        open.push((stream, data, half));
    }
    for (stream, data, half) in open {
        let last = message("", half, &data[half..], true);
        assert!(stream.send(last).await);
        assert_eq!(stream.close().await.unwrap(), data.len() as i64);
    }
}
