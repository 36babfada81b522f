//! Hints on the copies of a write that missed an owner: whoever holds one gives the value to the owner.

use std::{sync::Arc, time::Duration};

use super::{
    commit::Copy,
    fetch::{HINT, Value},
};
use crate::{
    gather::{Limits, Numbered, gather},
    node::Node,
    view::{Candidate, Role},
};

impl Value<'_> {
    /// Puts the hint on every copy when an owner was missed. One that does not take it soon is no failure, once another
    /// one has it; until one has, it is waited for the longest.
    pub(super) async fn hint(self, copies: &[Copy], longest: Duration) {
        if !self.is_one_missed(copies) {
            return;
        }
        let limits = Limits {
            all: self.shared.time_to_pull(0),
            most: longest,
        };
        let unhinted: Vec<_> = copies.iter().filter(|copy| !copy.is_hinted).collect();
        let hints = unhinted.iter().enumerate().map(|(number, copy)| {
            let node = &copy.node;
            let other = copies.iter().find(|other| !Arc::ptr_eq(&other.node, node));
            let from = other.map_or(node, |other| &other.node);
            let pull = self
                .shared
                .pull_within(limits.most, node, from, self.key, HINT);
            Box::pin(async move { (number, pull.await) }) as Numbered<'_, _>
        });
        let is_some_hinted = unhinted.len() < copies.len();
        let is_enough = |taken: &[Option<bool>]| is_some_hinted || taken.contains(&Some(true));
        let taken = gather(hints, limits, is_enough).await.results;
        let late = unhinted.iter().zip(taken).filter(|it| it.1.is_none());
        late.for_each(|(copy, _)| copy.node.strike());
    }

    /// Whether a node is without the value that should have it.
    fn is_one_missed(self, copies: &[Copy]) -> bool {
        let has = |node: &Arc<Node>| copies.iter().any(|copy| Arc::ptr_eq(&copy.node, node));
        let should_have = |it: &&Candidate| {
            let is_owner =
                it.current == Role::Owner || self.version.is_some() && it.previous == Role::Owner;
            is_owner && !it.is_gone
        };
        let plan = self.shared.plan(self.key);
        let mut owners = plan.candidates.iter().filter(should_have);
        owners.any(|owner| !has(&owner.node))
    }
}
