//! One read of a blob for all who want it at the same time: the first reader starts it, the others join and are sent
//! what it receives.
//!
//! Bounded: what is received runs ahead of the fastest reader, and stays behind it, by one window each; the beginning
//! stays for a moment longer, for a crowd does not come in at once. A reader that falls behind by more goes on by itself,
//! and who comes after the beginning has left the window starts another flight. Where there are several readers each gets
//! its first bytes before any of them gets more. A flight ends when its last reader leaves. That it found nothing counts
//! for those alone who came before it began: what was put meanwhile is there for all others. Lock order: flights, then
//! one flight's buffer.

mod buffer;

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::Instrument as _;
use zimcache_link::Error;
use zimcache_store::{ByteRange, ChunkStream, Reader, RecordKey, Result};
use zimcache_types::Code;

use self::buffer::{Buffer, Place, Taken};
use crate::{
    blobs::find,
    node::{store_error, unavailable},
    shared::{Shared, count},
    source::Source,
};

/// So many bytes are the first that each of several readers gets.
const FIRST_BYTES: usize = 16 << 10;

/// The flights under way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flying: Mutex<HashMap<RecordKey, Weak<Flight>>>,
    /// How many have begun so far.
    begun: AtomicU64,
}

/// A read for all who want it.
#[derive(Debug)]
struct Flight {
    /// How many had begun with it.
    number: u64,
    stage: watch::Sender<Stage>,
    buffer: Buffer,
}

/// How far a flight is.
#[derive(Debug, Clone)]
enum Stage {
    Looking,
    Absent,
    Failed(Error),
    /// A small blob, whole.
    Whole(Bytes),
    /// A blob of this many bytes is arriving.
    Arriving(u64),
}

/// Reads a blob from the nodes, together with all who read it now; `None` when it is absent.
pub(crate) async fn read(
    shared: &Arc<Shared>,
    key: &RecordKey,
    size: Option<u64>,
) -> Result<Option<Reader>> {
    let begun = shared.flights.begun.load(Ordering::Acquire);
    let (flight, place, known) = loop {
        let (flight, place) = shared.flights.join(shared, key, size);
        let known = flight.known().await?;
        if !matches!(known, Stage::Absent) || flight.number > begun {
            break (flight, place, known);
        }
        shared.flights.end(key, &flight);
    };
    Ok(match known {
        Stage::Looking | Stage::Absent => None,
        Stage::Failed(error) => return Err(store_error(error)),
        Stage::Whole(bytes) => Some(Reader::from_bytes(bytes)),
        Stage::Arriving(total) => {
            let follower = Follower {
                shared: Arc::clone(shared),
                key: key.clone(),
                flight,
                place,
                position: 0,
                total,
                rest: Bytes::new(),
                gives_way: false,
                alone: None,
            };
            Some(Reader::from_stream(total, 0..total, Box::new(follower)))
        }
    })
}

impl Flights {
    /// Joins the flight of a blob, or starts one.
    fn join(
        &self,
        shared: &Arc<Shared>,
        key: &RecordKey,
        size: Option<u64>,
    ) -> (Arc<Flight>, Place) {
        let mut flights = self.flying.lock();
        let flying = flights.get(key).and_then(Weak::upgrade);
        let joined = flying.and_then(|flight| flight.buffer.join().map(|place| (flight, place)));
        if let Some(joined) = joined {
            count(&shared.counts.joined);
            return joined;
        }
        let flight = Arc::new(Flight {
            number: self.begun.fetch_add(1, Ordering::AcqRel) + 1,
            stage: watch::Sender::new(Stage::Looking),
            buffer: Buffer::new(shared.config.window_bytes),
        });
        let place = flight.buffer.start();
        flights.insert(key.clone(), Arc::downgrade(&flight));
        drop(flights);
        let run = run(Arc::clone(shared), Arc::clone(&flight), key.clone(), size);
        // Whoever began it has it in his trace.
        zimcache_telemetry::task::spawn("read a blob", run.in_current_span());
        (flight, place)
    }

    /// Lets nobody join what is under way.
    pub(crate) fn forget(&self, which: impl Fn(&RecordKey) -> bool) {
        self.flying.lock().retain(|key, _| !which(key));
    }

    fn end(&self, key: &RecordKey, flight: &Arc<Flight>) {
        let mut flights = self.flying.lock();
        let is_this = |known: &Weak<Flight>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(flight));
        if flights.get(key).is_some_and(is_this) {
            flights.remove(key);
        }
    }
}

/// Receives a blob until it is over or nobody wants it any more.
async fn run(shared: Arc<Shared>, flight: Arc<Flight>, key: RecordKey, size: Option<u64>) {
    let landing = Landing(flight);
    tokio::select! {
        () = receive(&shared, &landing.0, &key, size) => {}
        () = landing.0.buffer.abandoned() => {}
    }
    shared.flights.end(&key, &landing.0);
}

/// Tells all readers that a flight is over, however it ended.
struct Landing(Arc<Flight>);

impl Drop for Landing {
    fn drop(&mut self) {
        let over = Error::Refused {
            code: Code::Unavailable,
            message: "the read was given up".into(),
        };
        self.0.buffer.end(Err(over.clone()));
        self.0.stage.send_if_modified(|stage| {
            let is_looking = matches!(stage, Stage::Looking);
            if is_looking {
                *stage = Stage::Failed(over);
            }
            is_looking
        });
    }
}

async fn receive(shared: &Arc<Shared>, flight: &Flight, key: &RecordKey, size: Option<u64>) {
    let mark = shared.ram.mark();
    let mut source = match find(shared, key, ByteRange::Full, size).await {
        Ok(Some(source)) => source,
        Ok(None) => return flight.reach(Stage::Absent),
        Err(error) => return flight.reach(Stage::Failed(error)),
    };
    if source.total() <= shared.config.ram_item_bytes {
        return match whole(&mut source).await {
            Ok(bytes) => {
                shared.ram.keep(mark, key, &bytes);
                flight.reach(Stage::Whole(bytes));
            }
            Err(error) => flight.reach(Stage::Failed(error)),
        };
    }
    flight.reach(Stage::Arriving(source.total()));
    let ended = loop {
        match source.next().await {
            Some(Ok(chunk)) => flight.buffer.push(chunk).await,
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    flight.buffer.end(ended);
}

/// All bytes of a small blob.
async fn whole(source: &mut Source) -> zimcache_link::Result<Bytes> {
    let mut all = Vec::new();
    while let Some(chunk) = source.next().await.transpose()? {
        if all.is_empty() && chunk.len() as u64 == source.total() {
            return Ok(chunk);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.into())
}

impl Flight {
    /// What was found out, once it was.
    async fn known(&self) -> Result<Stage> {
        let mut stage = self.stage.subscribe();
        let is_known = |stage: &Stage| !matches!(stage, Stage::Looking);
        match stage.wait_for(is_known).await {
            Ok(stage) => Ok(stage.clone()),
            Err(_) => Err(unavailable("the read was given up")),
        }
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}

/// A reader of a flight.
struct Follower {
    shared: Arc<Shared>,
    key: RecordKey,
    flight: Arc<Flight>,
    place: Place,
    position: u64,
    total: u64,
    /// Of the first chunk, behind the first bytes.
    rest: Bytes,
    /// It has its first bytes, and the others come before it goes on.
    gives_way: bool,
    /// Its own read, once it has fallen behind.
    alone: Option<Alone>,
}

enum Alone {
    Looking(Mutex<Looking>),
    Reading(Reader),
}

/// Looking for the rest.
type Looking = Pin<Box<dyn Future<Output = zimcache_link::Result<Option<Source>>> + Send>>;

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl ChunkStream for Follower {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if std::mem::take(&mut self.gives_way) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.give(rest))));
        }
        if self.alone.is_none() {
            match ready!(self.flight.buffer.poll_take(&self.place, cx)) {
                Taken::Chunk(chunk) => {
                    let chunk = self.begin(chunk);
                    return Poll::Ready(Some(Ok(self.give(chunk))));
                }
                Taken::End(Ok(())) => return Poll::Ready(None),
                Taken::End(Err(error)) => return Poll::Ready(Some(Err(store_error(error)))),
                Taken::Behind => self.alone = Some(self.look_for_the_rest()),
            }
        }
        self.poll_alone(cx)
    }
}

impl Follower {
    /// The first bytes of the first chunk when others wait for theirs; any other chunk as it is.
    fn begin(&mut self, mut chunk: Bytes) -> Bytes {
        if self.position == 0 && self.flight.buffer.has_several_readers() {
            self.rest = chunk.split_off(chunk.len().min(FIRST_BYTES));
            self.gives_way = true;
        }
        chunk
    }

    fn give(&mut self, chunk: Bytes) -> Bytes {
        self.position += chunk.len() as u64;
        chunk
    }

    /// The rest of the blob, by a read of its own.
    fn look_for_the_rest(&self) -> Alone {
        self.place.leave();
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        let range = ByteRange::From {
            first: self.position,
            last: None,
        };
        let total = self.total;
        let looking = async move { find(&shared, &key, range, Some(total)).await };
        Alone::Looking(Mutex::new(Box::pin(looking)))
    }

    fn poll_alone(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Some(Alone::Looking(looking)) = &mut self.alone {
            let found = ready!(looking.get_mut().as_mut().poll(cx));
            let reader = match found {
                Ok(Some(source)) => source.into_reader(),
                Ok(None) => {
                    return Poll::Ready(Some(Err(zimcache_store::Error::Corrupt(
                        "the value is gone",
                    ))));
                }
                Err(error) => return Poll::Ready(Some(Err(store_error(error)))),
            };
            self.alone = Some(Alone::Reading(reader));
        }
        match &mut self.alone {
            Some(Alone::Reading(reader)) => reader.poll_chunk(cx),
            _ => Poll::Ready(None),
        }
    }
}
