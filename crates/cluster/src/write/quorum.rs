//! From the copies that were acknowledged to as many as the class asks for: what is missing is pulled.
//!
//! Judged by the newest ring known at that moment, whatever ring the write began under.

use std::sync::Arc;

use zimcache_link::Read;
use zimcache_store::{ByteRange, Pins, RecordKey, Result, Version};

use super::commit::Copy;
use crate::{
    ask::{Said, ask},
    config::Durability,
    node::{Node, unavailable},
    shared::{Shared, count},
    view::{Candidate, Plan, Role},
};

const HINT: Pins = Pins {
    hint: true,
    dirty: false,
};

/// The copies of one value.
pub(crate) struct Quorum<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) key: &'a RecordKey,
    pub(crate) size_bytes: u64,
    pub(crate) copies: Vec<Copy>,
    /// Of an entry: its version. Owners in the previous placement are to have it too then.
    pub(crate) version: Option<Version>,
}

/// What came of asking a node to fetch a copy.
enum Pulled {
    Yes,
    No,
    /// It holds a higher version of the entry, which it keeps.
    Higher(Version),
}

impl Quorum<'_> {
    /// Makes sure of as many copies as the namespace's class asks for. A higher version of the entry that a node turned
    /// out to hold: then this one will not stay.
    ///
    /// # Errors
    /// `Unavailable` when there are fewer. Those that exist stay, with the hint.
    pub(crate) async fn reach(mut self) -> Result<Option<Version>> {
        let class = self.shared.durability_of(&self.key.namespace);
        let reached = self.make_copies(class).await;
        self.hint_all().await;
        let needs_tier = class == Durability::Bucket;
        match reached {
            Ok(Some(higher)) => return Ok(Some(higher)),
            Ok(None) if needs_tier => self.wait_for_the_tier().await?,
            // One node and the durable tier are as good as two nodes.
            Err(_) if self.shared.has_tier() => self.wait_for_the_tier().await?,
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    async fn make_copies(&mut self, class: Durability) -> Result<Option<Version>> {
        let mut tried: Vec<Arc<Node>> = Vec::new();
        loop {
            let plan = self.shared.plan(self.key);
            let needed = match class {
                Durability::Quorum => plan.quorum(),
                Durability::Local | Durability::Bucket => 1,
            };
            let roles = || self.copies.iter().map(|copy| plan.role_of(&copy.node));
            let counted = roles().filter(|role| *role != Role::None).count();
            let has_owner = roles().any(|role| role == Role::Owner);
            if counted >= needed && has_owner {
                return Ok(None);
            }
            let Some(target) = self.next_target(&plan, &tried, has_owner) else {
                return Err(unavailable(
                    "too few nodes can be reached to keep the value safe",
                ));
            };
            tried.push(Arc::clone(&target));
            match self.pull_to(&target).await {
                Pulled::Yes => {
                    count(&self.shared.counts.stand_ins);
                    self.copies.push(Copy {
                        node: target,
                        is_hinted: true,
                    });
                }
                Pulled::No => {}
                Pulled::Higher(version) => return Ok(Some(version)),
            }
        }
    }

    /// Who is to get the next copy: an owner if none has one, else stand-ins first, for an owner has failed just now.
    fn next_target(&self, plan: &Plan, tried: &[Arc<Node>], has_owner: bool) -> Option<Arc<Node>> {
        let is_known = |node: &Arc<Node>| {
            let holders = self.copies.iter().map(|copy| &copy.node);
            tried
                .iter()
                .chain(holders)
                .any(|known| Arc::ptr_eq(known, node))
        };
        let may = |candidate: &&Candidate| {
            candidate.current != Role::None && candidate.is_usable() && !is_known(&candidate.node)
        };
        let of = |role| {
            plan.candidates
                .iter()
                .filter(may)
                .find(|it| it.current == role)
        };
        let owner = of(Role::Owner);
        let chosen = if has_owner {
            of(Role::StandIn).or(owner)
        } else {
            owner
        };
        chosen.map(|candidate| Arc::clone(&candidate.node))
    }

    async fn pull_to(&self, target: &Arc<Node>) -> Pulled {
        for copy in self.copies.iter().filter(|copy| copy.node.is_reachable()) {
            let pulled = self
                .shared
                .pull(target, &copy.node, self.key, self.size_bytes, HINT);
            if pulled.await {
                return self.what_is_on(target).await;
            }
        }
        Pulled::No
    }

    /// Of an entry: whether what a node holds after it was told to fetch is this version. A clock that is behind gives
    /// versions that others have passed long ago, and whoever holds a higher one keeps that.
    async fn what_is_on(&self, target: &Arc<Node>) -> Pulled {
        let Some(version) = self.version else {
            return Pulled::Yes;
        };
        match ask(target, self.read(), self.shared.config.timing.first_byte).await {
            Ok(Said::Yes(hit)) if hit.head.version > version => Pulled::Higher(hit.head.version),
            Ok(Said::Yes(_)) => Pulled::Yes,
            Ok(Said::No(_)) | Err(_) => Pulled::No,
        }
    }

    fn read(&self) -> Read {
        Read {
            epoch: self.shared.view().epoch(),
            key: self.key.clone(),
            range: ByteRange::Full,
            fill: false,
        }
    }

    /// Puts the hint on every copy when an owner was missed. One that cannot take it now is no failure: the others have it.
    async fn hint_all(&mut self) {
        let plan = self.shared.plan(self.key);
        let has = |node: &Arc<Node>| self.copies.iter().any(|copy| Arc::ptr_eq(&copy.node, node));
        let should_have = |it: &&Candidate| {
            let is_owner =
                it.current == Role::Owner || self.version.is_some() && it.previous == Role::Owner;
            is_owner && !it.is_gone
        };
        if plan
            .candidates
            .iter()
            .filter(should_have)
            .all(|owner| has(&owner.node))
        {
            return;
        }
        let copies = &self.copies;
        let hints = copies.iter().filter(|copy| !copy.is_hinted).map(|copy| {
            let other = copies
                .iter()
                .find(|other| !Arc::ptr_eq(&other.node, &copy.node));
            let from = other.map_or(&copy.node, |other| &other.node);
            self.shared.pull(&copy.node, from, self.key, 0, HINT)
        });
        futures_util::future::join_all(hints).await;
    }

    /// Waits until the durable tier has the value.
    async fn wait_for_the_tier(&self) -> Result<()> {
        let plan = self.shared.plan(self.key);
        let owner = self
            .copies
            .iter()
            .find(|copy| plan.role_of(&copy.node) == Role::Owner);
        let holder = owner
            .or(self.copies.first())
            .map(|copy| Arc::clone(&copy.node));
        let Some(holder) = holder else {
            return Err(unavailable("no node has the value"));
        };
        let waiting = self.poll_until_clean(&holder);
        let waited = tokio::time::timeout(self.shared.config.timing.upload, waiting).await;
        waited.unwrap_or_else(|_| {
            Err(unavailable(
                "the durable tier has not taken the value in time",
            ))
        })
    }

    async fn poll_until_clean(&self, holder: &Arc<Node>) -> Result<()> {
        const FIRST: std::time::Duration = std::time::Duration::from_millis(5);
        const LONGEST: std::time::Duration = std::time::Duration::from_millis(250);
        let mut pause = FIRST;
        loop {
            match ask(holder, self.read(), self.shared.config.timing.first_byte).await {
                Ok(Said::Yes(hit)) if !hit.pins.dirty => return Ok(()),
                Ok(Said::Yes(_)) => {}
                Ok(Said::No(_)) => return Err(unavailable("the node lost the value")),
                Err(error) => return Err(crate::node::store_error(error)),
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST.min(pause * 2);
        }
    }
}
