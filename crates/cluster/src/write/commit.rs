//! The end of a body on all nodes that took it, and what of it is durable then.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use zimcache_link::{Error, Result};
use zimcache_store::{Pins, Written};

use super::fan::{Fan, is_stale, late_strike};
use crate::{
    gather::{Limits, Numbered, gather},
    node::{Node, is_of_the_node},
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
    /// Ends the body on all nodes.
    ///
    /// # Errors
    /// What the nodes say about the request itself, when none of them has it; a node's failure likewise.
    pub(crate) async fn commit(self, how: Commit) -> Result<Committed> {
        let shared = Arc::clone(&self.shared);
        let timing = &shared.config.timing;
        let is_hinted = how.is_hinted || self.is_incomplete;
        let (nodes, owners): (Vec<_>, Vec<_>) = self
            .lanes
            .iter()
            .map(|lane| (Arc::clone(&lane.node), lane.is_owner))
            .unzip();
        let pins = Pins {
            hint: is_hinted,
            dirty: false,
        };
        let committing = self.lanes.into_iter().enumerate().map(|(number, lane)| {
            let committed = async move { (number, lane.writing.commit(pins).await) };
            Box::pin(committed) as Numbered<'static, _>
        });
        let limits = Limits {
            all: if how.is_first_enough {
                std::time::Duration::ZERO
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
        finish(gathered.rest, how.is_first_enough, timing.patience);
        let mut committed = Committed {
            copies: Vec::new(),
            written: None,
            size_bytes: self.offset + self.sent,
        };
        let mut failure = None;
        for (node, result) in nodes.into_iter().zip(gathered.results) {
            match result {
                Some(Ok(written)) => {
                    committed.copies.push(Copy { node, is_hinted });
                    let highest = committed
                        .written
                        .map_or(written.version, |it| it.version.max(written.version));
                    committed.written = Some(Written {
                        version: highest,
                        ..written
                    });
                }
                Some(Err(error)) => {
                    node.note::<()>(&Err(error.clone()));
                    // The copies that there are count under the ring that it tells of.
                    shared.learn_from(&error).await;
                    failure = Some(worse(failure, error));
                }
                None if how.is_first_enough => {}
                None => failure = Some(worse(failure, late_strike(&node))),
            }
        }
        match failure {
            Some(failure) if committed.copies.is_empty() => Err(failure),
            _ => Ok(committed),
        }
    }
}

/// Of two failures the one that tells the caller more.
fn worse(one: Option<Error>, other: Error) -> Error {
    match one {
        Some(one) if !is_of_the_node(&one) || is_stale(&one) => one,
        _ => other,
    }
}

/// Lets commits that need not be waited for go on in the background, else drops them.
fn finish<T: Send + 'static>(
    rest: FuturesUnordered<Numbered<'static, T>>,
    may_go_on: bool,
    limit: std::time::Duration,
) {
    if may_go_on && !rest.is_empty() {
        let rest = async move { tokio::time::timeout(limit, rest.count()).await.ok() };
        zimcache_telemetry::task::spawn("finish other copies", rest);
    }
}
