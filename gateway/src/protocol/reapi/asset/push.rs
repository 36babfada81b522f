//! `Push.PushBlob` and `PushDirectory`: what a client says a URI means.
//!
//! The content has to be there, or nothing is remembered. What it refers to is a hint: what of it is missing at this
//! moment is not kept in mind (BuildStream names directories that it never uploads). What is there is leased now and at
//! every fetch.

use http::Response;
use zimcache_auth::Scope;
use zimcache_proto::{
    asset::{PushBlobRequest, PushBlobResponse},
    reapi,
};
use zimcache_types::{Clock as _, Digest, SystemClock};

use super::{check_uris, qualifiers::Qualifiers, read_time};
use crate::{
    assets::{Asset, Kind, MOST_REFERENCES, Name},
    body::Body,
    call::Call,
    completeness::Found,
    grpc::{self, Messages, Outcome, Status},
    protocol::reapi::{action_cache::refuse_missing, digests, room_of},
};

/// Answers `PushBlob`.
pub(in crate::protocol::reapi) async fn blob(call: Call<'_>) -> Outcome<Response<Body>> {
    push(call, Kind::Blob).await
}

/// Answers `PushDirectory`.
pub(in crate::protocol::reapi) async fn directory(call: Call<'_>) -> Outcome<Response<Body>> {
    push(call, Kind::Directory).await
}

async fn push(call: Call<'_>, kind: Kind) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let mut messages = Messages::new(call.upload, &shared.messages);
    let request: PushBlobRequest = messages.decode().await?;
    check_uris(&request.uris)?;
    let qualifiers = Qualifiers::read(kind, &request.qualifiers, request.uris.len())?;
    let reader = digests::Reader::new(&shared.config, request.digest_function)?;
    let room = room_of(&call, &request.instance_name).await?;
    room.require(Scope::Write)?;
    let named = reader.required(request.blob_digest.as_ref())?;
    if request.references_blobs.len() + request.references_directories.len() > MOST_REFERENCES {
        return Err(Status::invalid(format!(
            "an asset may refer to {MOST_REFERENCES} blobs and directories"
        )));
    }
    let digest = room.settled(&named).await?;
    let reader = digests::Reader::new(&shared.config, i32::from(digest.hash.function().number()))?;
    let asset = Asset {
        digest,
        blobs: read_all(reader, &request.references_blobs)?,
        directories: read_all(reader, &request.references_directories)?,
        since: SystemClock.now(),
        expires: request.expire_at.as_ref().map(read_time),
    };
    let uris = request.uris.into_iter();
    let name = |uri| Name {
        kind,
        uri,
        qualifiers: qualifiers.telling.clone(),
    };
    let names: Vec<Name> = uris.map(name).collect();
    match room.push_asset(&names, asset).await? {
        Found::All => Ok(grpc::unary(&PushBlobResponse {})),
        Found::Missing(digests) => Err(refuse_missing("the asset", &digests)),
        Found::Malformed(refusal) => Err(Status::invalid(refusal)),
    }
}

fn read_all(reader: digests::Reader, digests: &[reapi::Digest]) -> Outcome<Vec<Digest>> {
    let read = digests.iter().map(|digest| reader.read(digest));
    read.map(|named| named.map(|named| named.digest)).collect()
}
