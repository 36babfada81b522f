//! A reader of a value that comes from the bucket, or of one that came meanwhile.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use zimcache_store::{ByteRange, Reader, Record, RecordHead, RecordKey, Replica};
use zimcache_types::Timestamp;

use super::flight::{Flight, Landed, Step};
use crate::{Error, Result, front::Front};

/// What came of asking the bucket.
#[derive(Debug)]
pub enum Fill {
    /// There is a value, or a deletion.
    Found(Filled),
    /// There is none: the bucket, or the loaded filter, says so.
    Absent,
    /// Of an entry: nobody asked, for the filter is not loaded, or the bucket did not answer. A miss without proof.
    Unknown,
}

/// A value from the bucket.
#[derive(Debug)]
pub struct Filled {
    /// What stands before it.
    pub head: RecordHead,
    /// When it was put.
    pub created: Timestamp,
    /// Size of the whole value in bytes.
    pub total_bytes: u64,
    range: Range<u64>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Coming {
        seat: Seat,
        key: RecordKey,
        replica: Arc<dyn Replica>,
    },
    Stored(Reader),
    Ended,
}

/// A reader's place in a flight, given up when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    flight: Arc<Flight>,
    reader: u64,
}

impl Seat {
    pub(super) fn new(flight: Arc<Flight>, reader: u64) -> Seat {
        Seat { flight, reader }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flight.leave(self.reader);
    }
}

impl Filled {
    pub(super) fn coming(
        seat: Seat,
        front: &Front,
        total_bytes: u64,
        range: Range<u64>,
        key: &RecordKey,
        replica: &Arc<dyn Replica>,
    ) -> Filled {
        seat.flight.seek(seat.reader, range.start);
        Filled {
            head: front.head.clone(),
            created: front.created,
            total_bytes,
            range,
            body: Body::Coming {
                seat,
                key: key.clone(),
                replica: Arc::clone(replica),
            },
        }
    }

    pub(super) fn stored(record: Record) -> Filled {
        Filled {
            head: record.head,
            created: record.created,
            total_bytes: record.value.total_bytes(),
            range: record.value.range(),
            body: Body::Stored(record.value),
        }
    }

    /// Which bytes of the value are still to come.
    pub fn remaining(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The next bytes; `None` at the end, which comes only if the whole value was right.
    ///
    /// # Errors
    /// `Corrupt`, `Unreachable`; then what came before must not be used.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes>> {
        let next = match self.next().await {
            Ok(Some(chunk)) => {
                self.range.start += chunk.len() as u64;
                return Some(Ok(chunk));
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        self.body = Body::Ended;
        next
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match &mut self.body {
                Body::Ended => return Ok(None),
                Body::Stored(reader) => return Ok(reader.next_chunk().await.transpose()?),
                Body::Coming { seat, key, replica } => {
                    let (at, end) = (self.range.start, self.range.end);
                    match seat.flight.next(seat.reader, at, end).await {
                        Step::Chunk(chunk) => return Ok(Some(chunk)),
                        Step::End => return Ok(None),
                        Step::Failed(error) => return Err(error),
                        Step::Behind => {
                            let landed = seat.flight.landed().await;
                            let rest = (at, end);
                            let reader = go_on(landed, key, replica, &self.head, rest).await?;
                            self.body = Body::Stored(reader);
                        }
                    }
                }
            }
        }
    }
}

/// The rest of a value, from the store that has it now.
async fn go_on(
    landed: Landed,
    key: &RecordKey,
    replica: &Arc<dyn Replica>,
    head: &RecordHead,
    (at, end): (u64, u64),
) -> Result<Reader> {
    match landed {
        Landed::Stored => {}
        Landed::Failed(error) => return Err(error),
        Landed::NotStored | Landed::Absent => return Err(gone()),
    }
    let range = ByteRange::From {
        first: at,
        last: Some(end - 1),
    };
    let record = replica.open_record(key, range).await?;
    let same = record.filter(|record| record.head.version == head.version);
    same.map(|record| record.value).ok_or_else(gone)
}

fn gone() -> Error {
    Error::Unreachable {
        action: "go on with a value",
        detail: "it was read too slowly to be kept in memory, and the store does not have it"
            .into(),
    }
}
