//! Blobs in chunks: `SplitBlob` and `SpliceBlob`, and the sequences in which new versions of Bazel use them.

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, Digest, SpliceBlobRequest, SplitBlobRequest,
    SplitBlobResponse,
};
use tonic::Code;
use zimcache_store::BlobStore as _;
use zimcache_types::{
    Function, Namespace,
    chunking::{Chunker, FastCdc2020Params, Params, RepMaxCdcParams},
};

use crate::{
    clients::{FUNCTIONS, bearing, cas, codes, digest_under, lose, missing, store, upload},
    support::{
        Outcome, Server, bytestream, code, digest, pattern, read, read_name, within, write,
        write_name,
    },
    wire,
};

const SHA256: Function = Function::Sha256;
const FAST_CDC: Params = Params::FastCdc2020(FastCdc2020Params::RECOMMENDED);
const REP_MAX_CDC: Params = Params::RepMaxCdc(RepMaxCdcParams::RECOMMENDED);

/// The chunks of a blob, cut as a client would.
fn cut(params: Params, blob: &[u8]) -> Vec<&[u8]> {
    let mut rest = blob;
    let lengths = Chunker::lengths_of(params, blob).into_iter();
    let chunks = lengths.map(|length| {
        let (chunk, behind) = rest.split_at(usize::try_from(length).unwrap());
        rest = behind;
        chunk
    });
    chunks.collect()
}

fn digests(function: Function, chunks: &[&[u8]]) -> Vec<Digest> {
    chunks
        .iter()
        .map(|chunk| digest_under(function, chunk))
        .collect()
}

fn splice(function: Function, blob: &[u8], chunks: &[&[u8]]) -> SpliceBlobRequest {
    SpliceBlobRequest {
        blob_digest: Some(digest_under(function, blob)),
        chunk_digests: digests(function, chunks),
        digest_function: function.number().into(),
        chunking_function: FAST_CDC.number(),
        ..SpliceBlobRequest::default()
    }
}

async fn spliced(server: &Server, request: SpliceBlobRequest) -> Outcome<Digest> {
    let answer = within(cas(server).splice_blob(request)).await?;
    Ok(answer.into_inner().blob_digest.unwrap())
}

fn split(function: Function, blob: &[u8], chunking_function: i32) -> SplitBlobRequest {
    SplitBlobRequest {
        blob_digest: Some(digest_under(function, blob)),
        digest_function: function.number().into(),
        chunking_function,
        ..SplitBlobRequest::default()
    }
}

async fn chunks_of(server: &Server, request: SplitBlobRequest) -> Outcome<SplitBlobResponse> {
    Ok(within(cas(server).split_blob(request)).await?.into_inner())
}

async fn content(server: &Server, function: Function, chunk: &Digest) -> Vec<u8> {
    let request = BatchReadBlobsRequest {
        digests: vec![chunk.clone()],
        digest_function: function.number().into(),
        ..BatchReadBlobsRequest::default()
    };
    let answer = within(cas(server).batch_read_blobs(request)).await.unwrap();
    let response = answer.into_inner().responses.remove(0);
    assert_eq!(response.status.unwrap().code, 0);
    response.data
}

/// All chunks of an answer, one after the other.
async fn joined(server: &Server, function: Function, list: &SplitBlobResponse) -> Vec<u8> {
    let mut joined = Vec::new();
    for chunk in &list.chunk_digests {
        joined.extend(content(server, function, chunk).await);
    }
    joined
}

/// Uploads as Bazel does; gives how many chunks had to be written.
async fn upload_in_chunks(server: &Server, blob: &[u8]) -> usize {
    let chunks = cut(FAST_CDC, blob);
    let absent = missing(server, Some(SHA256), digests(SHA256, &chunks))
        .await
        .unwrap();
    let mut bytes = bytestream(server);
    for chunk in chunks
        .iter()
        .filter(|chunk| absent.contains(&digest(chunk)))
    {
        write(&mut bytes, &write_name(chunk), chunk).await.unwrap();
    }
    let answer = spliced(server, splice(SHA256, blob, &chunks)).await;
    assert_eq!(answer.unwrap(), digest(blob));
    absent.len()
}

#[tokio::test]
async fn a_blob_uploaded_in_chunks_is_read_in_chunks_and_as_a_whole() {
    let server = Server::start().await;
    let blob = pattern(1, 9 << 20);
    let count = upload_in_chunks(&server, &blob).await;
    assert!(count > 5, "{count}");
    let list = chunks_of(&server, split(SHA256, &blob, FAST_CDC.number()))
        .await
        .unwrap();
    assert_eq!(list.chunk_digests, digests(SHA256, &cut(FAST_CDC, &blob)));
    assert_eq!(list.chunking_function, FAST_CDC.number());
    assert!(joined(&server, SHA256, &list).await == blob);
    let whole = read(&mut bytestream(&server), &read_name(&blob))
        .await
        .unwrap();
    assert!(whole == blob);
}

#[tokio::test]
async fn a_small_change_uploads_and_downloads_few_chunks() {
    let server = Server::start().await;
    let mut blob = pattern(2, 16 << 20);
    let all = upload_in_chunks(&server, &blob).await;
    let before = chunks_of(&server, split(SHA256, &blob, 0)).await.unwrap();
    blob.splice(5_000_000..5_000_000, *b"a few new bytes in the middle");
    let changed = upload_in_chunks(&server, &blob).await;
    assert!((1..=3).contains(&changed) && all > 10, "{changed} of {all}");
    let after = chunks_of(&server, split(SHA256, &blob, 0)).await.unwrap();
    let new = after.chunk_digests.iter();
    let new = new.filter(|chunk| !before.chunk_digests.contains(chunk));
    assert_eq!(new.count(), changed);
}

#[tokio::test]
async fn a_blob_that_was_uploaded_whole_is_cut_when_it_is_asked_for() {
    let server = Server::start().await;
    let blob = pattern(3, (7 << 20) + 123);
    server.stock(&blob).await;
    for params in [FAST_CDC, REP_MAX_CDC] {
        let request = split(SHA256, &blob, params.number());
        let list = chunks_of(&server, request.clone()).await.unwrap();
        assert_eq!(list.chunk_digests, digests(SHA256, &cut(params, &blob)));
        assert_eq!(list.chunking_function, params.number());
        assert!(joined(&server, SHA256, &list).await == blob);
        assert_eq!(chunks_of(&server, request).await.unwrap(), list);
    }
}

#[tokio::test]
async fn blobs_of_every_digest_function_are_cut_and_spliced() {
    let server = Server::start().await;
    let blob = pattern(4, 3 << 20);
    for function in FUNCTIONS {
        let chunks = cut(FAST_CDC, &blob);
        store(&server, "", function, &chunks[..1]).await;
        let refused = spliced(&server, splice(function, &blob, &chunks)).await;
        assert_eq!(code(refused), Code::NotFound, "{function}");
        for chunk in &chunks[1..] {
            store(&server, "", function, &[chunk]).await;
        }
        let answer = spliced(&server, splice(function, &blob, &chunks))
            .await
            .unwrap();
        assert_eq!(answer, digest_under(function, &blob), "{function}");
        let list = chunks_of(&server, split(function, &blob, REP_MAX_CDC.number())).await;
        let list = list.unwrap();
        assert_eq!(
            list.chunk_digests,
            digests(function, &cut(REP_MAX_CDC, &blob))
        );
        assert!(joined(&server, function, &list).await == blob, "{function}");
    }
}

#[tokio::test]
async fn blobs_of_blake3_are_cut_and_spliced_although_no_function_is_named() {
    let server = Server::start().await;
    let blob = pattern(5, 5 << 20);
    let chunks = cut(FAST_CDC, &blob);
    for chunk in &chunks {
        store(&server, "", Function::Blake3, &[chunk]).await;
    }
    let mut request = splice(Function::Blake3, &blob, &chunks);
    request.digest_function = 0;
    let answer = spliced(&server, request).await.unwrap();
    assert_eq!(answer, digest_under(Function::Blake3, &blob));
    let mut request = split(Function::Blake3, &blob, 0);
    request.digest_function = 0;
    let list = chunks_of(&server, request).await.unwrap();
    assert_eq!(list.chunk_digests, digests(Function::Blake3, &chunks));
}

#[tokio::test]
async fn a_small_blob_is_its_own_only_chunk() {
    let server = Server::start().await;
    for (params, size) in [(FAST_CDC, (2 << 20) - 1), (REP_MAX_CDC, (512 << 10) - 1)] {
        let blob = pattern(6, size);
        server.stock(&blob).await;
        let list = chunks_of(&server, split(SHA256, &blob, params.number()))
            .await
            .unwrap();
        assert_eq!(list.chunk_digests, [digest(&blob)]);
        assert_eq!(list.chunking_function, params.number());
    }
    assert!(server.store.entry_keys().is_empty(), "nothing to remember");
    let list = chunks_of(&server, split(SHA256, b"", 0)).await.unwrap();
    assert!(list.chunk_digests.is_empty(), "nothing has no chunks");
}

#[tokio::test]
async fn an_absent_blob_is_not_found_by_split() {
    let server = Server::start().await;
    for size in [10, 4 << 20] {
        let outcome = chunks_of(&server, split(SHA256, &pattern(7, size), 1)).await;
        assert_eq!(code(outcome), Code::NotFound);
    }
    let blob = pattern(7, 4 << 20);
    server.stock(&blob).await;
    let mut request = split(SHA256, &blob, 1);
    request.blob_digest.as_mut().unwrap().size_bytes += 1;
    assert_eq!(code(chunks_of(&server, request).await), Code::NotFound);
}

#[tokio::test]
async fn a_blob_whose_chunk_was_lost_is_cut_again() {
    let server = Server::start().await;
    let blob = pattern(8, 8 << 20);
    upload_in_chunks(&server, &blob).await;
    lose(&server, SHA256, cut(FAST_CDC, &blob)[3]).await;
    let list = chunks_of(&server, split(SHA256, &blob, 1)).await.unwrap();
    assert!(joined(&server, SHA256, &list).await == blob);
}

#[tokio::test]
async fn a_blob_that_was_lost_is_not_found_although_its_chunks_are_there() {
    let server = Server::start().await;
    let blob = pattern(9, 8 << 20);
    upload_in_chunks(&server, &blob).await;
    lose(&server, SHA256, &blob).await;
    assert_eq!(
        code(chunks_of(&server, split(SHA256, &blob, 1)).await),
        Code::NotFound
    );
    let chunks = cut(FAST_CDC, &blob);
    spliced(&server, splice(SHA256, &blob, &chunks))
        .await
        .unwrap();
    chunks_of(&server, split(SHA256, &blob, 1)).await.unwrap();
}

#[tokio::test]
async fn chunks_that_are_missing_are_not_found_by_splice() {
    let server = Server::start().await;
    let blob = pattern(10, 3 << 20);
    let (left, right) = blob.split_at(1 << 20);
    store(&server, "", SHA256, &[left]).await;
    let refused = spliced(&server, splice(SHA256, &blob, &[left, right]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains(&digest(right).hash));
    let absent = missing(&server, Some(SHA256), vec![digest(&blob)])
        .await
        .unwrap();
    assert_eq!(absent.len(), 1, "nothing was stored");
}

#[tokio::test]
async fn chunks_that_make_another_blob_are_invalid() {
    let server = Server::start().await;
    let blob = pattern(11, 3000);
    let (left, right) = blob.split_at(1500);
    store(&server, "", SHA256, &[left, right]).await;
    for chunks in [
        &[right, left][..],
        &[left],
        &[],
        &[left, right, left],
        &[left, left],
    ] {
        let refused = spliced(&server, splice(SHA256, &blob, chunks)).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    let absent = missing(&server, Some(SHA256), vec![digest(&blob)])
        .await
        .unwrap();
    assert_eq!(absent.len(), 1, "nothing was stored");
}

#[tokio::test]
async fn a_wrong_list_is_refused_although_the_blob_exists() {
    let server = Server::start().await;
    let blob = pattern(12, 3 << 20);
    let (left, right) = blob.split_at(blob.len() / 2);
    store(&server, "", SHA256, &[left, right]).await;
    server.stock(&blob).await;
    let refused = spliced(&server, splice(SHA256, &blob, &[right, left])).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let list = chunks_of(&server, split(SHA256, &blob, 1)).await.unwrap();
    assert!(joined(&server, SHA256, &list).await == blob);
}

#[tokio::test]
async fn chunks_of_no_chunking_function_are_taken_as_they_are() {
    let server = Server::start().await;
    let blob = pattern(13, 4 << 20);
    let chunks: Vec<&[u8]> = blob.chunks(1_000_000).collect();
    for chunk in &chunks {
        store(&server, "", SHA256, &[chunk, b""]).await;
    }
    for chunking_function in [0, 2, 77] {
        let mut request = splice(SHA256, &blob, &chunks);
        request.chunking_function = chunking_function;
        spliced(&server, request).await.unwrap();
    }
    // Chunks without bytes do no harm.
    let mut request = splice(SHA256, &blob, &chunks);
    request.chunk_digests.insert(2, digest(b""));
    request.chunking_function = 0;
    spliced(&server, request).await.unwrap();
    let list = chunks_of(&server, split(SHA256, &blob, 2)).await.unwrap();
    assert_eq!(list.chunk_digests, digests(SHA256, &chunks));
    for unknown in [0, 77] {
        let list = chunks_of(&server, split(SHA256, &blob, unknown))
            .await
            .unwrap();
        assert!(joined(&server, SHA256, &list).await == blob);
    }
}

#[tokio::test]
async fn a_blob_that_exists_is_spliced_again_without_harm() {
    let server = Server::start().await;
    let blob = pattern(14, 6 << 20);
    for _ in 0..3 {
        upload_in_chunks(&server, &blob).await;
    }
    let empty = splice(SHA256, b"", &[]);
    assert_eq!(spliced(&server, empty).await.unwrap(), digest(b""));
    let itself = splice(SHA256, &blob, &[&blob]);
    assert_eq!(spliced(&server, itself).await.unwrap(), digest(&blob));
}

#[tokio::test]
async fn who_may_only_read_gets_chunks_that_are_there_and_causes_none() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    let blob = pattern(15, 4 << 20);
    let (left, right) = blob.split_at(2 << 20);
    for part in [left, right] {
        let request = BatchUpdateBlobsRequest {
            instance_name: "team".to_owned(),
            requests: vec![upload(SHA256, part)],
            ..BatchUpdateBlobsRequest::default()
        };
        let request = bearing(&tokens.write, request);
        let stored = within(cas(&server).batch_update_blobs(request)).await;
        assert_eq!(codes(&stored.unwrap().into_inner()), [0]);
    }
    let splice = SpliceBlobRequest {
        instance_name: "team".to_owned(),
        chunking_function: 0,
        ..splice(SHA256, &blob, &[left, right])
    };
    let split = |chunking_function| SplitBlobRequest {
        instance_name: "team".to_owned(),
        ..split(SHA256, &blob, chunking_function)
    };
    let refused = within(cas(&server).splice_blob(bearing(&tokens.read, splice.clone()))).await;
    assert_eq!(code(refused), Code::PermissionDenied);
    let unknown = within(cas(&server).splice_blob(splice.clone())).await;
    assert_eq!(code(unknown), Code::Unauthenticated);
    within(cas(&server).splice_blob(bearing(&tokens.write, splice)))
        .await
        .unwrap();
    let before = server.store.blob_names();
    let found = within(cas(&server).split_blob(bearing(&tokens.read, split(1))))
        .await
        .unwrap();
    let found = found.into_inner();
    assert_eq!(found.chunk_digests, digests(SHA256, &[left, right]));
    assert_eq!(found.chunking_function, 0);
    lose_in_team(&server, left).await;
    let found = within(cas(&server).split_blob(bearing(&tokens.read, split(1)))).await;
    assert_eq!(code(found), Code::NotFound, "a reader has nothing cut");
    assert_eq!(server.store.blob_names().len(), before.len() - 1);
    let found = within(cas(&server).split_blob(bearing(&tokens.write, split(1)))).await;
    assert_eq!(found.unwrap().into_inner().chunking_function, 1);
    let found = within(cas(&server).split_blob(bearing(&tokens.read, split(0)))).await;
    assert_eq!(found.unwrap().into_inner().chunking_function, 1);
    let unknown = within(cas(&server).split_blob(split(0))).await;
    assert_eq!(code(unknown), Code::Unauthenticated);
}

async fn lose_in_team(server: &Server, blob: &[u8]) {
    let digest = zimcache_types::Digest::of(SHA256, blob);
    let team = Namespace::new("team").unwrap();
    assert!(server.store.delete(&team, &digest).await.unwrap());
}

#[tokio::test]
async fn digests_that_are_none_are_invalid() {
    let server = Server::start().await;
    assert_eq!(
        code(chunks_of(&server, SplitBlobRequest::default()).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(spliced(&server, SpliceBlobRequest::default()).await),
        Code::InvalidArgument
    );
    let mut request = splice(SHA256, b"ab", &[b"a", b"b"]);
    request.chunk_digests[1].hash = "b".to_owned();
    assert_eq!(
        code(spliced(&server, request.clone()).await),
        Code::InvalidArgument
    );
    // Of another function than the blob's.
    store(&server, "", Function::Sha1, &[b"b"]).await;
    store(&server, "", SHA256, &[b"a"]).await;
    request.chunk_digests[1] = digest_under(Function::Sha1, b"b");
    request.digest_function = 0;
    assert_eq!(code(spliced(&server, request).await), Code::InvalidArgument);
}
