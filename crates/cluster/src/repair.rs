//! Copies for owners that were found to lack a value: asked for in the background, a few at a time.
//!
//! A repair is a wish: when too many are waiting it is let go, and the next read wishes again.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use zimcache_link::Pull;
use zimcache_store::{Pins, RecordKey};

use crate::{
    node::Node,
    shared::{Shared, count},
};

/// Repairs that wait at most.
const WAITING: usize = 1024;
/// Repairs at once.
const AT_ONCE: usize = 4;

/// A copy that is to be made.
#[derive(Debug)]
pub(crate) struct Repair {
    pub(crate) key: RecordKey,
    /// Who lacks it.
    pub(crate) target: Arc<Node>,
    /// Who has it.
    pub(crate) from: Arc<Node>,
    pub(crate) size_bytes: u64,
}

/// Where repairs wait.
#[derive(Debug)]
pub(crate) struct Repairs(mpsc::Sender<Repair>);

/// The other end of it.
pub(crate) fn queue() -> (Repairs, mpsc::Receiver<Repair>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Repairs(sender), receiver)
}

impl Shared {
    /// Asks for a copy in the background.
    pub(crate) fn repair(&self, repair: Repair) {
        let counter = match self.repairs.0.try_send(repair) {
            Ok(()) => &self.counts.repairs,
            Err(_) => &self.counts.repairs_dropped,
        };
        count(counter);
    }

    /// What a copy of so many bytes should take at most.
    pub(crate) fn time_to_pull(&self, size_bytes: u64) -> Duration {
        /// What a copy gets at least, in bytes a millisecond: 16 MiB/s.
        const PACE: u64 = (16 << 20) / 1000;
        self.config.timing.pull + Duration::from_millis(size_bytes / PACE)
    }

    /// Makes a node fetch a record from another one; whether it holds that value now, or a newer one.
    pub(crate) async fn pull(
        &self,
        target: &Arc<Node>,
        from: &Node,
        key: &RecordKey,
        size_bytes: u64,
        pins: Pins,
    ) -> bool {
        let limit = self.time_to_pull(size_bytes);
        self.pull_within(limit, target, from, key, pins).await
    }

    /// The same, given up after a time.
    pub(crate) async fn pull_within(
        &self,
        limit: Duration,
        target: &Arc<Node>,
        from: &Node,
        key: &RecordKey,
        pins: Pins,
    ) -> bool {
        let pull = Pull {
            epoch: self.view().epoch(),
            from: from.address.clone(),
            keys: vec![key.clone()],
            pins,
        };
        match target.call(limit, target.peer.pull(pull)).await {
            Ok(held) => held == [true],
            Err(error) => {
                tracing::debug!(%error, "a copy was not made");
                false
            }
        }
    }
}

/// Works repairs off until nobody can ask for one any more.
pub(crate) async fn work(shared: Weak<Shared>, mut waiting: mpsc::Receiver<Repair>) {
    let each = futures_util::stream::poll_fn(move |cx| waiting.poll_recv(cx));
    let repair = |repair: Repair| {
        let shared = shared.upgrade();
        async move {
            let Some(shared) = shared else { return };
            let Repair {
                key,
                target,
                from,
                size_bytes,
            } = repair;
            shared
                .pull(&target, &from, &key, size_bytes, Pins::default())
                .await;
        }
    };
    each.for_each_concurrent(AT_ONCE, repair).await;
}
