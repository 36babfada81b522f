//! `ByteStream.Write`, uncompressed.

use tonic::{Code, Request};

use zimcache_store::BlobStore;
use zimcache_types::{ByteSize, Digest, Function, Namespace};

use super::stores::{Store, Values};
use crate::{
    support::{
        OpenWrite, Server, UUID, bytestream, code, hash, held, message, messages, packed_name,
        pattern, place, read, read_name, send, within, write, write_name,
    },
    wire::{Failure, guarded},
};

/// Whether the server has the blob.
async fn has(server: &Server, blob: &[u8]) -> bool {
    let digest = Digest::of(Function::Sha256, blob);
    let touch = zimcache_store::Touch::No;
    let missing = server
        .store
        .missing(&Namespace::default(), &[digest], touch)
        .await;
    missing.unwrap() == [false]
}

#[tokio::test]
async fn what_is_written_can_be_read() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1, 1000, 65_536, 65_537, 1 << 20, (3 << 20) + 1] {
        let blob = pattern(20, size);
        let committed = write(&mut client, &write_name(&blob), &blob).await;
        assert_eq!(committed.unwrap(), size as i64);
        assert_eq!(read(&mut client, &read_name(&blob)).await.unwrap(), blob);
    }
}

#[tokio::test]
async fn later_messages_may_repeat_the_name_or_leave_it_out() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(21, 3000);
    let name = write_name(&blob);
    let all = vec![
        message(&name, 0, &blob[..1000], false),
        message(&name, 1000, &blob[1000..2000], false),
        message("", 2000, &[], false),
        message("", 2000, &blob[2000..], true),
    ];
    assert_eq!(send(&mut client, all).await.unwrap(), 3000);
    assert!(has(&server, &blob).await);
}

#[tokio::test]
async fn the_first_message_has_to_name_what_is_written() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(22, 2000);
    let all = vec![
        message("", 0, &blob[..1000], false),
        message(&write_name(&blob), 1000, &blob[1000..], true),
    ];
    assert_eq!(code(send(&mut client, all).await), Code::InvalidArgument);
    let none = send(&mut client, Vec::new()).await;
    assert_eq!(code(none), Code::InvalidArgument);
    assert!(!has(&server, &blob).await);
}

#[tokio::test]
async fn a_later_message_must_not_name_anything_else() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(23, 2000);
    let all = vec![
        message(&write_name(&blob), 0, &blob[..1000], false),
        message(&write_name(b"else"), 1000, &blob[1000..], true),
    ];
    assert_eq!(code(send(&mut client, all).await), Code::InvalidArgument);
    assert!(!has(&server, &blob).await);
}

#[tokio::test]
async fn every_offset_is_where_the_data_before_ended() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(24, 2000);
    let name = write_name(&blob);
    for wrong in [0, 999, 1001] {
        let all = vec![
            message(&name, 0, &blob[..1000], false),
            message(&name, wrong, &blob[1000..], true),
        ];
        assert_eq!(
            code(send(&mut client, all).await),
            Code::InvalidArgument,
            "{wrong}"
        );
    }
    for wrong in [-1_i64, 1, 2001, i64::MAX] {
        let mut first = message(&name, 0, &blob, true);
        first.write_offset = wrong;
        assert_eq!(
            code(send(&mut client, vec![first]).await),
            Code::InvalidArgument
        );
    }
    assert!(!has(&server, &blob).await);
}

#[tokio::test]
async fn nothing_may_follow_the_message_that_finishes() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(25, 1000);
    for more in [&b"more"[..], b""] {
        let name = write_name(&blob);
        let all = vec![
            message(&name, 0, &blob, true),
            message("", 1000, more, true),
        ];
        assert_eq!(code(send(&mut client, all).await), Code::InvalidArgument);
        server
            .store
            .delete(&Namespace::default(), &Digest::of(Function::Sha256, &blob))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_write_that_is_not_finished_is_not_published() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for (size, expected) in [(1000, 0), (2 << 20, 2 << 20)] {
        let blob = pattern(26, size);
        let name = write_name(&blob);
        let committed = send(&mut client, vec![message(&name, 0, &blob, false)]).await;
        assert_eq!(committed.unwrap(), expected, "what is held of {size} bytes");
        assert!(!has(&server, &blob).await);
        let known = held(&mut client, &name).await.unwrap();
        assert_eq!((known.committed_size, known.complete), (expected, false));
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_stream_to_close() {
    let server = Server::start().await;
    let client = bytestream(&server);
    let blob = pattern(27, 1000);
    let open = OpenWrite::begin(&client);
    assert!(open.send(message(&write_name(&blob), 0, &blob, true)).await);
    assert_eq!(open.answer().await.unwrap(), 1000);
}

#[tokio::test]
async fn the_empty_blob_may_be_written() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for function in [Function::Sha256, Function::Blake3] {
        for segment in [String::new(), format!("{function}/")] {
            let name = format!("uploads/{UUID}/blobs/{segment}{}/0", hash(function, b""));
            let committed = send(&mut client, vec![message(&name, 0, &[], true)]).await;
            assert_eq!(committed.unwrap(), 0, "{name}");
        }
    }
    let wrong = format!("uploads/{UUID}/blobs/{}/0", hash(Function::Sha256, b"x"));
    let outcome = send(&mut client, vec![message(&wrong, 0, &[], true)]).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
}

#[tokio::test]
async fn a_wrong_hash_or_size_is_invalid_and_leaves_nothing() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for size in [1000, 3 << 20] {
        let (blob, other) = (pattern(28, size), pattern(29, size));
        let outcome = write(&mut client, &write_name(&blob), &other).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "other bytes");
        let outcome = write(&mut client, &write_name(&blob), &blob[1..]).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "too few");
        let longer = [&blob[..], b"x"].concat();
        let outcome = write(&mut client, &write_name(&blob), &longer).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "too many");
        let hash = hash(Function::Sha256, &blob);
        let name = format!("uploads/{UUID}/blobs/{hash}/{}", size + 1);
        let outcome = write(&mut client, &name, &blob).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "another size");
    }
    assert!(server.store.blob_names().is_empty());
}

#[tokio::test]
async fn a_blob_over_the_limit_is_invalid_before_its_data_is_read() {
    let server = Server::with(|config| config.max_blob_size = ByteSize(1000)).await;
    let client = bytestream(&server);
    let blob = pattern(30, 1001);
    let open = OpenWrite::begin(&client);
    open.send(message(&write_name(&blob), 0, &[], false)).await;
    assert_eq!(code(open.answer().await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_full_store_is_exhausted_and_a_broken_one_unavailable() {
    for (failure, expected) in [
        (Failure::Full, Code::ResourceExhausted),
        (Failure::Disk, Code::Unavailable),
    ] {
        let server = Server::failing(failure).await;
        let mut client = bytestream(&server);
        let blob = pattern(31, 1000);
        let outcome = write(&mut client, &write_name(&blob), &blob).await;
        assert_eq!(code(outcome), expected);
    }
}

#[tokio::test]
async fn a_blob_that_exists_is_answered_before_its_data_is_read() {
    let server = Server::start().await;
    let client = bytestream(&server);
    for size in [1000, 3 << 20] {
        let blob = pattern(32, size);
        server.stock(&blob).await;
        for (name, expected) in [(write_name(&blob), size as i64), (packed_name(&blob), -1)] {
            let open = OpenWrite::begin(&client);
            open.send(message(&name, 0, &[], false)).await;
            assert_eq!(open.answer().await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn a_blob_that_appears_meanwhile_ends_the_write() {
    let server = Server::start().await;
    let client = bytestream(&server);
    for is_packed in [false, true] {
        let blob = pattern(33 + u64::from(is_packed), 4 << 20);
        let (name, data, expected) = if is_packed {
            let raw = super::packed::incompressible(&blob);
            (packed_name(&blob), raw, -1)
        } else {
            (write_name(&blob), blob.clone(), 4 << 20)
        };
        let open = OpenWrite::begin(&client);
        assert!(open.send(message(&name, 0, &data[..1000], false)).await);
        server.stock(&blob).await;
        let mut offset = 1000;
        // Nobody takes messages once the answer is there.
        while offset < 3 << 20 {
            let end = offset + 100_000;
            if !open
                .send(message("", offset, &data[offset..end], false))
                .await
            {
                break;
            }
            offset = end;
        }
        assert_eq!(open.answer().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn answers_before_the_data_leave_the_connection_usable() {
    let server = Server::start().await;
    let client = bytestream(&server);
    let blob = pattern(35, 2 << 20);
    server.stock(&blob).await;
    let name = write_name(&blob);
    for _ in 0..20 {
        let writes = (0..50).map(|_| {
            let mut client = client.clone();
            let all = messages(&name, 0, &blob, 256 << 10);
            async move { send(&mut client, all).await }
        });
        for committed in futures_util::future::join_all(writes).await {
            assert_eq!(committed.unwrap(), 2 << 20);
        }
    }
    let fresh = pattern(36, 5 << 20);
    let mut client = client.clone();
    let committed = write(&mut client, &write_name(&fresh), &fresh).await;
    assert_eq!(committed.unwrap(), 5 << 20);
}

#[tokio::test]
async fn a_written_blob_starts_with_a_lease_and_a_small_one_has_no_name_to_resume() {
    let (server, store) = Store::serve(Values::InChunks).await;
    let mut client = bytestream(&server);
    for (size, is_resumable) in [(1000, false), (1 << 20, false), ((1 << 20) + 1, true)] {
        for is_packed in [false, true] {
            let blob = pattern(37 + u64::from(is_packed), size);
            let committed = if is_packed {
                let data = zstd::bulk::compress(&blob, 1).unwrap();
                write(&mut client, &packed_name(&blob), &data).await
            } else {
                write(&mut client, &write_name(&blob), &blob).await
            };
            committed.unwrap();
            let created = store.created().await;
            let options = created.last().unwrap();
            assert!(options.lease);
            assert_eq!(options.resume_as.is_some(), is_resumable, "{size}");
        }
    }
}

#[tokio::test]
async fn a_hash_without_its_function_may_be_of_sha256_or_blake3() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    for function in [Function::Sha256, Function::Blake3] {
        let blob = pattern(39 + u64::from(function.number()), 100_000);
        let name = format!("uploads/{UUID}/blobs/{}/100000", hash(function, &blob));
        assert_eq!(write(&mut client, &name, &blob).await.unwrap(), 100_000);
        let name = format!("blobs/{function}/{}/100000", hash(function, &blob));
        assert_eq!(read(&mut client, &name).await.unwrap(), blob);
    }
}

#[tokio::test]
async fn a_named_function_is_the_one_that_verifies() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(50, 3000);
    for function in [
        Function::Sha256,
        Function::Sha1,
        Function::Sha384,
        Function::Sha512,
        Function::Blake3,
        Function::Sha256Tree,
        Function::GitSha1,
    ] {
        let hash = hash(function, &blob);
        let name = format!("uploads/{UUID}/blobs/{function}/{hash}/3000");
        assert_eq!(write(&mut client, &name, &blob).await.unwrap(), 3000);
        let name = format!("blobs/{function}/{hash}/3000");
        assert_eq!(read(&mut client, &name).await.unwrap(), blob);
    }
    let name = format!("uploads/{UUID}/blobs/blake3/{}", place(&pattern(51, 100)));
    let outcome = write(&mut client, &name, &pattern(51, 100)).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
}

#[tokio::test]
async fn what_follows_the_size_has_no_meaning() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let blob = pattern(52, 1000);
    let name = format!("{}/bazel-out/k8/bin/blobs/x.o", write_name(&blob));
    assert_eq!(write(&mut client, &name, &blob).await.unwrap(), 1000);
    assert_eq!(read(&mut client, &read_name(&blob)).await.unwrap(), blob);
}

#[tokio::test]
async fn names_that_are_none_are_invalid() {
    let server = Server::start().await;
    let mut client = bytestream(&server);
    let good = place(b"x");
    for bad in [
        good.clone(),
        format!("blobs/{good}"),
        format!("uploads/{good}"),
        format!("uploads/u/{good}"),
        format!("uploads/u/compressed-blobs/deflate/{good}"),
        format!("uploads/u/compressed-blobs/brotli/{good}"),
        "uploads/u/blobs/abc/1".to_owned(),
    ] {
        let outcome = write(&mut client, &bad, b"x").await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{bad}");
        let outcome = held(&mut client, &bad).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{bad}");
    }
}

#[tokio::test]
async fn who_may_only_read_may_not_write() {
    let (policy, tokens) = guarded("team");
    let server = Server::with_policy(policy).await;
    let mut client = bytestream(&server);
    let blob = pattern(53, 1000);
    let name = format!("team/{}", write_name(&blob));
    for (token, expected) in [
        (None, Code::Unauthenticated),
        (Some(&tokens.read), Code::PermissionDenied),
        (Some(&tokens.write), Code::Ok),
    ] {
        let all = futures_util::stream::iter(messages(&name, 0, &blob, 1000));
        let mut request = Request::new(all);
        if let Some(token) = token {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let outcome = within(client.write(request)).await;
        let code = outcome.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected);
    }
}
