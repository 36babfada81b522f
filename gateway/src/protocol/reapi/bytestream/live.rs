//! Writes under way, by the name under which they can be taken up again.
//!
//! Two streams of one name must not mix. A client that sends a second one has lost the first, whatever we have heard of
//! that: so the newest goes on, as soon as the one before has let go. Invariant: one entry for each stream that runs, so
//! the table is bounded by the connections. Lock order: the table's lock is a leaf.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use zimcache_types::Namespace;

/// Where and as what a write is taken up again.
type Key = (Namespace, Box<str>);

/// Nobody has begun to write.
const NOT_BEGUN: u64 = u64::MAX;

/// The writes of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Writes(Mutex<HashMap<Key, Arc<Slot>>>);

/// The streams of one name.
#[derive(Debug)]
struct Slot {
    /// How many of them there are; changed under the table's lock.
    streams: AtomicU64,
    /// The number of the newest.
    newest: AtomicU64,
    /// Newest or held changed.
    changed: Notify,
    /// Whose turn it is to write.
    turn: Arc<Semaphore>,
    /// How much was held when that one began.
    held: AtomicU64,
}

impl Default for Slot {
    fn default() -> Slot {
        Slot {
            streams: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            changed: Notify::new(),
            turn: Arc::new(Semaphore::new(1)),
            held: AtomicU64::new(NOT_BEGUN),
        }
    }
}

/// A newer stream of the same name has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superseded;

/// What is known of a name.
#[derive(Debug)]
pub(super) enum Known<'a> {
    /// A stream is writing; so much was held when it began.
    Live(u64),
    /// Nobody is, and nobody will while this is held.
    Idle(Claim<'a>),
}

impl Writes {
    /// Takes a name over from whoever has it, and waits until that one has let go.
    pub(super) async fn take_over(&self, key: Key) -> Result<Claim<'_>, Superseded> {
        let mut claim = self.enter(key, true);
        let turn = Arc::clone(&claim.slot.turn);
        claim.turn = tokio::select! {
            biased;
            () = claim.superseded() => return Err(Superseded),
            turn = turn.acquire_owned() => turn.ok(),
        };
        Ok(claim)
    }

    /// Looks at a name without disturbing who has it.
    pub(super) async fn look(&self, key: Key) -> Known<'_> {
        let mut claim = self.enter(key, false);
        loop {
            let (turn, changed) = (Arc::clone(&claim.slot.turn), claim.slot.changed.notified());
            match claim.slot.held.load(Ordering::Acquire) {
                NOT_BEGUN => {}
                held => return Known::Live(held),
            }
            tokio::select! {
                biased;
                turn = turn.acquire_owned() => {
                    claim.turn = turn.ok();
                    return Known::Idle(claim);
                }
                () = changed => {}
            }
        }
    }

    fn enter(&self, key: Key, is_newest: bool) -> Claim<'_> {
        let mut slots = self.0.lock();
        let slot = Arc::clone(slots.entry(key.clone()).or_default());
        slot.streams.fetch_add(1, Ordering::Relaxed);
        let mut number = slot.newest.load(Ordering::Relaxed);
        if is_newest {
            number += 1;
            slot.newest.store(number, Ordering::Release);
            slot.changed.notify_waiters();
        }
        Claim {
            writes: self,
            key,
            slot,
            number,
            turn: None,
        }
    }
}

/// A stream's claim to a name.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    writes: &'a Writes,
    key: Key,
    slot: Arc<Slot>,
    number: u64,
    turn: Option<OwnedSemaphorePermit>,
}

impl Claim<'_> {
    /// The name under which the store holds what was written.
    pub(super) fn name(&self) -> &str {
        &self.key.1
    }

    /// Tells those who ask how much is held.
    pub(super) fn is_held(&self, bytes: u64) {
        self.slot.held.store(bytes, Ordering::Release);
        self.slot.changed.notify_waiters();
    }

    /// Whether a newer stream has taken over.
    pub(super) fn is_superseded(&self) -> bool {
        self.slot.newest.load(Ordering::Acquire) > self.number
    }

    /// Waits until a newer stream takes over.
    pub(super) async fn superseded(&self) {
        loop {
            let changed = self.slot.changed.notified();
            if self.is_superseded() {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut slots = self.writes.0.lock();
        if let Some(turn) = self.turn.take() {
            self.slot.held.store(NOT_BEGUN, Ordering::Release);
            drop(turn);
        }
        if self.slot.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            slots.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (Namespace::default(), name.into())
    }

    #[tokio::test]
    async fn the_newest_stream_waits_for_the_one_before_and_then_goes_on() {
        let writes = Writes::default();
        let first = writes.take_over(key("a")).await.unwrap();
        let other = writes.take_over(key("b")).await.unwrap();
        let second = writes.take_over(key("a"));
        let told = async {
            first.superseded().await;
            assert!(first.is_superseded() && !other.is_superseded());
            drop(first);
        };
        let (second, ()) = tokio::join!(second, told);
        assert!(!second.unwrap().is_superseded());
        drop(other);
        assert!(writes.0.lock().is_empty());
    }

    #[tokio::test]
    async fn of_three_streams_only_the_newest_goes_on() {
        let writes = Writes::default();
        let first = writes.take_over(key("a")).await.unwrap();
        let (second, third, ()) = tokio::join!(
            writes.take_over(key("a")),
            writes.take_over(key("a")),
            async {
                first.superseded().await;
                tokio::task::yield_now().await;
                drop(first);
            }
        );
        assert_eq!(second.err(), Some(Superseded));
        drop(third.unwrap());
        assert!(writes.0.lock().is_empty());
    }

    #[tokio::test]
    async fn who_looks_disturbs_nobody() {
        let writes = Writes::default();
        let Known::Idle(looking) = writes.look(key("a")).await else {
            panic!("nobody writes");
        };
        let (write, ()) = tokio::join!(writes.take_over(key("a")), async { drop(looking) });
        let write = write.unwrap();
        let (known, ()) = tokio::join!(writes.look(key("a")), async { write.is_held(7) });
        assert!(matches!(known, Known::Live(7)));
        assert!(!write.is_superseded());
        drop(write);
        assert!(writes.0.lock().is_empty());
    }
}
