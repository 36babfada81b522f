//! Fills: values that the node lacks, fetched from the bucket once, however many want them.
//!
//! The first who asks starts a task; everybody reads along ([`flight`]). The task verifies ([`verify`]) and writes into
//! the node's store as it goes; the record is clean, for it came from the bucket. A store that takes nothing (full,
//! read-only) stops no reader. An object with wrong bytes is removed, so that the value can be uploaded again. A value
//! whose object is deleted on its way goes to those who read it already and to nobody else, the store included.
//! Cancellation: a reader may be dropped at any time; the task goes on for the others and for the store.

mod flight;
mod reader;
mod verify;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use zimcache_store::{
    ByteRange, Pins, RecordKey, RecordKind, RecordOptions, RecordWriter, Replica,
};
use zimcache_telemetry::task;

pub use reader::{Fill, Filled};

use crate::{Bucket, Error, Figures, Known, Object, Presence, Result, front::Front};
use flight::{Flight, Landed, Start};
use verify::{Apart, Piece};

/// Fetches values from the bucket. Clones share what is under way.
#[derive(Debug, Clone)]
pub struct Fills {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Bucket,
    replica: Arc<dyn Replica>,
    presence: Arc<Presence>,
    figures: Arc<Figures>,
    flights: Mutex<HashMap<RecordKey, Arc<Flight>>>,
    room: Semaphore,
    stop: CancellationToken,
}

impl Fills {
    pub(crate) fn new(
        bucket: Bucket,
        replica: Arc<dyn Replica>,
        presence: Arc<Presence>,
        figures: Arc<Figures>,
        at_once: usize,
        stop: CancellationToken,
    ) -> Fills {
        Fills {
            shared: Arc::new(Shared {
                bucket,
                replica,
                presence,
                figures,
                flights: Mutex::default(),
                room: Semaphore::new(at_once.max(1)),
                stop,
            }),
        }
    }

    /// Opens a record from the bucket, and keeps it.
    ///
    /// # Errors
    /// `RangeInvalid`; of a blob `Unreachable` and the like when it cannot be told whether it is there; `Corrupt` when
    /// the object has wrong bytes. The end of a value may fail after its start came: then it was not right.
    pub async fn fill(&self, key: &RecordKey, range: ByteRange) -> Result<Fill> {
        let is_entry = matches!(key.kind, RecordKind::Entry(_));
        match self.shared.presence.ask(key) {
            Known::Absent => {
                self.shared.figures.add_absent_for_free(1);
                return Ok(Fill::Absent);
            }
            // A missing entry costs a rebuild only: it is not worth a request each while the filter is loaded.
            Known::Unknown if is_entry => return Ok(Fill::Unknown),
            Known::Unknown | Known::Maybe => {}
        }
        let (flight, reader) = self.board(key);
        let seat = reader::Seat::new(Arc::clone(&flight), reader);
        match flight.start().await {
            Start::Coming { front, total } => {
                let range = range.resolve(total)?;
                let filled = Filled::coming(seat, &front, total, range, key, &self.shared.replica);
                Ok(Fill::Found(filled))
            }
            Start::Landed(Landed::Stored | Landed::NotStored) => self.stored(key, range).await,
            Start::Landed(Landed::Absent) => Ok(Fill::Absent),
            Start::Landed(Landed::Failed(error)) if is_entry && is_away(&error) => {
                Ok(Fill::Unknown)
            }
            Start::Landed(Landed::Failed(error)) => Err(error),
        }
    }

    /// A place in the flight of this record; starts one when there is none.
    fn board(&self, key: &RecordKey) -> (Arc<Flight>, u64) {
        let mut flights = self.shared.flights.lock();
        if let Some(flight) = flights.get(key) {
            self.shared.figures.add_fills_shared(1);
            return (Arc::clone(flight), flight.join());
        }
        let flight = Arc::new(Flight::default());
        let reader = flight.join();
        flights.insert(key.clone(), Arc::clone(&flight));
        drop(flights);
        let fetch = Arc::clone(&self.shared).run(key.clone(), Arc::clone(&flight));
        // Whoever began it has it in his trace.
        task::spawn("fill from the bucket", fetch.in_current_span());
        (flight, reader)
    }

    /// Lets nobody else have what is under way: objects that have just been deleted. When this returns, the store has it
    /// already or will not.
    pub(crate) async fn forget(&self, is_gone: impl Fn(&RecordKey) -> bool) {
        let forgotten: Vec<_> = {
            let mut flights = self.shared.flights.lock();
            flights.extract_if(|key, _| is_gone(key)).collect()
        };
        for (_, flight) in forgotten {
            flight.forget().await;
        }
    }

    async fn stored(&self, key: &RecordKey, range: ByteRange) -> Result<Fill> {
        let record = self.shared.replica.open_record(key, range).await?;
        let record = record.and_then(|record| record.unless_deleted_blob(key));
        let filled = record.map(|record| Fill::Found(Filled::stored(record)));
        Ok(filled.unwrap_or(Fill::Absent))
    }
}

fn is_away(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. } | Error::NoBucket)
}

impl Shared {
    async fn run(self: Arc<Self>, key: RecordKey, flight: Arc<Flight>) {
        let landed = tokio::select! {
            () = self.stop.cancelled() => Err(Error::Stopping),
            landed = Box::pin(self.fetch(&key, &flight)) => landed,
        };
        let landed = landed.unwrap_or_else(|error| {
            tracing::debug!(%error, ?key, "a fill failed");
            Landed::Failed(error)
        });
        // Whoever comes from now on finds it in the store, or starts anew.
        self.remove(&key, &flight);
        flight.land(landed);
    }

    /// Takes a flight off the list, unless it is another one by now.
    fn remove(&self, key: &RecordKey, flight: &Arc<Flight>) {
        let mut flights = self.flights.lock();
        if flights
            .get(key)
            .is_some_and(|listed| Arc::ptr_eq(listed, flight))
        {
            flights.remove(key);
        }
    }

    async fn fetch(&self, key: &RecordKey, flight: &Flight) -> Result<Landed> {
        let turn = self.room.acquire().await;
        let _turn = turn.map_err(|_| Error::Stopping)?;
        // Another fill may have ended between the caller's look into the store and now.
        let record = self.replica.open_record(key, ByteRange::Full).await?;
        let record = record.and_then(|record| record.unless_deleted_blob(key));
        if record.is_some() {
            return Ok(Landed::Stored);
        }
        let name = self.bucket.keys().object(key);
        let Some(object) = self.bucket.get(&name, ByteRange::Full).await? else {
            return Ok(Landed::Absent);
        };
        self.figures.add_fills(1);
        let etag = object.stat().etag.clone();
        let taken = self.take(key, flight, object).await;
        if let Err(Error::Corrupt(reason)) = &taken {
            self.figures.add_corrupt(1);
            tracing::error!(
                ?key,
                reason,
                "an object in the bucket has wrong bytes; it is removed"
            );
            self.remove_if_unchanged(&name, &etag).await;
        }
        taken
    }

    /// Streams an object into the flight and, a piece later, into the store: that may take its time, and the readers of a
    /// small object get all of it first.
    async fn take(&self, key: &RecordKey, flight: &Flight, mut object: Object) -> Result<Landed> {
        let mut apart = Apart::new(key, object.stat().size_bytes)?;
        let (mut keep, mut late) = (Keep::Not, Bytes::new());
        if let Some((front, total)) = apart.front() {
            keep = self.begin(key, flight, front, total);
        }
        while let Some(chunk) = object.next_chunk().await {
            let Piece { front, value } = apart.push(key, chunk?)?;
            if let Some((front, total)) = front {
                keep = self.begin(key, flight, front, total);
            }
            if !value.is_empty() {
                self.figures.add_fill_bytes(value.len() as u64);
                flight.push(value.clone()).await;
                let earlier = std::mem::replace(&mut late, value);
                if earlier.is_empty() {
                    // The readers go first: there may be no processor for them once the store begins.
                    tokio::task::yield_now().await;
                }
                keep.write(earlier).await;
            }
        }
        apart.finish(key)?;
        flight.verified();
        keep.write(late).await;
        if flight.unless_forgotten(keep.commit()).await {
            return Ok(Landed::Stored);
        }
        self.figures.add_fills_not_kept(1);
        Ok(Landed::NotStored)
    }

    /// Tells the readers what comes. The store is not asked yet.
    fn begin<'a>(
        &'a self,
        key: &'a RecordKey,
        flight: &Flight,
        front: Front,
        total: u64,
    ) -> Keep<'a> {
        let head = front.head.clone();
        flight.begin(front, total);
        let options = RecordOptions {
            size_bytes: Some(total),
            ..RecordOptions::default()
        };
        Keep::Soon(self.replica.write_record(key, head, options))
    }

    async fn remove_if_unchanged(&self, name: &str, etag: &str) {
        let same = match self.bucket.head(name).await {
            Ok(Some(stat)) => *stat.etag == *etag,
            Ok(None) | Err(_) => false,
        };
        if same && let Err(error) = self.bucket.remove(name).await {
            tracing::warn!(%error, "a corrupt object stays");
        }
    }
}

/// Where a value goes besides to its readers.
enum Keep<'a> {
    /// Into the store, once it is asked.
    Soon(BoxFuture<'a, zimcache_store::Result<Box<dyn RecordWriter>>>),
    Into(Box<dyn RecordWriter>),
    Not,
}

impl Keep<'_> {
    async fn write(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if let Some(writer) = self.open().await
            && let Err(error) = writer.write(piece).await
        {
            not_kept(&error);
            *self = Keep::Not;
        }
    }

    /// Whether the store has it now.
    async fn commit(mut self) -> bool {
        self.open().await;
        let Keep::Into(writer) = self else {
            return false;
        };
        let committed = writer.commit(Pins::default()).await;
        committed.inspect_err(not_kept).is_ok()
    }

    /// Asks the store, unless it has been.
    async fn open(&mut self) -> Option<&mut Box<dyn RecordWriter>> {
        if let Keep::Soon(opening) = self {
            let opened = opening.await.inspect_err(not_kept);
            *self = opened.map_or(Keep::Not, Keep::Into);
        }
        match self {
            Keep::Into(writer) => Some(writer),
            Keep::Soon(_) | Keep::Not => None,
        }
    }
}

fn not_kept(error: &zimcache_store::Error) {
    tracing::debug!(%error, "a filled value is not kept");
}
