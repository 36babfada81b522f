//! Writes and reads in the shapes in which real clients send them.

use bazel_remote_apis::google::bytestream::WriteRequest;
use zimcache_types::Function;

use crate::support::{
    Server, UUID, bytestream, hash, held, message, messages, packed_name, pattern, place, read,
    read_name, read_part, send, write_name,
};

/// Messages with the name on each of them.
fn named(name: &str, data: &[u8], each: usize) -> Vec<WriteRequest> {
    let mut all = messages(name, 0, data, each);
    for message in &mut all {
        name.clone_into(&mut message.resource_name);
    }
    all
}

/// Bazel without compression: 16 KiB messages, the name on the first, any size of blob, the whole size in the answer.
#[tokio::test]
async fn bazel_writes_every_blob_in_messages_of_16_kib() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1, 16 << 10, 100_000, 5 << 20] {
        let blob = pattern(500, size);
        let name = format!("a/b/{}", write_name(&blob));
        let committed = send(&mut client, messages(&name, 0, &blob, 16 << 10)).await;
        assert_eq!(committed.unwrap(), size as i64);
        let name = format!("a/b/{}", read_name(&blob));
        assert!(read(&mut client, &name).await.unwrap() == blob);
    }
}

/// New Bazel: zstd from 100 bytes on, the segment of BLAKE3, and a read that goes on where it broke off.
#[tokio::test]
async fn bazel_compresses_and_goes_on_where_a_read_broke_off() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [100, 50_000, 5 << 20] {
        let blob = pattern(501, size);
        let data = zstd::bulk::compress(&blob, 3).unwrap();
        let place = format!("blake3/{}/{size}", hash(Function::Blake3, &blob));
        let name = format!("uploads/{UUID}/compressed-blobs/zstd/{place}");
        let committed = send(&mut client, messages(&name, 0, &data, 16 << 10)).await;
        assert_eq!(committed.unwrap(), data.len() as i64);
        let again = send(&mut client, messages(&name, 0, &data, 16 << 10)).await;
        assert_eq!(again.unwrap(), -1);
        let known = held(&mut client, &name).await.unwrap();
        assert!(known.complete);
        let name = format!("compressed-blobs/zstd/{place}");
        let middle = size / 2;
        let rest = read_part(&mut client, &name, middle as i64, 0)
            .await
            .unwrap();
        assert!(zstd::decode_all(&rest[..]).unwrap() == blob[middle..]);
    }
}

/// buck2: zstd for all that it streams, the name on each message, messages as large as a batch may be; it never says
/// which function, and wants its own count of bytes or -1.
#[tokio::test]
async fn buck2_streams_zstd_in_messages_as_large_as_a_batch() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for function in [Function::Sha256, Function::Blake3] {
        // Small blobs go in batches, and teach which function it is.
        let small = pattern(502, 1000);
        let name = format!("uploads/{UUID}/blobs/{}/1000", hash(function, &small));
        send(&mut client, named(&name, &small, 1000)).await.unwrap();
        let blob = pattern(503 + u64::from(function.number()), 12 << 20);
        let place = format!("{}/{}", hash(function, &blob), blob.len());
        let name = format!("uploads/{UUID}/compressed-blobs/zstd/{place}");
        let data = super::packed::incompressible(&blob);
        let committed = send(&mut client, named(&name, &data, (4 << 20) - (64 << 10))).await;
        assert_eq!(committed.unwrap(), data.len() as i64);
        let name = format!("compressed-blobs/zstd/{place}");
        let data = read(&mut client, &name).await.unwrap();
        assert!(zstd::decode_all(&data[..]).unwrap() == blob);
    }
}

/// Pants: never compressed, 1 MiB messages with the name on each, the exact size in the answer also when the blob is
/// there; it writes the empty blob, too.
#[tokio::test]
async fn pants_writes_uncompressed_and_wants_the_exact_size() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [0, 1 << 20, (5 << 20) + 1] {
        let blob = pattern(520, size);
        for _ in 0..2 {
            let all = named(&write_name(&blob), &blob, 1 << 20);
            assert_eq!(send(&mut client, all).await.unwrap(), size as i64);
        }
        assert!(read(&mut client, &read_name(&blob)).await.unwrap() == blob);
    }
}

/// moon: zstd in messages of 8 KiB, uncompressed in messages of 1 MiB, the name on the first.
#[tokio::test]
async fn moon_writes_zstd_in_messages_of_8_kib() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(521, 6 << 20);
    let data = zstd::bulk::compress(&blob, 1).unwrap();
    let name = format!("moon-outputs/{}", packed_name(&blob));
    let committed = send(&mut client, messages(&name, 0, &data, 8 << 10)).await;
    assert_eq!(committed.unwrap(), data.len() as i64);
    let name = format!("moon-outputs/compressed-blobs/zstd/{}", place(&blob));
    let data = read(&mut client, &name).await.unwrap();
    assert!(zstd::decode_all(&data[..]).unwrap() == blob);
    let plain = pattern(522, 6 << 20);
    let name = format!("moon-outputs/{}", write_name(&plain));
    let committed = send(&mut client, messages(&name, 0, &plain, 1 << 20)).await;
    assert_eq!(committed.unwrap(), 6 << 20);
}

/// casd: messages of 2 MiB with the name on each, and the end in a message of its own.
#[tokio::test]
async fn casd_writes_messages_of_2_mib_and_finishes_in_one_of_its_own() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(523, 5 << 20);
    let name = write_name(&blob);
    let mut all = named(&name, &blob, 2 << 20);
    if let Some(last) = all.last_mut() {
        last.finish_write = false;
    }
    all.push(message(&name, blob.len(), &[], true));
    assert_eq!(send(&mut client, all).await.unwrap(), 5 << 20);
    assert!(read(&mut client, &read_name(&blob)).await.unwrap() == blob);
}
