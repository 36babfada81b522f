//! The data of a write as the body of a blob: unpacked, from where the store goes on, and no more than there may be.
//!
//! What ends it early is noted here, for the answer: that the blob is there already, that a newer stream took over, that
//! the client stopped without an end. Small packed blobs are unpacked whole, larger ones piece by piece while they
//! arrive. Not here: messages (`stream`), frames (`frames`).

use bytes::Bytes;
use tokio::task::yield_now;

use super::{
    live::Claim,
    stream::{End, Stream},
};
use crate::{
    Error,
    cache::{Chunks, Named},
    error::Result,
    frames::{self, Unpacking},
    grpc::{Outcome, Rope, Status},
    room::Room,
};

/// After so many bytes somebody else may have stored the blob.
const LOOK_AFTER_BYTES: u64 = 1 << 20;
/// Bytes that are unpacked before others get a turn.
const TURN_BYTES: u64 = 1 << 20;

/// Why a write did not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The blob is there.
    Exists,
    /// Another stream of its name goes on.
    Superseded,
    /// The client sent no more, and did not say that this is all.
    Unfinished,
    /// The client did something wrong.
    Refused(Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Stop {
        Stop::Refused(status)
    }
}

/// In which form the data comes.
#[derive(Debug)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// As frames of zstd so small that they are taken whole.
    Whole,
    /// As frames of zstd.
    Frames(Box<Unpacking>),
}

/// What is written, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) room: &'a Room<'a>,
    pub(super) blob: &'a Named,
    /// Of the blob.
    pub(super) size_bytes: u64,
    /// For what can be taken up again.
    pub(super) claim: Option<&'a Claim<'a>>,
}

impl Target<'_> {
    /// Whether the blob is there. Then it is under a lease.
    pub(super) async fn exists(&self) -> Result<bool> {
        let blob = self.blob;
        let missing = self
            .room
            .missing_blobs(&[blob.digest], blob.certain)
            .await?;
        Ok(missing == [false])
    }
}

/// The data of a write.
#[derive(Debug)]
pub(super) struct Data<'a> {
    target: Target<'a>,
    stream: Stream<'a>,
    form: Form,
    /// Where in the blob the next byte is, of what came.
    position: u64,
    /// Where the store goes on.
    wanted: u64,
    unlooked_bytes: u64,
    turn_bytes: u64,
    stop: Option<Stop>,
}

impl<'a> Data<'a> {
    /// The data of a stream that begins at this byte of the blob.
    pub(super) fn new(target: Target<'a>, stream: Stream<'a>, form: Form, first: u64) -> Data<'a> {
        Data {
            target,
            stream,
            form,
            position: first,
            wanted: first,
            unlooked_bytes: 0,
            turn_bytes: 0,
            stop: None,
        }
    }

    /// How many bytes came, as they came.
    pub(super) const fn received(&self) -> u64 {
        self.stream.received()
    }

    /// Makes sure that nothing follows the end.
    pub(super) async fn end(&mut self) -> Outcome<()> {
        self.stream.end().await
    }

    /// Why it ended, if not at its end.
    pub(super) fn into_stop(self) -> Option<Stop> {
        self.stop
    }

    /// What arrived next.
    async fn arrive(&mut self) -> Result<Option<Bytes>, Stop> {
        let next = match self.target.claim {
            Some(claim) if claim.is_superseded() => return Err(Stop::Superseded),
            Some(claim) => tokio::select! {
                biased;
                next = self.stream.next() => next,
                () = claim.superseded() => return Err(Stop::Superseded),
            },
            None => self.stream.next().await,
        };
        let piece = match next? {
            Ok(piece) => piece,
            Err(End::Finished) => return Ok(None),
            Err(End::Unfinished) => return Err(Stop::Unfinished),
        };
        self.turn_bytes = 0;
        self.unlooked_bytes += piece.len() as u64;
        if self.unlooked_bytes >= LOOK_AFTER_BYTES {
            self.unlooked_bytes = 0;
            if self.target.exists().await.map_err(Status::from)? {
                return Err(Stop::Exists);
            }
        }
        Ok(Some(piece))
    }

    /// The next bytes of the blob.
    async fn unpacked(&mut self) -> Result<Option<Bytes>, Stop> {
        match &mut self.form {
            Form::Plain => self.arrive().await,
            Form::Whole => self.unpack_whole().await,
            Form::Frames(frames) => {
                if let Some(piece) = frames.next().map_err(|_| bad_frames())? {
                    return Ok(Some(piece));
                }
                self.unpack_next().await
            }
        }
    }

    async fn unpack_next(&mut self) -> Result<Option<Bytes>, Stop> {
        loop {
            let packed = self.arrive().await?;
            let Form::Frames(frames) = &mut self.form else {
                return Ok(packed);
            };
            let Some(packed) = packed else {
                let complete = frames.is_complete();
                return complete.then_some(None).ok_or_else(bad_frames);
            };
            frames.push(packed).map_err(|_| bad_frames())?;
            if let Some(piece) = frames.next().map_err(|_| bad_frames())? {
                return Ok(Some(piece));
            }
        }
    }

    /// Unpacks all of it, if that was not done yet.
    async fn unpack_whole(&mut self) -> Result<Option<Bytes>, Stop> {
        let left = self.target.size_bytes - self.position;
        let mut packed = Rope::default();
        while let Some(piece) = self.arrive().await? {
            packed.push(piece);
            if packed.len() as u64 > frames::most_packed(left) {
                return Err(bad_frames());
            }
        }
        self.form = Form::Plain;
        let packed = packed.take_bytes(packed.len());
        let unpacked = frames::unpack(packed, left as usize).await;
        unpacked.map(Some).ok_or_else(bad_frames)
    }

    /// The next bytes that the store does not hold.
    async fn next_wanted(&mut self) -> Result<Option<Bytes>, Stop> {
        while let Some(mut piece) = self.unpacked().await? {
            self.turn_bytes += piece.len() as u64;
            if self.turn_bytes >= TURN_BYTES {
                self.turn_bytes = 0;
                yield_now().await;
            }
            let before = self.position;
            self.position += piece.len() as u64;
            if self.position > self.target.size_bytes {
                let message = "there is more data than the size in the resource name says";
                return Err(Status::invalid(message).into());
            }
            if self.position > self.wanted {
                return Ok(Some(
                    piece.split_off((self.wanted.max(before) - before) as usize),
                ));
            }
        }
        Ok(None)
    }

    fn stopped(&mut self, stop: Stop) -> Error {
        self.stop = Some(stop);
        Error::BodyCut
    }
}

impl Chunks for Data<'_> {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        match self.next_wanted().await {
            Ok(piece) => piece.map(Ok),
            Err(stop) => Some(Err(self.stopped(stop))),
        }
    }

    fn begin_at(&mut self, held: u64) -> Result<()> {
        if self.position > held {
            let message = format!(
                "the write begins at byte {}, and {held} bytes are held",
                self.position
            );
            return Err(self.stopped(Status::invalid(message).into()));
        }
        self.wanted = held;
        if let Some(claim) = self.target.claim {
            claim.is_held(held);
        }
        Ok(())
    }
}

fn bad_frames() -> Stop {
    Status::invalid("the data is not zstd of the size in the resource name").into()
}
