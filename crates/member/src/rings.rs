//! The newest ring a member knows of, and where records lie on it.

use bytes::Bytes;
use tokio::sync::watch;
use zimcache_ring::{Document, NodeIx, Point, Ring, RingKey, State};
use zimcache_store::{RecordKey, RecordKind};
use zimcache_telemetry::task;

/// A document with more members than this is made into a ring off the threads that serve.
const MANY: usize = 64;

/// Where a record lies on the ring.
pub fn point(key: &RecordKey) -> Point {
    match key.kind {
        RecordKind::Blob(_) => RingKey(key.id).point(),
        RecordKind::Entry(kind) => RingKey::of_entry_record(&key.namespace, kind, &key.id).point(),
    }
}

/// The newest ring known. It only moves to higher epochs.
#[derive(Debug)]
pub struct Rings(watch::Sender<Option<Ring>>);

impl Default for Rings {
    fn default() -> Rings {
        Rings(watch::Sender::new(None))
    }
}

impl Rings {
    /// The ring; `None` before the first is known.
    pub fn get(&self) -> Option<Ring> {
        self.0.borrow().clone()
    }

    /// Follows a document if it is newer than the ring known; whether it is.
    pub async fn adopt(&self, document: Document) -> bool {
        if document.epoch() <= self.epoch() {
            return false;
        }
        let ring = if document.members().count() <= MANY {
            Ring::new(&document)
        } else {
            let made = task::spawn_blocking("ring", move || Ring::new(&document)).await;
            let Ok(ring) = made else { return false };
            ring
        };
        self.0.send_if_modified(|held| {
            let newer = held.as_ref().is_none_or(|held| held.epoch() < ring.epoch());
            if newer {
                *held = Some(ring);
            }
            newer
        })
    }

    /// Sees every change from now on.
    pub fn watch(&self) -> watch::Receiver<Option<Ring>> {
        self.0.subscribe()
    }

    /// Epoch of the ring known; 0 before there is one.
    pub fn epoch(&self) -> u64 {
        self.0.borrow().as_ref().map_or(0, Ring::epoch)
    }

    /// The document of the ring known; empty before there is one.
    pub(crate) fn document(&self) -> Bytes {
        let json = self.get().and_then(|ring| ring.document().to_json().ok());
        json.map_or(Bytes::new(), Bytes::from)
    }
}

/// The members that others wait for: those that may hold something.
pub(crate) fn waited_for(ring: &Ring) -> impl Iterator<Item = NodeIx> {
    let living = ring.members().filter(|(_, member)| !member.state.is_gone());
    living.map(|(node, _)| node)
}

/// Whether a member is gone for good.
pub(crate) fn is_lost(ring: &Ring, node: NodeIx) -> bool {
    ring.member(node).state == State::Lost
}
