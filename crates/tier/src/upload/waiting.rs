//! Which records are not uploaded yet on purpose: those that another owner does first, and those that failed.
//!
//! Both are bounded: what does not fit is met again on the next walk, oldest first.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;
use zimcache_store::RecordKey;

use crate::jitter::Jitter;

/// Records remembered of each kind.
const LIMIT: usize = 65_536;
/// Wait after a record failed, at most.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// Wait after a record failed again and again, at most.
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// Records of which another node is the first owner, since when they were seen.
#[derive(Debug)]
pub(super) struct Waiting {
    takeover_after: Duration,
    seen: HashMap<RecordKey, (Instant, u64)>,
    walk: u64,
}

impl Waiting {
    pub(super) fn new(takeover_after: Duration) -> Waiting {
        Waiting {
            takeover_after,
            seen: HashMap::new(),
            walk: 0,
        }
    }

    /// Whether the first owner has had its time. Starts to count when the record is new.
    pub(super) fn is_over(&mut self, key: &RecordKey) -> bool {
        let now = Instant::now();
        if let Some((since, walk)) = self.seen.get_mut(key) {
            *walk = self.walk;
            return now.duration_since(*since) >= self.takeover_after;
        }
        if self.seen.len() < LIMIT {
            self.seen.insert(key.clone(), (now, self.walk));
        }
        false
    }

    /// A walk has met all that is dirty: what it did not meet is settled.
    pub(super) fn end_walk(&mut self) {
        let walk = self.walk;
        self.seen.retain(|_, (_, met)| *met == walk);
        self.walk += 1;
    }

    /// The first owner could not do anything either: it gets its time again.
    pub(super) fn restart(&mut self) {
        self.seen.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// Records whose upload failed, and when it is tried again.
#[derive(Debug)]
pub(super) struct Failed {
    records: HashMap<RecordKey, (Instant, u32)>,
    jitter: Jitter,
}

impl Failed {
    pub(super) fn new(seed: u64) -> Failed {
        Failed {
            records: HashMap::new(),
            jitter: Jitter::new(seed),
        }
    }

    /// Puts a record off.
    pub(super) fn add(&mut self, key: RecordKey) {
        let known = self.records.get(&key).map(|(_, failures)| *failures);
        if known.is_none() && self.records.len() >= LIMIT {
            return;
        }
        let failures = known.map_or(0, |failures| failures + 1);
        let wait = self.jitter.wait(FIRST_RETRY, failures, LONGEST_RETRY);
        self.records.insert(key, (Instant::now() + wait, failures));
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        self.records.remove(key);
    }

    /// Whether a record is put off still.
    pub(super) fn holds_back(&self, key: &RecordKey) -> bool {
        let entry = self.records.get(key);
        entry.is_some_and(|(until, _)| Instant::now() < *until)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All may be tried again at once.
    pub(super) fn clear(&mut self) {
        self.records.clear();
    }
}

#[cfg(test)]
mod tests {
    use zimcache_types::{Digest, Function, Namespace};

    use super::*;

    fn key(text: &str) -> RecordKey {
        let digest = Digest::of(Function::Sha256, text.as_bytes());
        RecordKey::blob(&Namespace::default(), &digest)
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_of_another_first_owner_is_taken_over_after_its_time() {
        let mut waiting = Waiting::new(Duration::from_mins(1));
        assert!(!waiting.is_over(&key("a")));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!waiting.is_over(&key("a")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(waiting.is_over(&key("a")));
        assert!(!waiting.is_over(&key("b")), "each has its own time");
        waiting.restart();
        assert!(!waiting.is_over(&key("a")), "an outage gives it anew");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_walk_did_not_meet_is_forgotten() {
        let mut waiting = Waiting::new(Duration::from_mins(1));
        waiting.is_over(&key("a"));
        waiting.is_over(&key("b"));
        waiting.end_walk();
        waiting.is_over(&key("b"));
        waiting.end_walk();
        assert_eq!(waiting.seen.len(), 1);
        waiting.end_walk();
        assert!(waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_record_is_put_off_for_a_while() {
        let mut failed = Failed::new(3);
        failed.add(key("a"));
        tokio::time::advance(FIRST_RETRY).await;
        assert!(!failed.holds_back(&key("a")));
        (0..20).for_each(|_| failed.add(key("a")));
        tokio::time::advance(LONGEST_RETRY).await;
        assert!(!failed.holds_back(&key("a")), "never for longer than that");
        failed.remove(&key("a"));
        assert!(failed.is_empty());
    }
}
