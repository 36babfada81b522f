//! Many blobs in one call: `ContentAddressableStorage.BatchUpdateBlobs` and `BatchReadBlobs`.
//!
//! The blobs of a batch are stored and read side by side, so that they share the store's syncs; what many batches bring
//! at once waits for its turn here, before a node's deadlines begin. Each has a status of
//! its own, always set, with the digest as the client gave it. Data may be compressed as zstd, either way: what is stored
//! compressed goes out as it is stored. Invariants: a batch is never larger than [`MOST_BYTES`] of data; compressed data
//! never unfolds into more than its digest says, nor into more than a batch may hold.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Response;
use zimcache_auth::Scope;
use zimcache_proto::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, Digest,
    batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response,
    compressor::Value as Compressor,
};
use zimcache_store::{ByteRange, Encoding};

use super::{digests, room_of};
use crate::{
    Shared,
    body::{Body, Held},
    cache::Named,
    call::Call,
    frames,
    grpc::{self, Messages, Outcome, Pieces, Status},
    room::Room,
    uploads::Put,
};

/// Most bytes of data in a batch: what clients with a limit of 4 MiB for a message can take, digests included.
pub(super) const MOST_BYTES: usize = (4 << 20) - (64 << 10);
/// Most blobs of a batch that are stored or read at once.
const AT_ONCE: usize = 256;
/// Most blobs asked for in one call: an answer has a status for each.
const MOST_BLOBS: usize = 50_000;
/// Number of `responses` in an answer, and of `data` in one of them.
const RESPONSES: u32 = 1;
const DATA: u32 = 2;

/// Answers `BatchUpdateBlobs`.
pub(super) async fn update(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: BatchUpdateBlobsRequest = messages.decode().await?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    room.require(Scope::Write)?;
    let total: usize = request.requests.iter().map(|blob| blob.data.len()).sum();
    if total > MOST_BYTES {
        return Err(over_the_limit());
    }
    let stored = stream::iter(request.requests).map(|blob| store(shared, &room, reader, blob));
    let responses = stored.buffered(AT_ONCE).collect().await;
    Ok(grpc::unary(&BatchUpdateBlobsResponse { responses }))
}

async fn store(
    shared: &Shared,
    room: &Room<'_>,
    reader: digests::Reader,
    blob: batch_update_blobs_request::Request,
) -> batch_update_blobs_response::Response {
    let _turn = shared.batch_writes.acquire().await;
    let stored = try_store(room, reader, &blob).await;
    let status = stored.err().unwrap_or_else(Status::ok);
    batch_update_blobs_response::Response {
        digest: blob.digest,
        status: Some(status.to_message()),
    }
}

async fn try_store(
    room: &Room<'_>,
    reader: digests::Reader,
    blob: &batch_update_blobs_request::Request,
) -> Outcome<()> {
    let named = reader.required(blob.digest.as_ref())?;
    let data = match Compressor::try_from(blob.compressor) {
        Ok(Compressor::Identity) => blob.data.clone(),
        Ok(Compressor::Zstd) => unpacked(&named, blob.data.clone()).await?,
        _ => return Err(Status::invalid("only zstd is a compressor of this server")),
    };
    room.put_blob(&named, Put::LEASED, &mut Held::new(data))
        .await?;
    Ok(())
}

/// The data of a blob that came compressed.
async fn unpacked(named: &Named, data: Bytes) -> Outcome<Bytes> {
    let size = named.digest.size_bytes.unwrap_or(0);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > MOST_BYTES {
        return Err(over_the_limit());
    }
    let unpacked = frames::unpack(data, size).await;
    unpacked.ok_or_else(|| Status::invalid("the data is not zstd of the size in its digest"))
}

/// Answers `BatchReadBlobs`.
pub(super) async fn read(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: BatchReadBlobsRequest = messages.decode().await?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    room.require(Scope::Read)?;
    // A negative size is refused with its blob.
    let size = |digest: &Digest| usize::try_from(digest.size_bytes).unwrap_or(0);
    let sizes = request.digests.iter().map(size);
    let total = sizes.fold(0, usize::saturating_add);
    if total > MOST_BYTES || request.digests.len() > MOST_BLOBS {
        return Err(over_the_limit());
    }
    let takes_zstd = request
        .acceptable_compressors
        .contains(&Compressor::Zstd.into());
    let digests = stream::iter(request.digests);
    let fetched = digests.map(|digest| respond(&room, reader, digest, takes_zstd));
    let fetched: Vec<_> = fetched.buffered(AT_ONCE).collect().await;
    let mut answer = Pieces::with_capacity(0);
    for (response, data) in fetched {
        answer.message_with_bytes(RESPONSES, &response, DATA, &data);
    }
    Ok(grpc::unary_pieces(answer))
}

/// The answer about one blob, and its data, which is put beside it.
async fn respond(
    room: &Room<'_>,
    reader: digests::Reader,
    digest: Digest,
    takes_zstd: bool,
) -> (batch_read_blobs_response::Response, Bytes) {
    let found = match reader.read(&digest) {
        Ok(named) => fetch(room, &named, takes_zstd).await,
        Err(status) => Err(status),
    };
    let (compressor, data, status) = match found {
        Ok((compressor, data)) => (compressor, data, Status::ok()),
        Err(status) => (Compressor::Identity, Bytes::new(), status),
    };
    let response = batch_read_blobs_response::Response {
        digest: Some(digest),
        data: Bytes::new(),
        compressor: compressor.into(),
        status: Some(status.to_message()),
    };
    (response, data)
}

/// A blob, whole, as it is stored where the client can take that.
async fn fetch(room: &Room<'_>, named: &Named, takes_zstd: bool) -> Outcome<(Compressor, Bytes)> {
    let opened = room.open_blob(named, ByteRange::Full).await?;
    let reader = opened.ok_or_else(|| Status::not_found("there is no such blob"))?;
    let (encoding, reader) = if takes_zstd {
        reader.into_stored()
    } else {
        (Encoding::Identity, reader)
    };
    let compressor = match encoding {
        Encoding::Identity => Compressor::Identity,
        Encoding::Zstd => Compressor::Zstd,
    };
    match reader.read_all(MOST_BYTES as u64).await {
        Ok(data) => Ok((compressor, data)),
        // For the client it is gone; we were told when it was read.
        Err(error) if error.code() == zimcache_types::Code::Corrupt => {
            Err(Status::not_found("there is no such blob"))
        }
        Err(error) => Err(error.into()),
    }
}

fn over_the_limit() -> Status {
    Status::invalid(format!(
        "a batch may hold {MOST_BYTES} bytes of data and {MOST_BLOBS} blobs"
    ))
}
