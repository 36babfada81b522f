//! Blobs in chunks: `ContentAddressableStorage.SplitBlob` and `SpliceBlob`.
//!
//! An upload asks which chunks are missing, writes them, and has the blob spliced; a download has the blob split, and
//! reads the chunks that it lacks. A blob that was uploaded whole is cut when it is first asked for, if the caller may
//! write: for a reader it is `NOT_FOUND`, after which clients read the blob whole. Which function a client names decides
//! only how a blob is cut here; what it spliced is handed out as it was. Everything else: `chunks` of the gateway.

use http::Response;
use zimcache_proto::reapi::{
    SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, chunking_function::Value as Chunking,
};

use super::{digests, room_of};
use crate::{
    body::Body,
    call::Call,
    chunks::{ChunkList, Spliced},
    grpc::{self, Messages, Outcome, Status},
};

/// Answers `SplitBlob`.
pub(super) async fn split(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: SplitBlobRequest = messages.decode().await?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    let blob = reader.required(request.blob_digest.as_ref())?;
    let wanted = chunking(request.chunking_function);
    let split = room.split_blob(&blob, wanted).await?;
    let list = split.ok_or_else(|| Status::not_found("there is no such blob in chunks"))?;
    Ok(grpc::unary(&list.message()))
}

/// Answers `SpliceBlob`.
pub(super) async fn splice(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: SpliceBlobRequest = messages.decode().await?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    let blob = reader.required(request.blob_digest.as_ref())?;
    let chunks = request.chunk_digests.iter();
    let chunks = chunks.map(|chunk| Ok(reader.read(chunk)?.digest));
    let list = ChunkList {
        chunking: chunking(request.chunking_function),
        chunks: chunks.collect::<Outcome<_>>()?,
    };
    match room.splice_blob(&blob, &list).await? {
        Spliced::Stored => Ok(grpc::unary(&SpliceBlobResponse {
            blob_digest: request.blob_digest,
        })),
        Spliced::Lost(chunk) => Err(Status::not_found(format!(
            "there is no chunk {}",
            chunk.hash
        ))),
    }
}

/// A function that we do not know is none in particular: the chunks only have to make the blob.
fn chunking(number: i32) -> Chunking {
    Chunking::try_from(number).unwrap_or(Chunking::Unknown)
}
