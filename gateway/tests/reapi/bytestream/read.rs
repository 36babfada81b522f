//! `ByteStream.Read`.

use bazel_remote_apis::google::bytestream::ReadRequest;
use tonic::{Code, Request};
use zimcache_types::Function;

use super::stores::{Store, Values, pack};
use crate::{
    support::{Server, bytestream, code, hash, pattern, place, read, read_name, read_part, within},
    wire::guarded,
};

const HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

fn packed(blob: &[u8]) -> String {
    format!("compressed-blobs/zstd/{}", place(blob))
}

#[tokio::test]
async fn a_blob_is_read_in_messages_of_at_most_a_mebibyte() {
    let whole = Server::start().await;
    let (chunks, _) = Store::serve(Values::InChunks).await;
    for server in [whole, chunks] {
        let mut client = bytestream(&server);
        for size in [1, 1000, 65_536, 131_072, 131_073, (3 << 20) + 7] {
            let blob = pattern(1, size);
            server.stock(&blob).await;
            assert_eq!(read(&mut client, &read_name(&blob)).await.unwrap(), blob);
        }
    }
}

#[tokio::test]
async fn a_missing_blob_is_not_found_whatever_is_asked_of_it() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let absent = pattern(2, 1000);
    for name in [read_name(&absent), packed(&absent)] {
        for offset in [0, 999, 1000] {
            let outcome = read_part(&mut client, &name, offset, 0).await;
            assert_eq!(code(outcome), Code::NotFound, "{name} from {offset}");
        }
    }
}

#[tokio::test]
async fn a_right_hash_with_a_wrong_size_is_not_found() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(3, 1000);
    server.stock(&blob).await;
    let name = format!("blobs/{}/1001", hash(Function::Sha256, &blob));
    assert_eq!(code(read(&mut client, &name).await), Code::NotFound);
}

#[tokio::test]
async fn an_offset_outside_the_blob_is_out_of_range() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(4, 1000);
    server.stock(&blob).await;
    for name in [read_name(&blob), packed(&blob)] {
        for offset in [-1, 1001, i64::MIN, i64::MAX] {
            let outcome = read_part(&mut client, &name, offset, 0).await;
            assert_eq!(code(outcome), Code::OutOfRange, "{name} from {offset}");
        }
    }
}

#[tokio::test]
async fn an_offset_at_the_end_is_an_empty_success() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(5, 1000);
    server.stock(&blob).await;
    let rest = read_part(&mut client, &read_name(&blob), 1000, 0).await;
    assert_eq!(rest.unwrap(), b"");
    let rest = read_part(&mut client, &read_name(&blob), 1000, 5).await;
    assert_eq!(rest.unwrap(), b"");
    let rest = read_part(&mut client, &packed(&blob), 1000, 0).await;
    assert_eq!(zstd::decode_all(&rest.unwrap()[..]).unwrap(), b"");
}

#[tokio::test]
async fn a_read_begins_at_its_offset_and_ends_at_its_limit() {
    let (server, _) = Store::serve(Values::InChunks).await;
    let mut client = bytestream(&server);
    let blob = pattern(6, 1 << 20);
    server.stock(&blob).await;
    let name = read_name(&blob);
    for (offset, limit) in [
        (0_usize, 1_usize),
        (0, 1 << 20),
        (0, 2 << 20),
        (17, 0),
        (300_000, 500_000),
        ((1 << 20) - 1, 7),
    ] {
        let end = if limit == 0 {
            blob.len()
        } else {
            blob.len().min(offset + limit)
        };
        let part = read_part(&mut client, &name, offset as i64, limit as i64).await;
        assert_eq!(part.unwrap(), &blob[offset..end], "{offset} {limit}");
    }
    let part = read_part(&mut client, &name, 5, i64::MAX).await;
    assert_eq!(part.unwrap(), &blob[5..]);
}

#[tokio::test]
async fn a_negative_limit_is_invalid() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(7, 1000);
    server.stock(&blob).await;
    let outcome = read_part(&mut client, &read_name(&blob), 0, -1).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
}

#[tokio::test]
async fn the_empty_blob_is_always_there() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for function in [
        Function::Sha256,
        Function::Blake3,
        Function::Sha1,
        Function::GitSha1,
    ] {
        let empty = hash(function, b"");
        for name in [
            format!("blobs/{empty}/0"),
            format!("blobs/{function}/{empty}/0"),
            format!("compressed-blobs/zstd/{function}/{empty}/0"),
        ] {
            if function == Function::GitSha1 && !name.contains("gitsha1") {
                continue;
            }
            let data = read(&mut client, &name).await.unwrap();
            let is_packed = name.starts_with("compressed");
            let data = if is_packed {
                zstd::decode_all(&data[..]).unwrap()
            } else {
                data
            };
            assert_eq!(data, b"", "{name}");
        }
    }
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn a_compressed_read_unpacks_to_the_blob() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1, 1000, 131_072, 131_073, 3 << 20] {
        let blob = pattern(8, size);
        server.stock(&blob).await;
        let data = read(&mut client, &packed(&blob)).await.unwrap();
        assert_eq!(zstd::decode_all(&data[..]).unwrap(), blob, "{size}");
    }
}

#[tokio::test]
async fn what_is_stored_as_zstd_goes_out_as_it_is_stored() {
    let (server, _) = Store::serve(Values::Packed).await;
    let mut client = bytestream(&server);
    let blob = pattern(9, 3 << 20);
    server.stock(&blob).await;
    let data = read(&mut client, &packed(&blob)).await.unwrap();
    assert!(data == pack(&blob));
    assert_eq!(read(&mut client, &read_name(&blob)).await.unwrap(), blob);
}

#[tokio::test]
async fn the_offset_of_a_compressed_read_counts_bytes_of_the_blob() {
    for values in [Values::InChunks, Values::Packed] {
        let (server, _) = Store::serve(values).await;
        let mut client = bytestream(&server);
        let blob = pattern(10, 1 << 20);
        server.stock(&blob).await;
        for offset in [1_usize, 131_072, 500_000, (1 << 20) - 1] {
            let data = read_part(&mut client, &packed(&blob), offset as i64, 0).await;
            let rest = zstd::decode_all(&data.unwrap()[..]).unwrap();
            assert!(rest == blob[offset..], "{offset}");
        }
    }
}

#[tokio::test]
async fn a_compressed_read_takes_no_limit() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(11, 1000);
    server.stock(&blob).await;
    for limit in [1, 1000, -1] {
        let outcome = read_part(&mut client, &packed(&blob), 0, limit).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{limit}");
    }
}

#[tokio::test]
async fn a_read_that_fails_in_the_middle_ends_in_a_status() {
    let (server, _) = Store::serve(Values::FailAfter(500_000)).await;
    let mut client = bytestream(&server);
    let blob = pattern(12, 1 << 20);
    server.stock(&blob).await;
    for name in [read_name(&blob), packed(&blob)] {
        assert_eq!(code(read(&mut client, &name).await), Code::Unavailable);
    }
    let rest = read_part(&mut client, &read_name(&blob), 0, 400_000).await;
    assert_eq!(rest.unwrap(), &blob[..400_000]);
}

#[tokio::test]
async fn a_blob_that_turns_out_to_be_damaged_is_not_found() {
    let (server, _) = Store::serve(Values::Damaged).await;
    let mut client = bytestream(&server);
    let blob = pattern(13, 1000);
    server.stock(&blob).await;
    let outcome = read(&mut client, &read_name(&blob)).await;
    assert_eq!(code(outcome), Code::NotFound);
}

#[tokio::test]
async fn a_hash_without_its_function_is_found_under_any_of_its_length() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(14, 1000);
    let blake3 = hash(Function::Blake3, &blob);
    let name = format!("uploads/u/blobs/blake3/{blake3}/1000");
    crate::support::write(&mut client, &name, &blob)
        .await
        .unwrap();
    for name in [
        format!("blobs/blake3/{blake3}/1000"),
        format!("blobs/{blake3}/1000"),
    ] {
        assert_eq!(read(&mut client, &name).await.unwrap(), blob, "{name}");
    }
    let other = format!("blobs/sha256/{blake3}/1000");
    assert_eq!(code(read(&mut client, &other).await), Code::NotFound);
}

#[tokio::test]
async fn an_instance_of_any_segments_is_a_namespace() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(15, 1000);
    let write = format!("a/b/c/{}", crate::support::write_name(&blob));
    crate::support::write(&mut client, &write, &blob)
        .await
        .unwrap();
    let name = format!("a/b/c/{}", read_name(&blob));
    assert_eq!(read(&mut client, &name).await.unwrap(), blob);
    let elsewhere = format!("a/b/{}", read_name(&blob));
    assert_eq!(code(read(&mut client, &elsewhere).await), Code::NotFound);
    let nowhere = read_name(&blob);
    assert_eq!(code(read(&mut client, &nowhere).await), Code::NotFound);
}

#[tokio::test]
async fn names_that_are_none_are_invalid() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let good = place(b"x");
    let upper = good.to_uppercase();
    for bad in [
        String::new(),
        good.clone(),
        "blobs/abc/1".to_owned(),
        format!("blobs/{upper}"),
        format!("blobs/{good}/more"),
        format!("blobs/murmur3/{good}"),
        format!("blobs/sha1/{good}"),
        format!("compressed-blobs/{good}"),
        format!("compressed-blobs/deflate/{good}"),
        format!("compressed-blobs/brotli/{good}"),
        format!("compressed-blobs/identity/{good}"),
        format!("uploads/u/blobs/{good}"),
        format!("a//b/blobs/{good}"),
        format!("../blobs/{good}"),
        format!("{}/blobs/{good}", "x".repeat(5000)),
    ] {
        let outcome = read(&mut client, &bad).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{bad}");
    }
}

#[tokio::test]
async fn a_header_with_the_resource_name_has_to_match() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(16, 1000);
    server.stock(&blob).await;
    let name = read_name(&blob);
    for (header, expected) in [
        (name.as_str(), Code::Ok),
        ("blobs/x/1", Code::InvalidArgument),
    ] {
        let mut request = Request::new(ReadRequest {
            resource_name: name.clone(),
            ..ReadRequest::default()
        });
        request
            .metadata_mut()
            .insert(HEADER, header.parse().unwrap());
        let answered = within(client.read(request)).await;
        let code = answered.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{header}");
    }
}

#[tokio::test]
async fn who_may_not_read_learns_nothing() {
    let (policy, tokens) = guarded("secret");
    let server = Server::with_policy(policy).await;
    let mut client = bytestream(&server);
    let blob = pattern(17, 1000);
    for (instance, token, expected) in [
        ("secret", None, Code::Unauthenticated),
        ("other", Some(&tokens.read), Code::PermissionDenied),
        ("secret", Some(&tokens.read), Code::NotFound),
    ] {
        let mut request = Request::new(ReadRequest {
            resource_name: format!("{instance}/{}", read_name(&blob)),
            read_offset: 7000 * i64::from(expected != Code::NotFound),
            read_limit: 0,
        });
        if let Some(token) = token {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let outcome = within(client.read(request)).await;
        assert_eq!(code(outcome.map(drop)), expected, "{instance}");
    }
}
