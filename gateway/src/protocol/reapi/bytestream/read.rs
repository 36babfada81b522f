//! `ByteStream.Read`: a blob, or the rest of it, in messages.
//!
//! Offsets count the bytes of the blob, also where it travels compressed. What is not there is `NOT_FOUND`, never
//! anything else: clients build without the cache then.

use http::Response;
use zimcache_auth::Scope;
use zimcache_proto::{bytestream::ReadRequest, status::GrpcCode};
use zimcache_store::{ByteRange, Encoding, Reader};

use super::super::{
    names::{self, Name},
    room_of,
};
use crate::{
    body::Body,
    call::Call,
    grpc::{self, Form, Messages, Outcome, Status},
};

/// Answers `Read`.
pub(in super::super) async fn read(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: ReadRequest = messages.decode().await?;
    names::check_header(&call.head.headers, &request.resource_name)?;
    let name = Name::of_read(&request.resource_name).map_err(Status::invalid)?;
    let blob = name.blob(&shared.config)?;
    let room = room_of(&call, name.instance).await?;
    room.require(Scope::Read)?;
    let range = range(&request, &name)?;
    let opened = room.open_blob(&blob, range.unwrap_or_default()).await?;
    let reader = opened.ok_or_else(|| Status::not_found("there is no such blob"))?;
    let reader = match range {
        Some(_) => reader,
        None => Reader::from_bytes(bytes::Bytes::new()),
    };
    if !name.is_zstd {
        return Ok(grpc::reading(reader, Form::AsItIs));
    }
    let (encoding, reader) = reader.into_stored();
    Ok(grpc::reading(
        reader,
        match encoding {
            Encoding::Identity => Form::Framed,
            Encoding::Zstd => Form::AsItIs,
        },
    ))
}

/// Which bytes are wanted; `None`: none, behind the last one.
fn range(request: &ReadRequest, name: &Name<'_>) -> Outcome<Option<ByteRange>> {
    let limit = u64::try_from(request.read_limit)
        .map_err(|_| Status::invalid("the limit of a read is negative"))?;
    if limit != 0 && name.is_zstd {
        return Err(Status::invalid("compressed data cannot be read to a limit"));
    }
    let size = name.size_bytes.unsigned_abs();
    let first = u64::try_from(request.read_offset)
        .ok()
        .filter(|first| *first <= size);
    let first = first.ok_or_else(|| {
        let message = format!(
            "offset {} is not in a blob of {size} bytes",
            request.read_offset
        );
        Status::new(GrpcCode::OutOfRange, message)
    })?;
    let last = limit.checked_sub(1).map(|more| first.saturating_add(more));
    Ok(match (first, last) {
        (0, None) => Some(ByteRange::Full),
        (first, _) if first == size => None,
        (first, last) => Some(ByteRange::From { first, last }),
    })
}
