//! One value on its way from the bucket to everybody who wants it.
//!
//! The fetching task pushes chunks; readers take them at their own positions. The last 4 MiB stay in memory. The task
//! waits for the slowest reader, but not for one that does not move: that is left behind and goes on from the store once
//! the value is there. The chunk in which a reader's range ends is held back until the whole value is verified. The
//! lock guards short moves of memory only and is never held across an await.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{Error, front::Front};

/// Bytes kept in memory of each value on its way.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;
/// How long a reader may stand still while others, or the store, wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A value on its way. Shared by the task that fetches it and its readers.
#[derive(Debug, Default)]
pub(super) struct Flight {
    state: Mutex<State>,
    /// For the readers: there is more to see.
    arrived: Notify,
    /// For the fetching task: a reader moved. Apart from the other, so that readers do not wake each other.
    moved: Notify,
    /// Whether its object was deleted on the way. Locked while the store takes the value.
    forgotten: tokio::sync::Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    front: Option<Arc<Front>>,
    total: u64,
    chunks: VecDeque<Bytes>,
    /// Position of the first byte kept.
    first: u64,
    /// Position behind the last byte received.
    end: u64,
    verified: bool,
    landed: Option<Landed>,
    cursors: HashMap<u64, Cursor>,
    next_cursor: u64,
}

#[derive(Debug)]
struct Cursor {
    at: u64,
    moved: Instant,
    /// It waits for the verdict, not for time: nobody waits for it.
    held: bool,
}

/// How it ended.
#[derive(Debug, Clone)]
pub(super) enum Landed {
    /// It is in the store.
    Stored,
    /// All of it came, but the store did not take it.
    NotStored,
    /// The bucket has none.
    Absent,
    /// It broke off, or has wrong bytes.
    Failed(Error),
}

/// What a reader may do next.
#[derive(Debug)]
pub(super) enum Step {
    Chunk(Bytes),
    End,
    Failed(Error),
    /// The bytes are no longer in memory: the store has them, or will have.
    Behind,
}

/// What a reader learns first.
#[derive(Debug)]
pub(super) enum Start {
    /// It comes.
    Coming { front: Arc<Front>, total: u64 },
    /// It ended before anything came.
    Landed(Landed),
}

impl Flight {
    /// A new reader, at the start. Its place is freed by [`Flight::leave`].
    pub(super) fn join(&self) -> u64 {
        let mut state = self.state.lock();
        let id = state.next_cursor;
        state.next_cursor += 1;
        let cursor = Cursor {
            at: 0,
            moved: Instant::now(),
            held: false,
        };
        state.cursors.insert(id, cursor);
        id
    }

    pub(super) fn leave(&self, reader: u64) {
        self.state.lock().cursors.remove(&reader);
        self.moved.notify_waiters();
    }

    /// Moves a reader to where its range starts.
    pub(super) fn seek(&self, reader: u64, at: u64) {
        let mut state = self.state.lock();
        if let Some(cursor) = state.cursors.get_mut(&reader) {
            cursor.at = at;
        }
        drop(state);
        self.moved.notify_waiters();
    }

    /// Says what comes.
    pub(super) fn begin(&self, front: Front, total: u64) {
        let mut state = self.state.lock();
        state.front = Some(Arc::new(front));
        state.total = total;
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Adds bytes, when the readers that move have made room.
    pub(super) async fn push(&self, chunk: Bytes) {
        let (more, since) = (chunk.len() as u64, Instant::now());
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            let Some(until) = self.state.lock().blocked_until(more, since) else {
                break;
            };
            if timeout_at(until, moved).await.is_err() {
                self.state.lock().leave_behind(more, since);
            }
        }
        let mut state = self.state.lock();
        state.end += chunk.len() as u64;
        state.chunks.push_back(chunk);
        state.trim();
        drop(state);
        self.arrived.notify_waiters();
    }

    /// The bytes are those that the name promises: ends may be shown.
    pub(super) fn verified(&self) {
        self.state.lock().verified = true;
        self.arrived.notify_waiters();
    }

    pub(super) fn land(&self, landed: Landed) {
        self.state.lock().landed = Some(landed);
        self.arrived.notify_waiters();
    }

    /// The store is not to have it. Waits if it is about to.
    pub(super) async fn forget(&self) {
        *self.forgotten.lock().await = true;
    }

    /// Has the store take the value, unless that is forbidden; whether it did.
    pub(super) async fn unless_forgotten(&self, take: impl Future<Output = bool>) -> bool {
        let forgotten = self.forgotten.lock().await;
        !*forgotten && take.await
    }

    /// Waits until it is known what comes.
    pub(super) async fn start(&self) -> Start {
        self.wait(|state| match (&state.front, &state.landed) {
            (Some(front), _) => Some(Start::Coming {
                front: Arc::clone(front),
                total: state.total,
            }),
            (None, Some(landed)) => Some(Start::Landed(landed.clone())),
            (None, None) => None,
        })
        .await
    }

    /// Waits for the end.
    pub(super) async fn landed(&self) -> Landed {
        self.wait(|state| state.landed.clone()).await
    }

    /// The next bytes for a reader at `at` whose range ends at `end`.
    pub(super) async fn next(&self, reader: u64, at: u64, end: u64) -> Step {
        let step = self.wait(|state| state.step(reader, at, end)).await;
        if matches!(step, Step::Chunk(_)) {
            self.moved.notify_waiters();
        }
        step
    }

    async fn wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T> + Send) -> T {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            arrived.await;
        }
    }
}

impl Cursor {
    fn is_before(&self, needed: u64) -> bool {
        self.at < needed && !self.held
    }
}

impl State {
    /// Until when bytes that wait since then have to wait for a reader; `None` when they need not. A reader's time
    /// begins when somebody waits for it, not when the server kept it waiting.
    fn blocked_until(&self, more: u64, since: Instant) -> Option<Instant> {
        let needed = (self.end + more).saturating_sub(WINDOW_BYTES);
        let slow = self
            .cursors
            .values()
            .filter(|cursor| cursor.is_before(needed));
        slow.map(|cursor| cursor.moved.max(since) + PATIENCE).min()
    }

    /// Forgets readers that are in the way and stood still for too long.
    fn leave_behind(&mut self, more: u64, since: Instant) {
        let needed = (self.end + more).saturating_sub(WINDOW_BYTES);
        let now = Instant::now();
        self.cursors.retain(|_, cursor| {
            !cursor.is_before(needed) || cursor.moved.max(since) + PATIENCE > now
        });
    }

    fn trim(&mut self) {
        while self.end - self.first > WINDOW_BYTES {
            let Some(chunk) = self.chunks.pop_front() else {
                break;
            };
            self.first += chunk.len() as u64;
        }
    }

    fn step(&mut self, reader: u64, at: u64, end: u64) -> Option<Step> {
        if let Some(Landed::Failed(error)) = &self.landed {
            return Some(Step::Failed(error.clone()));
        }
        if at >= end {
            // Of an empty range too: nothing is shown of a value before it is verified.
            return self.verified.then_some(Step::End);
        }
        if at < self.first {
            self.cursors.remove(&reader);
            return Some(Step::Behind);
        }
        let chunk = self.chunk_at(at, end)?;
        let held = !self.verified && at + chunk.len() as u64 == end;
        if let Some(cursor) = self.cursors.get_mut(&reader) {
            cursor.held = held;
            if !held {
                cursor.at = at + chunk.len() as u64;
                cursor.moved = Instant::now();
            }
        }
        (!held).then_some(Step::Chunk(chunk))
    }

    /// What was received of the chunk at a position, up to the end of a range.
    fn chunk_at(&self, at: u64, end: u64) -> Option<Bytes> {
        let mut start = self.first;
        for chunk in &self.chunks {
            let behind = start + chunk.len() as u64;
            if at < behind {
                let slice = (at - start) as usize..(behind.min(end) - start) as usize;
                return Some(chunk.slice(slice));
            }
            start = behind;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(total: u64) -> Flight {
        let flight = Flight::default();
        flight.begin(Front::default(), total);
        flight
    }

    fn bytes(step: Step) -> Bytes {
        match step {
            Step::Chunk(chunk) => chunk,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_range_is_held_back_until_the_value_is_verified() {
        let flight = flight(6);
        let (all, start) = (flight.join(), flight.join());
        flight.push(Bytes::from_static(b"abc")).await;
        flight.push(Bytes::from_static(b"def")).await;
        assert_eq!(bytes(flight.next(all, 0, 6).await), "abc");
        let mut rest = std::pin::pin!(flight.next(all, 3, 6));
        let mut part = std::pin::pin!(flight.next(start, 0, 2));
        assert!(futures_util::poll!(rest.as_mut()).is_pending());
        assert!(futures_util::poll!(part.as_mut()).is_pending());
        flight.verified();
        assert_eq!(bytes(rest.await), "def");
        assert_eq!(bytes(part.await), "ab");
        assert!(matches!(flight.next(all, 6, 6).await, Step::End));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_bytes_end_in_an_error_for_everybody() {
        let flight = flight(3);
        let reader = flight.join();
        flight.push(Bytes::from_static(b"abc")).await;
        flight.land(Landed::Failed(Error::Corrupt("test")));
        let step = flight.next(reader, 0, 3).await;
        assert!(matches!(step, Step::Failed(Error::Corrupt(_))), "{step:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_fetch_waits_for_a_reader_that_moves_and_leaves_one_that_does_not() {
        let mib = Bytes::from(vec![7; 1 << 20]);
        let flight = flight(100 << 20);
        let (moving, still) = (flight.join(), flight.join());
        for _ in 0..4 {
            flight.push(mib.clone()).await;
        }
        let began = Instant::now();
        assert_eq!(
            bytes(flight.next(moving, 0, 100 << 20).await).len(),
            1 << 20
        );
        flight.push(mib.clone()).await;
        assert!(began.elapsed() >= PATIENCE, "it waited for the other one");
        let step = flight.next(still, 0, 100 << 20).await;
        assert!(matches!(step, Step::Behind), "{step:?}");

        let mut push = std::pin::pin!(flight.push(mib.clone()));
        assert!(futures_util::poll!(push.as_mut()).is_pending());
        bytes(flight.next(moving, 1 << 20, 100 << 20).await);
        push.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_the_start_holds_nobody_up_and_goes_on_from_the_store() {
        let mib = Bytes::from(vec![7; 1 << 20]);
        let flight = flight(100 << 20);
        let reader = flight.join();
        flight.push(mib.clone()).await;
        let mut start = Box::pin(flight.next(reader, 0, 10));
        assert!(futures_util::poll!(start.as_mut()).is_pending());
        let began = Instant::now();
        for _ in 0..20 {
            flight.push(mib.clone()).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        let step = start.await;
        assert!(matches!(step, Step::Behind), "{step:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_goes_on_to_the_store_when_all_readers_have_left() {
        let mib = Bytes::from(vec![7; 1 << 20]);
        let flight = flight(100 << 20);
        let reader = flight.join();
        flight.leave(reader);
        let began = Instant::now();
        for _ in 0..100 {
            flight.push(mib.clone()).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
