//! `ContentAddressableStorage`: what is missing, and batches both ways, in the shapes in which clients send them.

use std::{sync::Arc, time::Duration};

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest,
    BatchUpdateBlobsResponse, Digest, FindMissingBlobsRequest,
    batch_read_blobs_response::Response as Read, batch_update_blobs_request::Request as Upload,
};
use prost::Message;
use tonic::Code;
use zimcache_config::LimitsConfig;
use zimcache_gateway::Policy;
use zimcache_store::{Retention, StoreAdmin as _, memory::MemoryStore};
use zimcache_types::{Function, ManualClock, Timestamp};

use crate::{
    clients::{
        Cas, FUNCTIONS, bearing, cas, codes, details, digest_under, missing, raw, store, upload,
    },
    support::{Outcome, Server, code, digest, pattern, within},
    wire,
};

const SHA256: Function = Function::Sha256;
/// As it is advertised.
const MOST_BYTES: usize = (4 << 20) - (64 << 10);
const OK: i32 = 0;
const INVALID: i32 = 3;
const NOT_FOUND: i32 = 5;
const EXHAUSTED: i32 = 8;
const ZSTD: i32 = 1;
const BROTLI: i32 = 3;

async fn update(server: &Server, requests: Vec<Upload>) -> Outcome<BatchUpdateBlobsResponse> {
    let request = BatchUpdateBlobsRequest {
        requests,
        ..BatchUpdateBlobsRequest::default()
    };
    let answer = within(cas(server).batch_update_blobs(request)).await?;
    Ok(answer.into_inner())
}

async fn fetch(server: &Server, digests: Vec<Digest>) -> Outcome<Vec<Read>> {
    let request = BatchReadBlobsRequest {
        digests,
        ..BatchReadBlobsRequest::default()
    };
    read(server, request).await
}

async fn read(server: &Server, request: BatchReadBlobsRequest) -> Outcome<Vec<Read>> {
    let answer = within(cas(server).batch_read_blobs(request)).await?;
    Ok(answer.into_inner().responses)
}

/// The code of a blob of a batch; a status that is absent is a failure.
fn status(read: &Read) -> i32 {
    read.status.as_ref().unwrap().code
}

fn packed(blob: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(blob, 3).unwrap()
}

fn compressed(named: &[u8], data: Vec<u8>) -> Upload {
    Upload {
        digest: Some(digest(named)),
        data,
        compressor: ZSTD,
    }
}

// FindMissingBlobs

#[tokio::test]
async fn what_is_missing_is_told_in_the_order_in_which_it_was_asked() {
    let server = Server::start().await;
    let blobs: Vec<Vec<u8>> = (0..100).map(|n| pattern(n, 100)).collect();
    for blob in blobs.iter().step_by(3) {
        server.stock(blob).await;
    }
    let asked: Vec<Digest> = blobs.iter().map(|blob| digest(blob)).collect();
    let absent = asked.iter().enumerate().filter(|(n, _)| n % 3 != 0);
    let absent: Vec<Digest> = absent.map(|(_, digest)| digest.clone()).collect();
    let told = missing(&server, Some(SHA256), asked).await.unwrap();
    assert_eq!(told, absent);
}

#[tokio::test]
async fn nothing_asked_is_nothing_missing() {
    let server = Server::start().await;
    assert_eq!(missing(&server, None, Vec::new()).await.unwrap(), []);
}

#[tokio::test]
async fn a_digest_may_be_asked_for_twice() {
    let server = Server::start().await;
    server.stock(b"there").await;
    let asked = [b"there", b"gone!", b"there", b"gone!"].map(|blob| digest(blob));
    let told = missing(&server, None, asked.to_vec()).await.unwrap();
    assert!(!told.is_empty() && told.iter().all(|one| *one == digest(b"gone!")));
}

#[tokio::test]
async fn the_empty_blob_is_never_missing_whatever_its_function() {
    let server = Server::start().await;
    for function in FUNCTIONS {
        let empty = digest_under(function, b"");
        let told = missing(&server, Some(function), vec![empty.clone()]).await;
        assert_eq!(told.unwrap(), [], "{function}");
        if !function.needs_segment() || function == Function::Blake3 {
            let told = missing(&server, None, vec![empty]).await.unwrap();
            assert_eq!(told, [], "{function}");
        }
    }
    let lying = Digest {
        size_bytes: 1,
        ..digest(b"")
    };
    let told = missing(&server, Some(SHA256), vec![lying.clone()]).await;
    assert_eq!(told.unwrap(), [lying]);
}

#[tokio::test]
async fn a_blob_of_another_size_than_asked_for_is_missing() {
    let server = Server::start().await;
    server.stock(b"seven b").await;
    for size_bytes in [0, 6, 8, 7 + 32, i64::MAX] {
        let asked = Digest {
            size_bytes,
            ..digest(b"seven b")
        };
        let told = missing(&server, Some(SHA256), vec![asked.clone()]).await;
        assert_eq!(told.unwrap(), [asked]);
    }
}

#[tokio::test]
async fn blobs_of_every_digest_function_are_stored_found_and_read() {
    let server = Server::start().await;
    for function in FUNCTIONS {
        for size in [1, 1023, 1024, 1025, 100_000] {
            let blob = pattern(u64::from(function.number()), size);
            let named = digest_under(function, &blob);
            let told = missing(&server, Some(function), vec![named.clone()]).await;
            assert_eq!(told.unwrap().len(), 1, "{function} {size}");
            store(&server, "", function, &[&blob]).await;
            let told = missing(&server, Some(function), vec![named.clone()]).await;
            assert_eq!(told.unwrap(), [], "{function} {size}");
            let request = BatchReadBlobsRequest {
                digests: vec![named],
                digest_function: function.number().into(),
                ..BatchReadBlobsRequest::default()
            };
            let found = read(&server, request).await.unwrap();
            assert!(
                status(&found[0]) == OK && found[0].data == blob,
                "{function}"
            );
        }
    }
}

#[tokio::test]
async fn blobs_of_every_function_that_a_hash_tells_need_no_function_in_the_request() {
    let server = Server::start().await;
    for function in FUNCTIONS
        .into_iter()
        .filter(|function| !matches!(function, Function::Sha256Tree | Function::GitSha1))
    {
        let blob = pattern(u64::from(function.number()), 5000);
        let answer = update(&server, vec![upload(function, &blob)])
            .await
            .unwrap();
        assert_eq!(codes(&answer), [OK], "{function}");
        let named = digest_under(function, &blob);
        let told = missing(&server, None, vec![named.clone()]).await.unwrap();
        assert_eq!(told, [], "{function}");
        let found = fetch(&server, vec![named]).await.unwrap();
        assert!(
            status(&found[0]) == OK && found[0].data == blob,
            "{function}"
        );
    }
}

#[tokio::test]
async fn blobs_of_blake3_are_found_although_a_new_process_knows_of_none() {
    let server = Server::start().await;
    let blobs: Vec<Vec<u8>> = (0..20).map(|n| pattern(n, 100)).collect();
    for blob in &blobs {
        store(&server, "", Function::Blake3, &[blob]).await;
    }
    let again = Server::over(Arc::new(server.store.clone()), server.store.clone(), |_| {}).await;
    let asked: Vec<Digest> = blobs
        .iter()
        .map(|blob| digest_under(Function::Blake3, blob))
        .collect();
    assert_eq!(missing(&again, None, asked).await.unwrap(), []);
}

#[tokio::test]
async fn a_name_of_one_function_finds_no_blob_of_another() {
    let server = Server::start().await;
    store(&server, "", Function::Blake3, &[b"content"]).await;
    let named = digest_under(Function::Blake3, b"content");
    for function in [SHA256, Function::Sha256Tree] {
        let told = missing(&server, Some(function), vec![named.clone()]).await;
        assert_eq!(told.unwrap().len(), 1, "{function}");
    }
    let refused = update(&server, vec![upload(Function::GitSha1, b"content")]).await;
    assert_eq!(
        codes(&refused.unwrap()),
        [INVALID],
        "without its function it reads as SHA-1"
    );
}

#[tokio::test]
async fn sixty_thousand_digests_fit_in_one_question() {
    let server = Server::start().await;
    let blobs: Vec<[u8; 4]> = (0..60_000_u32).map(u32::to_le_bytes).collect();
    for blob in &blobs[..10] {
        server.stock(blob).await;
    }
    let asked: Vec<Digest> = blobs.iter().map(|blob| digest(blob)).collect();
    let request = FindMissingBlobsRequest {
        blob_digests: asked.clone(),
        ..FindMissingBlobsRequest::default()
    };
    assert!(request.encoded_len() > 4 << 20);
    let client = cas(&server).max_decoding_message_size(16 << 20);
    let answer = within({ client }.find_missing_blobs(request))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().missing_blob_digests, asked[10..]);
}

#[tokio::test]
async fn what_is_present_is_leased() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let memory = MemoryStore::with_clock(clock.clone());
    memory.set_retention(Retention {
        default_ttl: Some(Duration::from_hours(3)),
        ..Retention::default()
    });
    let server = Server::over(Arc::new(memory.clone()), memory, |_| {}).await;
    let absent = async || {
        missing(&server, None, vec![digest(b"content")])
            .await
            .unwrap()
            .len()
    };
    server.stock(b"content").await;
    clock.advance(Duration::from_mins(179));
    assert_eq!(absent().await, 0);
    clock.advance(Duration::from_mins(239));
    assert_eq!(absent().await, 0, "each answer is a promise for four hours");
    clock.advance(Duration::from_mins(241));
    assert_eq!(absent().await, 1);
}

#[tokio::test]
async fn what_a_batch_stored_is_leased() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let memory = MemoryStore::with_clock(clock.clone());
    memory.set_retention(Retention {
        default_ttl: Some(Duration::from_hours(1)),
        ..Retention::default()
    });
    let server = Server::over(Arc::new(memory.clone()), memory, |_| {}).await;
    store(&server, "", SHA256, &[b"content"]).await;
    clock.advance(Duration::from_mins(239));
    let found = fetch(&server, vec![digest(b"content")]).await.unwrap();
    assert_eq!(status(&found[0]), OK);
}

#[tokio::test]
async fn digests_that_are_none_are_invalid() {
    let server = Server::start().await;
    let good = digest(b"content");
    for (hash, size_bytes) in [
        (good.hash.to_uppercase(), 7),
        (good.hash[1..].to_owned(), 7),
        (format!("{}0", good.hash), 7),
        (good.hash.replace('a', "g"), 7),
        (String::new(), 0),
        (good.hash.clone(), -1),
        (good.hash.clone(), i64::MIN),
    ] {
        let asked = vec![Digest { hash, size_bytes }];
        for function in [None, Some(SHA256)] {
            let refused = missing(&server, function, asked.clone()).await;
            assert_eq!(code(refused), Code::InvalidArgument, "{asked:?}");
        }
        let found = fetch(&server, asked.clone()).await.unwrap();
        assert_eq!(status(&found[0]), INVALID);
        let one = Upload {
            digest: Some(asked[0].clone()),
            data: b"content".to_vec(),
            compressor: 0,
        };
        assert_eq!(codes(&update(&server, vec![one]).await.unwrap()), [INVALID]);
    }
}

#[tokio::test]
async fn md5_is_refused_unless_it_was_asked_for() {
    let md5 = Function::Md5;
    let named = digest_under(md5, b"content");
    let server = Server::start().await;
    for function in [None, Some(md5)] {
        let refused = missing(&server, function, vec![named.clone()]).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    let refused = update(&server, vec![upload(md5, b"content")])
        .await
        .unwrap();
    assert_eq!(codes(&refused), [INVALID]);
    let server = Server::with(|config| config.md5_digests = true).await;
    let stored = update(&server, vec![upload(md5, b"content")])
        .await
        .unwrap();
    assert_eq!(codes(&stored), [OK]);
    for function in [None, Some(md5)] {
        let told = missing(&server, function, vec![named.clone()]).await;
        assert_eq!(told.unwrap(), []);
    }
    let found = fetch(&server, vec![named]).await.unwrap();
    assert_eq!(found[0].data, b"content");
}

#[tokio::test]
async fn a_digest_function_that_is_not_verified_is_invalid() {
    let server = Server::start().await;
    for number in [3, 4, 7, 11, -1, i32::MAX] {
        let request = FindMissingBlobsRequest {
            digest_function: number,
            ..FindMissingBlobsRequest::default()
        };
        let refused = within(cas(&server).find_missing_blobs(request)).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{number}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_invalid() {
    let server = Server::start().await;
    for path in [
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/SplitBlob",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/SpliceBlob",
    ] {
        let refused = raw(&server, path, b"\x12\xff\xff\xff".to_vec()).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{path}");
    }
}

// BatchUpdateBlobs

#[tokio::test]
async fn each_blob_of_a_batch_has_a_status_and_the_digest_that_was_sent() {
    let server = Server::start().await;
    let wrong = Upload {
        data: b"other".to_vec(),
        ..upload(SHA256, b"named")
    };
    let short = Upload {
        data: b"sho".to_vec(),
        ..upload(SHA256, b"short")
    };
    let long = Upload {
        data: b"longer".to_vec(),
        ..upload(SHA256, b"long")
    };
    let nameless = Upload {
        data: b"nameless".to_vec(),
        ..Upload::default()
    };
    let batch = vec![
        upload(SHA256, b"good"),
        wrong,
        short,
        long,
        nameless,
        upload(SHA256, b"also good"),
    ];
    let sent: Vec<_> = batch.iter().map(|one| one.digest.clone()).collect();
    let answer = update(&server, batch).await.unwrap();
    assert_eq!(codes(&answer), [OK, INVALID, INVALID, INVALID, INVALID, OK]);
    let echoed: Vec<_> = answer.responses.into_iter().map(|one| one.digest).collect();
    assert_eq!(echoed, sent);
    assert_eq!(server.store.blob_names().len(), 2);
}

#[tokio::test]
async fn a_batch_may_hold_the_same_blob_twice() {
    let server = Server::start().await;
    let batch = vec![upload(SHA256, b"twice"), upload(SHA256, b"twice")];
    for _ in 0..2 {
        let answer = update(&server, batch.clone()).await.unwrap();
        assert_eq!(codes(&answer), [OK, OK]);
    }
}

#[tokio::test]
async fn an_empty_batch_has_an_empty_answer() {
    let server = Server::start().await;
    assert!(
        update(&server, Vec::new())
            .await
            .unwrap()
            .responses
            .is_empty()
    );
    assert!(fetch(&server, Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_empty_blob_can_be_uploaded_and_read_in_every_function() {
    let server = Server::start().await;
    for function in FUNCTIONS {
        store(&server, "", function, &[b"", b""]).await;
        let request = BatchReadBlobsRequest {
            digests: vec![digest_under(function, b"")],
            digest_function: function.number().into(),
            ..BatchReadBlobsRequest::default()
        };
        let found = read(&server, request).await.unwrap();
        assert_eq!((status(&found[0]), found[0].data.len()), (OK, 0));
    }
    assert!(
        server.store.blob_names().is_empty(),
        "nothing is stored for it"
    );
}

#[tokio::test]
async fn a_batch_of_exactly_the_limit_passes_both_ways_and_one_byte_more_is_invalid() {
    let server = Server::start().await;
    let blob = pattern(1, MOST_BYTES);
    let answer = update(&server, vec![upload(SHA256, &blob)]).await.unwrap();
    assert_eq!(codes(&answer), [OK]);
    let found = fetch(&server, vec![digest(&blob)]).await.unwrap();
    assert!(found[0].data == blob, "within the 4 MiB that tonic takes");
    let (half, rest) = blob.split_at(MOST_BYTES / 2);
    let rest = [rest, b"!"].concat();
    let refused = update(&server, vec![upload(SHA256, half), upload(SHA256, &rest)]).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    server.stock(half).await;
    server.stock(&rest).await;
    let refused = fetch(&server, vec![digest(half), digest(&rest)]).await;
    assert_eq!(code(refused), Code::InvalidArgument);
}

#[tokio::test]
async fn a_message_that_is_too_large_for_most_servers_is_still_read() {
    let server = Server::start().await;
    // A client that takes no notice of the limit hears of it, rather than losing its connection.
    let refused = update(&server, vec![upload(SHA256, &pattern(2, 8 << 20))]).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let refused = update(&server, vec![upload(SHA256, &pattern(2, 18 << 20))]).await;
    assert_eq!(code(refused), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_blob_over_the_size_limit_is_refused_alone() {
    let server = Server::with(|config| config.max_blob_size = "1 KiB".parse().unwrap()).await;
    let batch = vec![
        upload(SHA256, &pattern(3, 1024)),
        upload(SHA256, &pattern(3, 1025)),
    ];
    let answer = update(&server, batch).await.unwrap();
    assert_eq!(codes(&answer), [OK, INVALID]);
}

#[tokio::test]
async fn without_room_each_blob_says_so_and_when_to_come_again() {
    let server = Server::failing(wire::Failure::Full).await;
    let answer = update(&server, vec![upload(SHA256, b"a"), upload(SHA256, b"b")]).await;
    let answer = answer.unwrap();
    assert_eq!(codes(&answer), [EXHAUSTED, EXHAUSTED]);
    let status = answer.responses[0].status.as_ref().unwrap();
    let name = "type.googleapis.com/google.rpc.RetryInfo";
    assert_eq!(status.details[0].type_url, name);
}

#[tokio::test]
async fn a_store_that_cannot_tell_is_unavailable_and_never_a_miss() {
    let server = Server::failing(wire::Failure::Disk).await;
    let refused = missing(&server, None, vec![digest(b"a")])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        !refused.message().contains("sector"),
        "{}",
        refused.message()
    );
    let found = fetch(&server, vec![digest(b"a")]).await.unwrap();
    assert_eq!(status(&found[0]), 14);
}

#[tokio::test]
async fn a_damaged_blob_is_not_found() {
    let server = Server::failing(wire::Failure::Corrupt).await;
    let found = fetch(&server, vec![digest(b"a")]).await.unwrap();
    assert_eq!(status(&found[0]), NOT_FOUND);
}

// zstd in batches

#[tokio::test]
async fn compressed_and_plain_blobs_mix_in_a_batch() {
    let server = Server::start().await;
    let blobs = [
        pattern(4, 100_000),
        b"tiny".to_vec(),
        pattern(5, 300_000),
        Vec::new(),
    ];
    let batch = vec![
        compressed(&blobs[0], packed(&blobs[0])),
        upload(SHA256, &blobs[1]),
        compressed(&blobs[2], packed(&blobs[2])),
        compressed(&blobs[3], packed(&blobs[3])),
    ];
    let answer = update(&server, batch).await.unwrap();
    assert_eq!(codes(&answer), [OK; 4]);
    let asked = blobs.iter().map(|blob| digest(blob)).collect();
    let found = fetch(&server, asked).await.unwrap();
    for (found, blob) in found.iter().zip(&blobs) {
        assert!(found.data == *blob && found.compressor == 0);
    }
}

#[tokio::test]
async fn a_blob_in_several_frames_is_one_blob() {
    let server = Server::start().await;
    let blob = pattern(6, 100_000);
    let (left, right) = blob.split_at(40_000);
    let frames = [packed(left), packed(right)].concat();
    let answer = update(&server, vec![compressed(&blob, frames)])
        .await
        .unwrap();
    assert_eq!(codes(&answer), [OK]);
}

#[tokio::test]
async fn frames_that_unfold_into_something_else_are_refused_alone() {
    let server = Server::start().await;
    let blob = pattern(7, 50_000);
    let frame = packed(&blob);
    let bomb = packed(&vec![0; 1 << 30]);
    let batch = vec![
        compressed(&blob, bomb),
        compressed(&blob, packed(&blob[1..])),
        compressed(&blob, packed(&[&blob[..], b"!"].concat())),
        compressed(&blob, frame[..frame.len() - 1].to_vec()),
        compressed(&blob, b"no frame".to_vec()),
        compressed(&blob, Vec::new()),
        compressed(&blob, packed(&pattern(8, 50_000))),
        Upload {
            compressor: BROTLI,
            ..upload(SHA256, &blob)
        },
        Upload {
            compressor: 77,
            ..upload(SHA256, &blob)
        },
        compressed(&blob, frame),
    ];
    let answer = update(&server, batch).await.unwrap();
    let mut expected = [INVALID; 10];
    expected[9] = OK;
    assert_eq!(codes(&answer), expected);
    assert_eq!(server.store.blob_names().len(), 1);
}

#[tokio::test]
async fn a_blob_that_says_it_unfolds_into_more_than_a_batch_holds_is_refused() {
    let server = Server::start().await;
    let blob = vec![0; MOST_BYTES + 1];
    let answer = update(&server, vec![compressed(&blob, packed(&blob))])
        .await
        .unwrap();
    assert_eq!(codes(&answer), [INVALID]);
    let lying = Upload {
        digest: Some(Digest {
            size_bytes: i64::MAX,
            ..digest(&blob)
        }),
        data: packed(&blob),
        compressor: ZSTD,
    };
    let answer = update(&server, vec![lying]).await.unwrap();
    assert_eq!(codes(&answer), [INVALID]);
}

#[tokio::test]
async fn the_digest_of_compressed_data_is_that_of_the_blob_in_every_function() {
    let server = Server::start().await;
    let blob = pattern(9, 70_000);
    for function in FUNCTIONS {
        let request = BatchUpdateBlobsRequest {
            requests: vec![Upload {
                digest: Some(digest_under(function, &blob)),
                data: packed(&blob),
                compressor: ZSTD,
            }],
            digest_function: function.number().into(),
            ..BatchUpdateBlobsRequest::default()
        };
        let answer = within(cas(&server).batch_update_blobs(request)).await;
        assert_eq!(codes(&answer.unwrap().into_inner()), [OK], "{function}");
    }
}

// BatchReadBlobs

#[tokio::test]
async fn each_blob_asked_for_is_answered_with_its_digest_and_a_status() {
    let server = Server::start().await;
    server.stock(b"one").await;
    server.stock(b"two").await;
    let other = Digest {
        size_bytes: 4,
        ..digest(b"two")
    };
    let asked = vec![
        digest(b"two"),
        digest(b"absent"),
        digest(b"one"),
        other,
        digest(b"two"),
        digest(b""),
    ];
    let found = fetch(&server, asked.clone()).await.unwrap();
    let echoed: Vec<_> = found
        .iter()
        .map(|one| one.digest.clone().unwrap())
        .collect();
    assert_eq!(echoed, asked);
    let statuses: Vec<_> = found.iter().map(status).collect();
    assert_eq!(statuses, [OK, NOT_FOUND, OK, NOT_FOUND, OK, OK]);
    let data: Vec<_> = found.iter().map(|one| one.data.as_slice()).collect();
    assert_eq!(data, [&b"two"[..], b"", b"one", b"", b"two", b""]);
}

#[tokio::test]
async fn identity_may_be_named_or_not_and_zstd_may_be_offered() {
    let server = Server::start().await;
    let blob = pattern(10, 200_000);
    server.stock(&blob).await;
    for acceptable_compressors in [
        vec![],
        vec![0],
        vec![0, 1],
        vec![1],
        vec![3, 1, 0],
        vec![99],
    ] {
        let request = BatchReadBlobsRequest {
            digests: vec![digest(&blob)],
            acceptable_compressors: acceptable_compressors.clone(),
            ..BatchReadBlobsRequest::default()
        };
        let found = read(&server, request).await.unwrap().remove(0);
        assert_eq!(status(&found), OK);
        let data = match found.compressor {
            0 => found.data,
            ZSTD if acceptable_compressors.contains(&ZSTD) => {
                zstd::bulk::decompress(&found.data, blob.len()).unwrap()
            }
            other => panic!("compressor {other} for {acceptable_compressors:?}"),
        };
        assert!(data == blob);
    }
}

#[tokio::test]
async fn thousands_of_blobs_come_in_one_batch() {
    let server = Server::start().await;
    let blobs: Vec<Vec<u8>> = (0..4000).map(|n| pattern(n, 100)).collect();
    let batch = blobs.iter().map(|blob| upload(SHA256, blob)).collect();
    let answer = update(&server, batch).await.unwrap();
    assert!(codes(&answer).iter().all(|code| *code == OK));
    let asked = blobs.iter().map(|blob| digest(blob)).collect();
    let found = fetch(&server, asked).await.unwrap();
    assert!(
        found
            .iter()
            .zip(&blobs)
            .all(|(found, blob)| found.data == *blob)
    );
}

#[tokio::test]
async fn a_raw_answer_has_every_status_in_it_even_when_all_is_well() {
    let server = Server::start().await;
    server.stock(b"content").await;
    let request = BatchReadBlobsRequest {
        digests: vec![digest(b"content")],
        ..BatchReadBlobsRequest::default()
    };
    let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";
    let bytes = raw(&server, path, request.encode_to_vec()).await.unwrap();
    let answer = BatchReadBlobsResponse::decode(bytes.as_slice()).unwrap();
    assert!(answer.responses[0].status.is_some());
    // Field 3, without a byte in it.
    assert!(bytes.windows(2).any(|two| two == [0x1a, 0x00]));
}

// Who may what

#[tokio::test]
async fn instances_share_no_blobs() {
    let server = Server::start().await;
    store(&server, "a/b", SHA256, &[b"content"]).await;
    for (instance_name, absent) in [("a/b", 0), ("a", 1), ("", 1), ("default", 1)] {
        let request = FindMissingBlobsRequest {
            instance_name: instance_name.to_owned(),
            blob_digests: vec![digest(b"content")],
            ..FindMissingBlobsRequest::default()
        };
        let answer = within(cas(&server).find_missing_blobs(request))
            .await
            .unwrap();
        let told = answer.into_inner().missing_blob_digests;
        assert_eq!(told.len(), absent, "{instance_name}");
    }
}

/// A request of a caller who shows a token or none.
fn by<T>(token: Option<&str>, message: T) -> tonic::Request<T> {
    match token {
        Some(token) => bearing(token, message),
        None => tonic::Request::new(message),
    }
}

/// The three calls by one caller: what the whole call is, or what the blob in it is.
async fn three(server: &Server, token: Option<&str>, instance: &str) -> [i32; 3] {
    let asked = FindMissingBlobsRequest {
        instance_name: instance.to_owned(),
        blob_digests: vec![digest(b"content")],
        ..FindMissingBlobsRequest::default()
    };
    let sent = BatchUpdateBlobsRequest {
        instance_name: instance.to_owned(),
        requests: vec![upload(SHA256, b"content")],
        ..BatchUpdateBlobsRequest::default()
    };
    let wanted = BatchReadBlobsRequest {
        instance_name: instance.to_owned(),
        digests: vec![digest(b"content")],
        ..BatchReadBlobsRequest::default()
    };
    let (sent, asked, wanted) = (by(token, sent), by(token, asked), by(token, wanted));
    let sent = within(cas(server).batch_update_blobs(sent)).await;
    let asked = within(cas(server).find_missing_blobs(asked)).await;
    let wanted = within(cas(server).batch_read_blobs(wanted)).await;
    let of = |status: tonic::Status| i32::from(status.code());
    [
        sent.map_or_else(of, |answer| codes(&answer.into_inner())[0]),
        asked.map_or_else(of, |_| OK),
        wanted.map_or_else(of, |answer| status(&answer.into_inner().responses[0])),
    ]
}

#[tokio::test]
async fn each_caller_may_do_what_its_rights_say_and_no_more() {
    const DENIED: i32 = 7;
    const UNKNOWN: i32 = 16;
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    for (token, instance, expected) in [
        (None, "team", [UNKNOWN; 3]),
        (Some("wrong"), "team", [UNKNOWN; 3]),
        (Some(tokens.read.as_str()), "team", [DENIED, OK, NOT_FOUND]),
        (Some(tokens.write.as_str()), "team", [OK, OK, OK]),
        (Some(tokens.read.as_str()), "team", [DENIED, OK, OK]),
        (Some(tokens.read.as_str()), "", [DENIED, OK, OK]),
        (Some(tokens.admin.as_str()), "other", [DENIED; 3]),
    ] {
        assert_eq!(three(&server, token, instance).await, expected);
    }
}

#[tokio::test]
async fn a_user_in_the_authority_is_known() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    let endpoint = |authority: &str| {
        let origin = format!("http://{authority}").parse().unwrap();
        let endpoint = format!("http://{}", server.address);
        let endpoint = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
        Cas::new(endpoint.origin(origin).connect_lazy())
    };
    let request = FindMissingBlobsRequest {
        blob_digests: vec![digest(b"content")],
        ..FindMissingBlobsRequest::default()
    };
    for (authority, expected) in [
        (format!("ci:{}@cache.example", tokens.read), Code::Ok),
        (format!("{}@cache.example:8080", tokens.read), Code::Ok),
        ("ci:wrong@cache.example".to_owned(), Code::Unauthenticated),
        ("cache.example".to_owned(), Code::Unauthenticated),
    ] {
        let mut client = endpoint(&authority);
        let answer = within(client.find_missing_blobs(request.clone())).await;
        let told = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(told, expected, "{authority}");
    }
}

#[tokio::test]
async fn over_the_limit_a_call_is_exhausted_and_told_when_to_come_again() {
    let policy = Policy {
        limits: LimitsConfig {
            per_address: Some("1/h burst 2".parse().unwrap()),
            ..LimitsConfig::default()
        },
        ..Policy::default()
    };
    let server = Server::with_policy(policy).await;
    let asked = async || missing(&server, None, vec![digest(b"content")]).await;
    assert!(asked().await.is_ok() && asked().await.is_ok());
    let refused = asked().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = details(&refused);
    let (type_url, value) = &details[0];
    assert_eq!(type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let info = zimcache_proto::rpc::RetryInfo::decode(value.as_slice()).unwrap();
    let seconds = info.retry_delay.unwrap().seconds;
    assert!((1800..=3600).contains(&seconds), "{seconds}");
}
