//! The table of calls: from a request to the peer and back.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use tokio::sync::watch;
use tracing::Instrument as _;
use zimcache_proto::{Message, node};
use zimcache_telemetry::trace;

use super::{Stage, health, reading, small, writing};
use crate::{
    Error, Listing, Peer, Result,
    wire::{CONTENT_TYPE, Call, Messages, Outgoing, Pieces, convert, rows, status},
};

/// Answers a request, whatever it is.
pub(super) async fn answer(
    peer: &Arc<dyn Peer>,
    request: Request<Incoming>,
    stage: watch::Receiver<Stage>,
) -> Response<Outgoing> {
    let Some(call) = Call::of(request.uri().path()) else {
        return refusal(&Error::Refused {
            code: zimcache_types::Code::Internal,
            message: "there is no such call".into(),
        });
    };
    let span = trace::of_call(request.headers(), call.name());
    let messages = match call {
        Call::Health => Messages::of_anybody(request.into_body()),
        _ => Messages::request(request.into_body()),
    };
    if call == Call::ReadSmall {
        return response(small::answer(peer, messages, stage));
    }
    let body = answer_call(peer, call, messages).instrument(span).await;
    body.map_or_else(|error| refusal(&error), response)
}

/// An answer without messages: the headers say how it went.
fn refusal(error: &Error) -> Response<Outgoing> {
    let mut response = response(Outgoing::nothing());
    response.headers_mut().extend(status::trailers(Some(error)));
    response
}

fn response(body: Outgoing) -> Response<Outgoing> {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// One message in, one out.
async fn unary<Q, A, F>(mut messages: Messages, work: impl FnOnce(Q) -> F) -> Result<Outgoing>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A>>,
{
    let answer = work(messages.only().await?).await?;
    Ok(Outgoing::answer(Pieces::of(&answer)))
}

async fn answer_call(peer: &Arc<dyn Peer>, call: Call, mut messages: Messages) -> Result<Outgoing> {
    match call {
        Call::Read | Call::ReadSmall => reading::answer(peer, messages.only().await?).await,
        Call::Write => writing::answer(peer, messages).await,
        Call::Find => unary(messages, |find| self::find(peer, find)).await,
        Call::Pull => unary(messages, |pull| self::pull(peer, pull)).await,
        Call::Settle => unary(messages, |settle| self::settle(peer, settle)).await,
        Call::Delete => unary(messages, |delete| self::delete(peer, delete)).await,
        Call::Purge => unary(messages, |purge| self::purge(peer, purge)).await,
        Call::List => unary(messages, |list| self::list(peer, list)).await,
        Call::Status => unary(messages, |question| self::status(peer, question)).await,
        Call::Manage => unary(messages, |work| self::manage(peer, work)).await,
        Call::Health => unary(messages, async |check| health::check(&check)).await,
    }
}

async fn find(peer: &Arc<dyn Peer>, find: node::FindRequest) -> Result<node::FindReply> {
    let presences = peer.find(convert::find_in(&find)?).await?.into_iter();
    let numbers: Vec<u8> = presences.map(|one| rows::presence_out(one) as u8).collect();
    Ok(node::FindReply {
        presence: numbers.into(),
        ring: Bytes::new(),
    })
}

async fn pull(peer: &Arc<dyn Peer>, pull: node::PullRequest) -> Result<node::PullReply> {
    let held = peer.pull(convert::pull_in(pull)?).await?;
    Ok(node::PullReply { held })
}

async fn settle(peer: &Arc<dyn Peer>, settle: node::SettleRequest) -> Result<node::SettleReply> {
    let versions = settle
        .versions
        .into_iter()
        .map(|one| convert::version_in(Some(one)));
    let records = convert::keys_in(settle.keys)?.into_iter().zip(versions);
    peer.settle(records.collect(), convert::pins_in(settle.pins))
        .await?;
    Ok(node::SettleReply {})
}

async fn delete(peer: &Arc<dyn Peer>, delete: node::DeleteRequest) -> Result<node::DeleteReply> {
    let found = peer
        .delete(delete.epoch, convert::key_in(delete.key)?)
        .await?;
    Ok(node::DeleteReply { found })
}

async fn purge(peer: &Arc<dyn Peer>, purge: node::PurgeRequest) -> Result<node::PurgeReply> {
    peer.purge(purge.epoch, convert::namespace(&purge.namespace)?)
        .await?;
    Ok(node::PurgeReply {})
}

async fn list(peer: &Arc<dyn Peer>, list: node::ListRequest) -> Result<node::ListReply> {
    let mut reply = node::ListReply::default();
    match rows::listing_in(list)? {
        listing @ Listing::Entries { .. } => {
            let entries = peer.list_entries(listing).await?;
            reply.entries = entries.into_iter().map(rows::entry_out).collect();
        }
        listing @ Listing::Blobs { .. } => {
            let blobs = peer.list_blobs(listing).await?;
            reply.blobs = blobs.iter().map(rows::blob_out).collect();
        }
    }
    Ok(reply)
}

async fn status(peer: &Arc<dyn Peer>, asked: node::StatusRequest) -> Result<node::StatusReply> {
    rows::status_out(peer.status(rows::question_in(asked)?).await?)
}

async fn manage(peer: &Arc<dyn Peer>, work: node::ManageRequest) -> Result<node::ManageReply> {
    let report = peer.manage(rows::manage_in(&work)?).await?;
    Ok(node::ManageReply { report })
}
