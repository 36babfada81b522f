//! Having a node fetch a value from one that holds it.
//!
//! A fetch that takes longer than its bytes should is late: its node gets a strike, and whoever waits for it may have
//! another node fetch as well. It is not given up for that. Dropping it is how it is given up.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use zimcache_link::Read;
use zimcache_store::{ByteRange, Pins, RecordKey, Version};

use crate::{
    ask::{Said, ask},
    node::Node,
    shared::Shared,
};

pub(super) const HINT: Pins = Pins {
    hint: true,
    dirty: false,
};

/// A value that some nodes hold.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) key: &'a RecordKey,
    pub(crate) size_bytes: u64,
    /// Of an entry: its version. Owners in the previous placement are to have it too then.
    pub(crate) version: Option<Version>,
}

/// What came of asking a node to fetch a copy.
pub(super) enum Fetched {
    Yes,
    No,
    /// It holds a higher version of the entry, which it keeps.
    Higher(Version),
}

/// A node that fetches, and will have done so or not.
pub(super) type Fetching<'a> = Pin<Box<dyn Future<Output = (Arc<Node>, Fetched)> + Send + 'a>>;

impl<'a> Value<'a> {
    /// After this a fetch is late.
    pub(super) fn soon(self) -> Duration {
        self.shared.time_to_pull(self.size_bytes)
    }

    /// The longest that is waited for a fetch, or for several.
    pub(super) fn longest(self) -> Duration {
        self.soon() + self.shared.config.timing.patience
    }

    /// Has a node fetch the value from one of these, with the hint.
    pub(super) fn fetch(self, target: Arc<Node>, sources: Vec<Arc<Node>>) -> Fetching<'a> {
        Box::pin(async move {
            let last = sources.len().saturating_sub(1);
            for (number, source) in sources.iter().enumerate() {
                if self.fetch_from(&target, source, number == last).await {
                    let fetched = self.what_is_on(&target).await;
                    return (target, fetched);
                }
            }
            (target, Fetched::No)
        })
    }

    /// From one source; a late fetch goes on only where there is no other source.
    async fn fetch_from(self, target: &Arc<Node>, source: &Node, is_last: bool) -> bool {
        let pull = self
            .shared
            .pull_within(self.longest(), target, source, self.key, HINT);
        tokio::pin!(pull);
        if let Ok(is_held) = tokio::time::timeout(self.soon(), &mut pull).await {
            return is_held;
        }
        target.strike();
        is_last && pull.await
    }

    /// Of an entry: whether what a node holds after it was told to fetch is this version. A clock that is behind gives
    /// versions that others have passed long ago, and whoever holds a higher one keeps that.
    async fn what_is_on(self, target: &Arc<Node>) -> Fetched {
        let Some(version) = self.version else {
            return Fetched::Yes;
        };
        match ask(target, self.read(), self.shared.config.timing.patience).await {
            Ok(Said::Yes(hit)) if hit.head.version > version => Fetched::Higher(hit.head.version),
            Ok(Said::Yes(_)) => Fetched::Yes,
            Ok(Said::No(_)) | Err(_) => Fetched::No,
        }
    }

    pub(super) fn read(self) -> Read {
        Read {
            epoch: self.shared.view().epoch(),
            key: self.key.clone(),
            range: ByteRange::Full,
            fill: false,
        }
    }
}
