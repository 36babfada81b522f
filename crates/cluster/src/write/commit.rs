//! The end of a body on all nodes that took it, and what of it is durable then.
//!
//! A node that does not acknowledge in time is late and gets a strike. Its commit goes on for whoever still needs the
//! copy, up to [`crate::Timing::patience`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use zimcache_link::{Error, Result};
use zimcache_store::{Pins, Written};

use super::{
    fan::{Fan, Lane, is_stale, late_strike},
    late::{Commits, Late},
};
use crate::{
    gather::{Gathered, Limits, Numbered, gather},
    node::{Node, is_of_the_node},
    shared::Shared,
};

/// A copy that a node acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub(crate) node: Arc<Node>,
    pub(crate) is_hinted: bool,
}

/// What came of a write.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) copies: Vec<Copy>,
    /// Copies that may still come.
    pub(crate) late: Late,
    /// The highest version that a node holds.
    pub(crate) written: Option<Written>,
    /// Bytes of the body.
    pub(crate) size_bytes: u64,
}

/// How a write is committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit {
    /// Every copy carries the hint, whether or not an owner was missed.
    pub(crate) is_hinted: bool,
    /// One owner is enough; the others go on by themselves.
    pub(crate) is_first_enough: bool,
}

impl Fan {
    /// Ends the body on all nodes, and waits for them; after [`crate::Timing::acknowledge`] only until one owner has it.
    ///
    /// # Errors
    /// What the nodes say about the request itself, when none of them has it; a node's failure likewise.
    pub(crate) async fn commit(self, how: Commit) -> Result<Committed> {
        let shared = Arc::clone(&self.shared);
        let timing = &shared.config.timing;
        let size_bytes = self.offset + self.sent;
        let is_hinted = how.is_hinted || self.is_incomplete;
        let pins = Pins {
            hint: is_hinted,
            dirty: false,
        };
        let copy = |lane: &Lane| Copy {
            node: Arc::clone(&lane.node),
            is_hinted,
        };
        let (copies, owners): (Vec<_>, Vec<_>) = self
            .lanes
            .iter()
            .map(|lane| (copy(lane), lane.is_owner))
            .unzip();
        let committing = self.lanes.into_iter().enumerate().map(|(number, lane)| {
            let committed = lane.commit(pins, timing.patience);
            Box::pin(async move { (number, committed.await) }) as Numbered<'static, _>
        });
        let limits = Limits {
            all: if how.is_first_enough {
                Duration::ZERO
            } else {
                timing.acknowledge
            },
            most: timing.patience,
        };
        let is_enough = |results: &[Option<Result<Written>>]| {
            let mut both = results.iter().zip(&owners);
            both.any(|(result, is_owner)| *is_owner && matches!(result, Some(Ok(_))))
        };
        let gathered = gather(committing, limits, is_enough).await;
        sort(&shared, copies, gathered, how.is_first_enough, size_bytes).await
    }
}

impl Lane {
    /// Ends within `limit`, on the node or here.
    async fn commit(self, pins: Pins, limit: Duration) -> Result<Written> {
        let committed = tokio::time::timeout(limit, self.writing.commit(pins)).await;
        committed.unwrap_or_else(|_| Err(self.node.unreachable("it was too slow")))
    }
}

/// Sorts who has a copy, who has not, and who may still have one.
async fn sort(
    shared: &Shared,
    copies: Vec<Copy>,
    gathered: Gathered<'static, Result<Written>>,
    is_first_enough: bool,
    size_bytes: u64,
) -> Result<Committed> {
    let mut committed = Committed {
        copies: Vec::new(),
        late: Late::default(),
        written: None,
        size_bytes,
    };
    let (mut failure, mut late) = (None, BTreeMap::new());
    for (number, (copy, result)) in copies.into_iter().zip(gathered.results).enumerate() {
        match result {
            Some(Ok(written)) => committed.add(copy, written),
            Some(Err(error)) => {
                copy.node.note::<()>(&Err(error.clone()));
                // The copies that there are count under the ring that it tells of.
                shared.learn_from(&error).await;
                failure = Some(worse(failure, error));
            }
            None if is_first_enough => {}
            None => {
                failure = Some(worse(failure, late_strike(&copy.node)));
                late.insert(number, copy);
            }
        }
    }
    if is_first_enough {
        finish(gathered.rest);
    } else {
        committed.late = Late::new(late, gathered.rest);
    }
    match failure {
        Some(failure) if committed.copies.is_empty() => Err(failure),
        _ => Ok(committed),
    }
}

impl Committed {
    fn add(&mut self, copy: Copy, written: Written) {
        copy.node.answered();
        self.copies.push(copy);
        let before = self.written.map(|it| it.version);
        self.written = Some(Written {
            version: written.version.max(before.unwrap_or(written.version)),
            ..written
        });
    }
}

/// Of two failures the one that tells the caller more.
fn worse(one: Option<Error>, other: Error) -> Error {
    match one {
        Some(one) if !is_of_the_node(&one) || is_stale(&one) => one,
        _ => other,
    }
}

/// Lets commits that need not be waited for go on in the background.
fn finish(rest: Commits) {
    if !rest.is_empty() {
        zimcache_telemetry::task::spawn("finish other copies", rest.count());
    }
}
