//! A node as this gateway knows it: the way to it, what is in flight, and whether it is worth asking.
//!
//! The breaker: so many failures to reach a node in a row and it is passed over, at no cost to any request, until the
//! poll for its health has an answer. A refusal is an answer. Invariant: in-flight counts go down however a call ends.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use zimcache_link::{Error, Peer, Result, Status};
use zimcache_types::Code;

/// A node of the cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: Box<str>,
    pub(crate) zone: Box<str>,
    /// Where other nodes reach it.
    pub(crate) address: Box<str>,
    pub(crate) peer: Arc<dyn Peer>,
    most_strikes: u32,
    strikes: AtomicU32,
    in_flight: AtomicU64,
    status: Mutex<Option<Status>>,
}

impl Node {
    pub(crate) fn new(
        member: &zimcache_ring::Member,
        peer: Arc<dyn Peer>,
        most_strikes: u32,
    ) -> Node {
        Node {
            id: member.id.as_str().into(),
            zone: member.zone.as_str().into(),
            address: address_of(member).into(),
            peer,
            most_strikes: most_strikes.max(1),
            strikes: AtomicU32::new(0),
            in_flight: AtomicU64::new(0),
            status: Mutex::new(None),
        }
    }

    /// Whether this is the node of a member, at the same place.
    pub(crate) fn is(&self, member: &zimcache_ring::Member) -> bool {
        *self.id == *member.id && *self.zone == *member.zone && *self.address == *address_of(member)
    }

    /// Whether it is worth asking.
    pub(crate) fn is_reachable(&self) -> bool {
        self.strikes.load(Ordering::Relaxed) < self.most_strikes
    }

    /// Whether the last attempt to reach it failed.
    pub(crate) fn is_suspect(&self) -> bool {
        self.strikes.load(Ordering::Relaxed) > 0
    }

    /// Calls to it without an end yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Notes a failure to reach it.
    pub(crate) fn strike(&self) {
        let before = self.strikes.fetch_add(1, Ordering::Relaxed);
        if before + 1 == self.most_strikes {
            tracing::warn!(
                node = &*self.id,
                "a node cannot be reached and is passed over"
            );
        }
    }

    /// Notes that it answered.
    pub(crate) fn answered(&self) {
        if self.strikes.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.strikes.swap(0, Ordering::Relaxed) >= self.most_strikes {
            tracing::info!(node = &*self.id, "a node can be reached again");
        }
    }

    /// Notes what became of a call.
    pub(crate) fn note<T>(&self, outcome: &Result<T>) {
        match outcome {
            Err(Error::Unreachable { .. }) => self.strike(),
            _ => self.answered(),
        }
    }

    /// A call that ends within `limit`, counted and noted; one to a node that is passed over fails at once.
    pub(crate) async fn call<T>(
        self: &Arc<Self>,
        limit: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !self.is_reachable() {
            return Err(self.unreachable("it did not answer before"));
        }
        self.probe(limit, call).await
    }

    /// The same, also to a node that is passed over.
    pub(crate) async fn probe<T>(
        self: &Arc<Self>,
        limit: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let _in_flight = self.enter();
        let outcome = tokio::time::timeout(limit, call).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(self.unreachable("it did not answer in time")));
        self.note(&outcome);
        outcome
    }

    /// That it cannot be reached.
    pub(crate) fn unreachable(&self, why: &str) -> Error {
        Error::Unreachable {
            node: self.id.clone(),
            why: why.into(),
        }
    }

    /// How it was when it was last asked.
    pub(crate) fn status(&self) -> Option<Status> {
        self.status.lock().clone()
    }

    pub(crate) fn set_status(&self, status: Status) {
        *self.status.lock() = Some(status);
    }
}

/// A call that has not ended.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Node>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a member is reached; one without an address by its name.
fn address_of(member: &zimcache_ring::Member) -> &str {
    member.address.as_deref().unwrap_or(&member.id)
}

/// Whether another node may do better. A defect or slowness of one node counts as well.
pub(crate) const fn is_of_the_node(error: &Error) -> bool {
    error.is_of_the_node() || matches!(error.code(), Code::Timeout | Code::Internal)
}

/// A node's failure as the store's.
pub(crate) fn store_error(error: Error) -> zimcache_store::Error {
    match (error.code(), error) {
        (Code::Conflict, _) => zimcache_store::Error::Conflict,
        (code, error) => zimcache_store::Error::Remote {
            code,
            message: error.to_string().into(),
        },
    }
}

/// That it cannot be done or decided now.
pub(crate) fn unavailable(why: &str) -> zimcache_store::Error {
    zimcache_store::Error::Remote {
        code: Code::Unavailable,
        message: why.into(),
    }
}
