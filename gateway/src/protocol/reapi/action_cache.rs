//! Results of actions: `ActionCache.GetActionResult` and `UpdateActionResult`.
//!
//! A result is a hit, and is stored, only when everything it names is present, and then all of it is leased. It is kept
//! byte for byte: clients keep data in fields that we do not know. Only two things are added on the way out, and never
//! stored: an empty `execution_metadata` where there is none, which one client insists on, and what a client asks to
//! have inline (`inline`). The key is the action's hash alone: what lies behind it is never looked at, and results
//! written over HTTP are the same results.

use bytes::Bytes;
use http::Response;
use zimcache_proto::{
    Message as _,
    reapi::{self, GetActionResultRequest},
    status::{GrpcCode, missing},
    wire::{Field, fields},
};
use zimcache_types::Digest;

use super::{digests, inline, room_of};
use crate::{
    action_results::Updated,
    body::Body,
    call::Call,
    grpc::{self, Messages, Outcome, Pieces, Status},
};

/// Number of `execution_metadata` in an action result.
const METADATA: u32 = 9;
/// Most missing blobs that a refusal names: it travels in a header, and clients take 8 KiB of those.
const MOST_VIOLATIONS: usize = 32;

/// Answers `GetActionResult`.
pub(super) async fn get(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: GetActionResultRequest = messages.decode().await?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    let action = reader.required(request.action_digest.as_ref())?;
    let found = room.action_result(&action).await?;
    let result = found.ok_or_else(|| Status::not_found("there is no such action result"))?;
    let wishes = inline::wishes(&request, &action, &result.bytes);
    let mut answer = if wishes.is_empty() {
        whole(&result.bytes)
    } else {
        inline::grant(&room, &action, wishes, &result.bytes).await
    };
    if !result.has_metadata {
        answer.small_field(METADATA, &[]);
    }
    Ok(grpc::unary_pieces(answer))
}

/// Answers `UpdateActionResult`.
pub(super) async fn update(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let message = Messages::new(call.upload, &shared.messages).only().await?;
    let request = Update::read(&message)?;
    let reader = digests::Reader::new(&shared.config, request.function)?;
    let room = room_of(&call, &request.instance_name).await?;
    let action = reader.required(request.action.as_ref())?;
    let result = request
        .result
        .ok_or_else(|| Status::invalid("the request has no action result"))?;
    let updated = room.update_action_result(&action, result.clone());
    let has_metadata = match updated.await? {
        Updated::Stored { has_metadata } => has_metadata,
        Updated::Missing(blobs) => return Err(refuse_missing("the action result", &blobs)),
    };
    let mut answer = whole(&result);
    if !has_metadata {
        answer.small_field(METADATA, &[]);
    }
    Ok(grpc::unary_pieces(answer))
}

fn whole(result: &Bytes) -> Pieces {
    let mut answer = Pieces::with_capacity(result.len() + 2);
    answer.raw(result);
    answer
}

/// Says which blobs have to be uploaded first; of many, the first few.
pub(super) fn refuse_missing(what: &str, blobs: &[Digest]) -> Status {
    let subjects = blobs.iter().take(MOST_VIOLATIONS).map(subject);
    let message = format!("{what} refers to {} blobs that are missing", blobs.len());
    Status::new(GrpcCode::FailedPrecondition, message).with(missing(subjects))
}

/// `blobs/[{function}/]{hash}/{size}`.
fn subject(digest: &Digest) -> String {
    let function = digest.hash.function();
    let segment = function.needs_segment().then(|| format!("{function}/"));
    let size = digest.size_bytes.unwrap_or(0);
    format!(
        "blobs/{}{}/{size}",
        segment.unwrap_or_default(),
        digest.hash
    )
}

/// A request, whose action result is kept as it is encoded.
#[derive(Debug, Default)]
struct Update {
    instance_name: String,
    action: Option<reapi::Digest>,
    result: Option<Bytes>,
    function: i32,
}

impl Update {
    fn read(message: &Bytes) -> Outcome<Update> {
        let malformed = || Status::invalid("the message does not decode");
        let mut request = Update::default();
        for field in fields(message) {
            match field.map_err(|_| malformed())? {
                (1, Field::Bytes(name)) => {
                    let name = String::from_utf8(name.into()).map_err(|_| malformed())?;
                    request.instance_name = name;
                }
                (2, Field::Bytes(digest)) => {
                    let digest = reapi::Digest::decode(digest).map_err(|_| malformed())?;
                    request.action = Some(digest);
                }
                (3, Field::Bytes(result)) => request.result = Some(result),
                // An enum is a 32-bit number, however long it was written.
                (5, Field::Number(number)) => request.function = number as i32,
                (1..=3 | 5, _) => return Err(malformed()),
                _ => {}
            }
        }
        Ok(request)
    }
}
