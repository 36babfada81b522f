//! `ByteStream.Write`: a blob in messages.
//!
//! A blob that is there already is answered at once, before its data is read or as soon as it appears. A large one that
//! breaks off can be taken up again under its name, also after a restart: the first offset says where, and what is held
//! of it is not written again. Invariants: a blob is stored only when the client said that
//! its data is complete, and only with the hash and the size in its name.

use http::Response;
use tokio::sync::{Semaphore, SemaphorePermit};
use zimcache_auth::Scope;
use zimcache_proto::{bytestream::WriteResponse, status::GrpcCode};

use super::{
    super::{
        names::{self, Name},
        room_of,
    },
    data::{Data, Form, Stop, Target},
    live::{Claim, Superseded},
    resume_key,
    stream::{Start, Stream},
};
use crate::{
    body::Body,
    call::Call,
    frames::{self, Unpacking},
    grpc::{self, Messages, Outcome, Status},
    uploads::Put,
};

/// What a client is told of a compressed blob that is there already.
const EXISTS: i64 = -1;

/// Answers `Write`.
pub(in super::super) async fn write(call: Call<'_>) -> Outcome<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let start = Start::read(Messages::new(call.upload, &shared.messages)).await?;
    names::check_header(&call.head.headers, &start.name)?;
    let text = start.name.clone();
    let name = Name::of_write(&text).map_err(Status::invalid)?;
    let blob = name.blob(&shared.config)?;
    let room = room_of(&call, name.instance).await?;
    room.require(Scope::Write)?;
    let mut target = Target {
        room: &room,
        blob: &blob,
        size_bytes: name.size_bytes.unsigned_abs(),
        claim: None,
    };
    if target.exists().await? {
        return Ok(exists(&name));
    }
    let first = first_byte(&start, &target)?;
    let left = target.size_bytes - first;
    let (form, _permit) = form(&name, left, &shared.unpackings).await?;
    let claim = match resume_key(&room, &name) {
        Some(key) => Some(shared.writes.take_over(key).await.map_err(superseded)?),
        None if first > 0 => return Err(Status::invalid("nothing is held of this write")),
        None => None,
    };
    target.claim = claim.as_ref();
    // The stream before may have been the last one.
    if claim.is_some() && target.exists().await? {
        return Ok(exists(&name));
    }
    let stream = Stream::new(start, |progress| {
        Messages::resume(call.upload, &shared.messages, progress)
    });
    store(target, &name, Data::new(target, stream, form, first), first).await
}

/// Where in the blob the data begins.
fn first_byte(start: &Start, target: &Target<'_>) -> Outcome<u64> {
    let first = u64::try_from(start.offset).ok();
    let inside = first.filter(|first| *first <= target.size_bytes);
    inside.ok_or_else(|| {
        let (offset, size) = (start.offset, target.size_bytes);
        Status::invalid(format!("offset {offset} is not in a blob of {size} bytes"))
    })
}

/// The form in which so many bytes come, and permission to hold the window that it may need.
async fn form<'a>(
    name: &Name<'_>,
    left: u64,
    unpackings: &'a Semaphore,
) -> Outcome<(Form, Option<SemaphorePermit<'a>>)> {
    if !name.is_zstd {
        return Ok((Form::Plain, None));
    }
    if left <= frames::AT_ONCE_BYTES as u64 {
        return Ok((Form::Whole, None));
    }
    let permit = unpackings.acquire().await.ok();
    let unpacking = Unpacking::new(left).ok_or_else(|| {
        let message = "there is no memory to unpack the data";
        Status::new(GrpcCode::ResourceExhausted, message)
    })?;
    Ok((Form::Frames(Box::new(unpacking)), permit))
}

/// Stores the data, and says how that went.
async fn store(
    target: Target<'_>,
    name: &Name<'_>,
    mut data: Data<'_>,
    first: u64,
) -> Outcome<Response<Body>> {
    let put = Put {
        lease: true,
        resume_as: target.claim.map(Claim::name),
    };
    let stored = target.room.put_blob(target.blob, put, &mut data).await;
    let Err(error) = stored else {
        data.end().await?;
        let received = first.saturating_add(data.received()).cast_signed();
        return Ok(committed(if name.is_zstd {
            received
        } else {
            name.size_bytes
        }));
    };
    match data.into_stop() {
        None => Err(error.into()),
        Some(Stop::Refused(status)) => Err(status),
        Some(Stop::Superseded) => Err(superseded(Superseded)),
        Some(Stop::Exists) => Ok(exists(name)),
        Some(Stop::Unfinished) => {
            let held = match target.claim {
                Some(claim) => target.room.held_bytes(target.blob, claim.name()).await?,
                None => 0,
            };
            Ok(committed(held.cast_signed()))
        }
    }
}

fn exists(name: &Name<'_>) -> Response<Body> {
    committed(if name.is_zstd {
        EXISTS
    } else {
        name.size_bytes
    })
}

fn committed(size: i64) -> Response<Body> {
    grpc::unary(&WriteResponse {
        committed_size: size,
    })
}

fn superseded(_: Superseded) -> Status {
    let message = "a newer stream of the same name has taken over";
    Status::new(GrpcCode::Aborted, message)
}
