//! What the bucket may hold, known without asking it.
//!
//! A [`bloom`] filter in memory, built at start by listing the bucket, for the records this node owns; fed by uploads
//! and by what other owners settle. Until it is loaded nobody knows. A record that is not in a loaded filter is not in the
//! bucket. Objects that leave the bucket stay in the filter until the next listing: asking for them costs a request each,
//! no more. A second filter holds what was past half of its life when it was listed, so that keeping alive what is used
//! needs no request for what is young.
//!
//! Records put in while a listing runs are in the filter in use and in the one being built.

mod bloom;

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use siphasher::sip128::{Hasher128, SipHasher13};
use tokio::sync::Notify;
use zimcache_store::RecordKey;

use crate::{Bucket, Owners, Result, Stat, bucket::Listed, upload::Life};
use bloom::{Bloom, Hashes};

/// Whether the bucket has a record, as far as is known without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known {
    /// It has not.
    Absent,
    /// It may have.
    Maybe,
    /// The filter is not loaded, or the record is not this node's.
    Unknown,
}

/// What the bucket may hold of this node's records.
#[derive(Debug)]
pub struct Presence {
    owners: Arc<dyn Owners>,
    seed: u64,
    state: RwLock<State>,
    /// Counts changes of what the node owns.
    rings: AtomicU64,
    wanted: Notify,
}

#[derive(Debug)]
struct State {
    now: Arc<Filters>,
    /// While the bucket is being listed.
    next: Option<Arc<Filters>>,
    loaded: bool,
}

#[derive(Debug)]
struct Filters {
    present: Bloom,
    /// Past half of its life when listed.
    old: Bloom,
    /// Made young since.
    renewed: Bloom,
}

impl Filters {
    fn new() -> Arc<Filters> {
        Arc::new(Filters {
            present: Bloom::new(),
            old: Bloom::new(),
            renewed: Bloom::new(),
        })
    }
}

impl Presence {
    /// A filter that knows nothing yet.
    pub fn new(owners: Arc<dyn Owners>, seed: u64) -> Presence {
        Presence {
            owners,
            seed,
            state: RwLock::new(State {
                now: Filters::new(),
                next: None,
                loaded: false,
            }),
            rings: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    /// Whether the bucket has a record, as far as is known without asking.
    pub fn ask(&self, key: &RecordKey) -> Known {
        let state = self.state.read();
        if state.now.present.contains(self.hashes(key)) {
            return Known::Maybe;
        }
        if state.loaded && self.owners.owns(key) {
            Known::Absent
        } else {
            Known::Unknown
        }
    }

    /// Whether the bucket is known to have a record, or may have. Not that it has none when this is false.
    pub(crate) fn may_have(&self, key: &RecordKey) -> bool {
        let state = self.state.read();
        state.now.present.contains(self.hashes(key))
    }

    /// The same of each of these.
    pub(crate) fn may_have_each(&self, keys: &[&RecordKey]) -> Vec<bool> {
        let hashes: Vec<Hashes> = keys.iter().map(|key| self.hashes(key)).collect();
        self.state.read().now.present.contains_each(&hashes)
    }

    /// Notes that the bucket has a record.
    pub fn insert(&self, key: &RecordKey) {
        let (state, hashes) = (self.state.read(), self.hashes(key));
        state.now.present.insert(hashes);
        if let Some(next) = &state.next {
            next.present.insert(hashes);
        }
    }

    /// Whether the filter is loaded.
    pub fn is_loaded(&self) -> bool {
        self.state.read().loaded
    }

    /// How many records it knows of, about.
    pub fn records(&self) -> u64 {
        self.state.read().now.present.keys()
    }

    /// The node owns other records now: nothing is known until the bucket was listed again.
    pub fn ring_changed(&self) {
        let mut state = self.state.write();
        self.rings.fetch_add(1, Ordering::SeqCst);
        state.loaded = false;
        self.wanted.notify_one();
    }

    /// Ends when a listing is wanted at once.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Whether an object was past half of its life when it was listed, and was not made young since.
    pub(crate) fn is_old(&self, key: &RecordKey) -> bool {
        let (state, hashes) = (self.state.read(), self.hashes(key));
        state.now.old.contains(hashes) && !state.now.renewed.contains(hashes)
    }

    /// Notes that an object was made young, or is beyond that.
    pub(crate) fn set_renewed(&self, key: &RecordKey) {
        let (state, hashes) = (self.state.read(), self.hashes(key));
        state.now.renewed.insert(hashes);
        if let Some(next) = &state.next {
            next.renewed.insert(hashes);
        }
    }

    /// Lists the bucket and takes what it holds as the new filter.
    ///
    /// # Errors
    /// `NoBucket`, `Unreachable`, `Refused`; the old filter stays.
    pub(crate) async fn load(&self, bucket: &Bucket) -> Result<()> {
        let ring = self.rings.load(Ordering::SeqCst);
        let next = Filters::new();
        self.state.write().next = Some(Arc::clone(&next));
        let note = |listed: Listed| self.note(bucket, &next, &listed);
        let walked = bucket.walk(bucket.keys().root(), &note).await;
        let mut state = self.state.write();
        state.next = None;
        walked?;
        // What was listed under another ring lacks what the node owns now.
        if self.rings.load(Ordering::SeqCst) == ring {
            state.now = next;
            state.loaded = true;
        }
        Ok(())
    }

    fn note(&self, bucket: &Bucket, filters: &Filters, listed: &Listed) {
        let Some(key) = bucket.keys().parse(&listed.name) else {
            return;
        };
        if !self.owners.owns(&key) {
            return;
        }
        let hashes = self.hashes(&key);
        filters.present.insert(hashes);
        let stat = Stat {
            size_bytes: listed.size_bytes,
            modified: listed.modified,
            etag: Box::default(),
        };
        if bucket.life(&stat) != Life::Young {
            filters.old.insert(hashes);
        }
    }

    /// Two hashes by SipHash with a key, so that nobody can choose names that the filter confuses.
    fn hashes(&self, key: &RecordKey) -> Hashes {
        let mut hasher = SipHasher13::new_with_keys(self.seed, 1);
        key.hash(&mut hasher);
        let both = hasher.finish128();
        (both.h1, both.h2 | 1)
    }
}
