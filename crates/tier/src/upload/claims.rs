//! Which records are being uploaded: one upload at a time of each, whoever wants it.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;
use zimcache_store::RecordKey;

/// The records taken. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: Mutex<HashSet<RecordKey>>,
    released: Notify,
}

/// A record taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    key: RecordKey,
}

impl Claims {
    /// Takes a record; `None` when somebody has it.
    pub(super) fn take(&self, key: &RecordKey) -> Option<Claim> {
        let new = self.shared.taken.lock().insert(key.clone());
        new.then(|| Claim {
            shared: Arc::clone(&self.shared),
            key: key.clone(),
        })
    }

    /// Takes a record as soon as nobody has it.
    pub(super) async fn wait(&self, key: &RecordKey) -> Claim {
        loop {
            let mut released = std::pin::pin!(self.shared.released.notified());
            released.as_mut().enable();
            if let Some(claim) = self.take(key) {
                return claim;
            }
            released.await;
        }
    }
}

impl Claim {
    pub(super) const fn key(&self) -> &RecordKey {
        &self.key
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.taken.lock().remove(&self.key);
        self.shared.released.notify_waiters();
    }
}
