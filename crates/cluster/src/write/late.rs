//! Commits that were not acknowledged in time, and go on: a copy that is slow is still a copy.
//!
//! Dropping one aborts on its node what it has not made durable by then; so ends whoever does not wait any more.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use zimcache_link::Result;
use zimcache_store::Written;

use super::commit::Copy;
use crate::{gather::Numbered, node::Node};

/// Commits by number, as they are gathered.
pub(super) type Commits = FuturesUnordered<Numbered<'static, Result<Written>>>;

/// The late commits of a write.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// What each of them comes to when it is acknowledged.
    copies: BTreeMap<usize, Copy>,
    commits: Commits,
}

impl Late {
    pub(super) const fn new(copies: BTreeMap<usize, Copy>, commits: Commits) -> Late {
        Late { copies, commits }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Whether the commit on a node goes on.
    pub(super) fn is_on(&self, node: &Arc<Node>) -> bool {
        let mut copies = self.copies.values();
        copies.any(|copy| Arc::ptr_eq(&copy.node, node))
    }

    /// The next commit that ends, and what came of it; `None` when all have. None is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Option<(Copy, Result<Written>)> {
        let (number, result) = self.commits.next().await?;
        let copy = self.copies.remove(&number)?;
        Some((copy, result))
    }
}
