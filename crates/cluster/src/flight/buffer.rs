//! What a flight has received and some reader has not taken yet.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use zimcache_link::Result;

/// How long the beginning stays for those who come with a crowd: a gateway needs milliseconds to accept it.
const GATHERING: Duration = Duration::from_millis(100);
/// So many windows of it at most.
const GATHERING_WINDOWS: usize = 16;

/// Chunks between the slowest and the fastest end of a flight.
#[derive(Debug)]
pub(super) struct Buffer {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// A reader's place in a flight. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// What a reader was given.
#[derive(Debug)]
pub(super) enum Taken {
    Chunk(Bytes),
    End(Result<()>),
    /// The next chunk is not here any more.
    Behind,
}

#[derive(Debug)]
struct State {
    window: usize,
    /// When the first chunk came.
    began: Option<Instant>,
    /// Number of the first chunk that is here.
    first: u64,
    chunks: VecDeque<Bytes>,
    end: Option<Result<()>>,
    readers: HashMap<u64, Cursor>,
    next_reader: u64,
}

#[derive(Debug, Default)]
struct Cursor {
    /// Number of the chunk it takes next.
    next: u64,
    waker: Option<Waker>,
}

impl Buffer {
    pub(super) fn new(window: usize) -> Buffer {
        let state = State {
            window: window.max(1),
            began: None,
            first: 0,
            chunks: VecDeque::new(),
            end: None,
            readers: HashMap::new(),
            next_reader: 0,
        };
        Buffer {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(Notify::new()),
        }
    }

    /// The place of the first reader.
    pub(super) fn start(&self) -> Place {
        self.add(&mut self.state.lock())
    }

    /// A place at the beginning, while that is here and somebody is reading.
    pub(super) fn join(&self) -> Option<Place> {
        let mut state = self.state.lock();
        let may = state.first == 0 && !state.readers.is_empty();
        may.then(|| self.add(&mut state))
    }

    fn add(&self, state: &mut State) -> Place {
        let number = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(number, Cursor::default());
        Place {
            number,
            state: Arc::clone(&self.state),
            changed: Arc::clone(&self.changed),
        }
    }

    /// Takes a chunk in, when the fastest reader is less than a window behind.
    pub(super) async fn push(&self, chunk: Bytes) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.ahead() < state.window {
                    state.began.get_or_insert_with(Instant::now);
                    state.chunks.push_back(chunk);
                    state.trim();
                    return state.wake();
                }
            }
            changed.await;
        }
    }

    /// Nothing more will come. What is said first counts.
    pub(super) fn end(&self, end: Result<()>) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        state.wake();
    }

    /// Whether more than one is reading.
    pub(super) fn has_several_readers(&self) -> bool {
        self.state.lock().readers.len() > 1
    }

    /// Ends when no reader is left.
    pub(super) async fn abandoned(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.state.lock().readers.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// The next chunk of a reader.
    pub(super) fn poll_take(&self, place: &Place, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut state = self.state.lock();
        let (first, end) = (state.first, state.end.clone());
        let held = state.chunks.len() as u64;
        let Some(cursor) = state.readers.get_mut(&place.number) else {
            return Poll::Ready(Taken::Behind);
        };
        if cursor.next < first {
            return Poll::Ready(Taken::Behind);
        }
        let index = cursor.next - first;
        if index >= held {
            cursor.waker = Some(cx.waker().clone());
            return end.map_or(Poll::Pending, |end| Poll::Ready(Taken::End(end)));
        }
        cursor.next += 1;
        let chunk = state.chunks[index as usize].clone();
        state.trim();
        drop(state);
        self.changed.notify_waiters();
        Poll::Ready(Taken::Chunk(chunk))
    }
}

impl Place {
    /// Its reader takes no more.
    pub(super) fn leave(&self) {
        self.state.lock().readers.remove(&self.number);
        self.changed.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl State {
    /// Number of the chunk that the fastest reader takes next.
    fn fastest(&self) -> u64 {
        self.readers
            .values()
            .map(|cursor| cursor.next)
            .max()
            .unwrap_or(0)
            .max(self.first)
    }

    /// Bytes that not even the fastest reader has taken.
    fn ahead(&self) -> usize {
        let taken = (self.fastest() - self.first) as usize;
        self.chunks.iter().skip(taken).map(Bytes::len).sum()
    }

    /// Lets go what is more than a window behind the fastest reader, and, once that has happened, what all have taken.
    fn trim(&mut self) {
        let window = if self.is_gathering() {
            self.window * GATHERING_WINDOWS
        } else {
            self.window
        };
        let taken = (self.fastest() - self.first) as usize;
        let mut behind: usize = self.chunks.iter().take(taken).map(Bytes::len).sum();
        let slowest = self
            .readers
            .values()
            .map(|cursor| cursor.next)
            .min()
            .unwrap_or(self.first);
        for _ in 0..taken {
            let is_done = self.first > 0 && self.first < slowest;
            if behind <= window && !is_done {
                break;
            }
            behind -= self.chunks.pop_front().map_or(0, |chunk| chunk.len());
            self.first += 1;
        }
    }

    /// Whether readers may still come in whom nobody could accept sooner.
    fn is_gathering(&self) -> bool {
        self.first == 0 && self.began.is_some_and(|began| began.elapsed() < GATHERING)
    }

    fn wake(&mut self) {
        let wakers = self
            .readers
            .values_mut()
            .filter_map(|cursor| cursor.waker.take());
        wakers.for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn take(buffer: &Buffer, place: &Place) -> Taken {
        poll_fn(|cx| buffer.poll_take(place, cx)).await
    }

    async fn chunk(buffer: &Buffer, place: &Place) -> Bytes {
        match take(buffer, place).await {
            Taken::Chunk(chunk) => chunk,
            other => panic!("{other:?}"),
        }
    }

    const PIECE: Bytes = Bytes::from_static(b"piece");

    #[tokio::test]
    async fn all_readers_get_every_chunk_and_the_end() {
        let buffer = Buffer::new(100);
        let places = [buffer.start(), buffer.join().unwrap()];
        buffer.push(PIECE).await;
        buffer.push(Bytes::from_static(b"last")).await;
        buffer.end(Ok(()));
        for place in &places {
            assert_eq!(chunk(&buffer, place).await, PIECE);
            assert_eq!(chunk(&buffer, place).await, "last");
            assert!(matches!(take(&buffer, place).await, Taken::End(Ok(()))));
        }
    }

    /// A reader takes so many pieces as they come.
    async fn stream(buffer: &Buffer, place: &Place, pieces: usize) {
        for _ in 0..pieces {
            buffer.push(PIECE).await;
            chunk(buffer, place).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_stays_a_moment_for_those_who_come_with_the_first() {
        let buffer = Buffer::new(10);
        let fast = buffer.start();
        stream(&buffer, &fast, 2 * GATHERING_WINDOWS).await;
        let late = buffer.join().expect("the beginning is here");
        assert_eq!(chunk(&buffer, &late).await, PIECE);
        tokio::time::advance(GATHERING).await;
        stream(&buffer, &fast, 1).await;
        assert!(buffer.join().is_none(), "the moment is over");
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_that_stays_is_of_some_windows_only() {
        let buffer = Buffer::new(10);
        let fast = buffer.start();
        stream(&buffer, &fast, 2 * GATHERING_WINDOWS + 1).await;
        assert!(buffer.join().is_none(), "it would be too much");
    }

    #[tokio::test(start_paused = true)]
    async fn the_source_waits_for_the_fastest_reader_and_the_slow_one_falls_behind() {
        let buffer = Buffer::new(10);
        let (fast, slow) = (buffer.start(), buffer.join().unwrap());
        buffer.push(PIECE).await;
        buffer.push(PIECE).await;
        let full = tokio::time::timeout(std::time::Duration::from_millis(20), buffer.push(PIECE));
        assert!(
            full.await.is_err(),
            "a window ahead of the fastest is enough"
        );
        tokio::time::advance(GATHERING).await;
        for _ in 0..4 {
            chunk(&buffer, &fast).await;
            buffer.push(PIECE).await;
        }
        assert!(matches!(take(&buffer, &slow).await, Taken::Behind));
        assert!(buffer.join().is_none(), "the beginning is gone");
    }

    #[tokio::test]
    async fn it_is_abandoned_when_the_last_reader_leaves() {
        let buffer = Buffer::new(10);
        let (one, other) = (buffer.start(), buffer.join().unwrap());
        drop(one);
        let waiting = std::time::Duration::from_millis(20);
        assert!(
            tokio::time::timeout(waiting, buffer.abandoned())
                .await
                .is_err()
        );
        drop(other);
        buffer.abandoned().await;
        assert!(buffer.join().is_none(), "nobody joins what has ended");
    }
}
