//! `ByteStream.QueryWriteStatus`: how much of a write is held.
//!
//! Clients ask before they try a write again. A write of which nothing is known is one of which nothing is held, not an
//! error: one client takes an error for the end. To a client that could not use more the answer is 0.

use http::Response;
use zimcache_auth::Scope;
use zimcache_proto::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse};

use super::{
    super::{
        capabilities,
        names::{self, Name},
        room_of,
    },
    data::Target,
    live::Known,
    resume_key,
};
use crate::{
    body::Body,
    call::Call,
    grpc::{self, Messages, Outcome, Status},
};

/// Answers `QueryWriteStatus`.
pub(in super::super) async fn query(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: QueryWriteStatusRequest = messages.decode().await?;
    names::check_header(&call.head.headers, &request.resource_name)?;
    let name = Name::of_write(&request.resource_name).map_err(Status::invalid)?;
    let blob = name.blob(&shared.config)?;
    let room = room_of(&call, name.instance).await?;
    room.require(Scope::Write)?;
    let known = match resume_key(&room, &name) {
        Some(key) => Some(shared.writes.look(key).await),
        None => None,
    };
    let target = Target {
        room: &room,
        blob: &blob,
        size_bytes: name.size_bytes.unsigned_abs(),
        claim: None,
    };
    let complete = target.exists().await?;
    let held = match known {
        _ if complete => target.size_bytes,
        _ if capabilities::breaks_when_resuming(&call.head.headers) => 0,
        Some(Known::Idle(claim)) => room.held_bytes(&blob, claim.name()).await?,
        Some(Known::Live(held)) => held,
        None => 0,
    };
    Ok(grpc::unary(&QueryWriteStatusResponse {
        committed_size: held.cast_signed(),
        complete,
    }))
}
