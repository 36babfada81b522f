//! `ByteStream.Write`: a blob in messages.

use bytes::Bytes;
use http::Response;
use zimcache_auth::Scope;
use zimcache_proto::bytestream::WriteResponse;

use super::{
    super::{
        names::{self, Name},
        room_of,
    },
    stream::{End, Start, Stream},
};
use crate::{
    Error,
    body::Body,
    cache::Chunks,
    call::Call,
    error::Result,
    grpc::{self, Messages, Outcome, Status},
};

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
    if name.is_zstd {
        return Err(Status::invalid("not yet"));
    }
    if !room.missing_blobs(&[blob.digest], blob.certain).await?[0] {
        return Ok(committed(name.size_bytes));
    }
    let stream = Stream::new(start, |progress| {
        Messages::resume(call.upload, &shared.messages, progress)
    });
    let mut data = Data {
        stream,
        stopped: None,
    };
    let put = room.put_blob(&blob, true, &mut data).await;
    match (put, data.stopped) {
        (Ok(()), _) => {
            data.stream.end().await?;
            Ok(committed(name.size_bytes))
        }
        (Err(_), Some(Stop::Unfinished)) => Ok(committed(0)),
        (Err(_), Some(Stop::Refused(status))) => Err(status),
        (Err(error), None) => Err(error.into()),
    }
}

fn committed(size: i64) -> Response<Body> {
    grpc::unary(&WriteResponse {
        committed_size: size,
    })
}

/// Why a write did not go on.
#[derive(Debug)]
enum Stop {
    Unfinished,
    Refused(Status),
}

#[derive(Debug)]
struct Data<'a> {
    stream: Stream<'a>,
    stopped: Option<Stop>,
}

impl Chunks for Data<'_> {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        let stop = match self.stream.next().await {
            Ok(Ok(piece)) => return Some(Ok(piece)),
            Ok(Err(End::Finished)) => return None,
            Ok(Err(End::Unfinished)) => Stop::Unfinished,
            Err(status) => Stop::Refused(status),
        };
        self.stopped = Some(stop);
        Some(Err(Error::BodyCut))
    }

    fn announced_bytes(&self) -> Option<u64> {
        None
    }
}
