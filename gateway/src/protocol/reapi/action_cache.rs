//! Results of actions: `ActionCache.GetActionResult` and `UpdateActionResult`.
//!
//! A result is a hit only when everything it names is present, and then all of it is leased. It is stored and handed
//! out byte for byte: clients keep data in fields that we do not know. The key is the action's hash alone: what lies
//! behind it is never looked at (some clients have no action there at all), and results written over HTTP are the same
//! results.

use bytes::Bytes;
use http::Response;
use zimcache_proto::{
    Message as _,
    reapi::{self, GetActionResultRequest},
    wire::{Field, fields},
};

use super::{digests, room_of};
use crate::{
    body::{Body, Held},
    cache::Form,
    call::Call,
    grpc::{self, Messages, Outcome, Pieces, Status},
};

/// Answers `GetActionResult`.
pub(super) async fn get(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: GetActionResultRequest = messages.decode().await?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    let action = reader.required(request.action_digest.as_ref())?;
    let found = room.action_result(&action.digest.hash).await?;
    let result = found.ok_or_else(|| Status::not_found("there is no such action result"))?;
    let mut answer = Pieces::with_capacity(result.bytes.len());
    answer.raw(&result.bytes);
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
    let mut body = Held::new(result.clone());
    let stored = room.put_action_result(&action.digest.hash, Form::Binary, &mut body);
    stored.await?;
    let mut answer = Pieces::with_capacity(result.len());
    answer.raw(&result);
    Ok(grpc::unary_pieces(answer))
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
