//! Blobs that were deleted and namespaces that were purged a moment ago: what other nodes or the durable tier still have
//! of them must not come back here.
//!
//! A deletion reaches the nodes one after the other. A repair, a hint or a hand-over that meets a node which it has not
//! reached yet would bring the blob back to one that it has, and so would a read that fills from the durable tier, to
//! which such a node may still upload it; so a node fetches nothing that it has just deleted. Writes by gateways are not
//! held up. In RAM only: fetches end with the process too.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use zimcache_store::RecordKey;
use zimcache_types::Namespace;

/// How long a deletion may take to reach all nodes: twice as long as a gateway waits for it.
const SPREAD: Duration = Duration::from_secs(10);
/// How long deletions are remembered, for fetches that began before them.
const MEMORY: Duration = Duration::from_mins(10);
/// The most that are remembered.
const MOST: usize = 16 << 10;

/// Deletions of late.
#[derive(Debug, Default)]
pub(crate) struct Deletions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: HashMap<RecordKey, Instant>,
    order: VecDeque<(Instant, RecordKey)>,
    purged: HashMap<Namespace, Instant>,
}

impl Deletions {
    /// Notes that a blob is about to be deleted here.
    pub(crate) fn note(&self, key: &RecordKey) {
        let now = Instant::now();
        let state = &mut *self.0.lock();
        state.last.insert(key.clone(), now);
        state.order.push_back((now, key.clone()));
        let is_over = |state: &State| {
            let oldest = state.order.front();
            oldest.is_some_and(|(at, _)| state.order.len() > MOST || now > *at + MEMORY)
        };
        while is_over(state) {
            let Some((at, key)) = state.order.pop_front() else {
                return;
            };
            if state.last.get(&key) == Some(&at) {
                state.last.remove(&key);
            }
        }
    }

    /// Notes that a namespace is about to be purged here, or has just been.
    pub(crate) fn note_purge(&self, namespace: &Namespace) {
        let now = Instant::now();
        let purged = &mut self.0.lock().purged;
        purged.retain(|_, at| now <= *at + MEMORY);
        purged.insert(namespace.clone(), now);
    }

    /// Whether a record may come from a node that its deletion had not reached, if fetching it began then.
    pub(crate) fn forbid(&self, key: &RecordKey, began: Instant) -> bool {
        let state = self.0.lock();
        let last = state.last.get(key).max(state.purged.get(&key.namespace));
        last.is_some_and(|at| began < *at + SPREAD)
    }
}

#[cfg(test)]
mod tests {
    use zimcache_types::{Digest, Function, Namespace};

    use super::*;

    fn key(body: &str) -> RecordKey {
        let digest = Digest::of(Function::Sha256, body.as_bytes());
        RecordKey::blob(&Namespace::default(), &digest)
    }

    #[tokio::test(start_paused = true)]
    async fn only_fetches_begun_before_it_has_spread_are_forbidden() {
        let deletions = Deletions::default();
        let before = Instant::now();
        tokio::time::advance(Duration::from_mins(1)).await;
        deletions.note(&key("gone"));
        assert!(deletions.forbid(&key("gone"), before));
        assert!(deletions.forbid(&key("gone"), Instant::now()));
        assert!(!deletions.forbid(&key("here"), before));
        tokio::time::advance(SPREAD).await;
        assert!(deletions.forbid(&key("gone"), before));
        assert!(!deletions.forbid(&key("gone"), Instant::now()));
    }

    /// An entry that a slow node still had came back to one that had been purged: seed 535.
    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_purged_namespace_is_fetched_while_the_purge_spreads() {
        let deletions = Deletions::default();
        let before = Instant::now();
        tokio::time::advance(Duration::from_mins(1)).await;
        deletions.note_purge(&Namespace::default());
        assert!(deletions.forbid(&key("any"), before));
        assert!(deletions.forbid(&key("any"), Instant::now()));
        let elsewhere = RecordKey {
            namespace: Namespace::new("elsewhere").unwrap(),
            ..key("any")
        };
        assert!(!deletions.forbid(&elsewhere, before));
        tokio::time::advance(SPREAD).await;
        assert!(!deletions.forbid(&key("any"), Instant::now()));
        tokio::time::advance(MEMORY).await;
        deletions.note_purge(&elsewhere.namespace);
        assert!(!deletions.forbid(&key("any"), before), "it is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_in_time_and_number() {
        let deletions = Deletions::default();
        let before = Instant::now();
        deletions.note(&key("old"));
        tokio::time::advance(MEMORY).await;
        deletions.note(&key("old"));
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 0..MOST - 1 {
            deletions.note(&key(&number.to_string()));
        }
        assert!(deletions.forbid(&key("old"), before), "the later deletion");
        deletions.note(&key("one more"));
        assert!(!deletions.forbid(&key("old"), before));
        assert_eq!(deletions.0.lock().last.len(), MOST);
    }
}
