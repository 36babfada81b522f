//! From the copies that were acknowledged to as many as the class asks for.
//!
//! Judged by the newest ring known at that moment, whatever ring the write began under. What is missing is fetched by
//! other nodes, one after the other; meanwhile late commits and late fetches go on, for the disks may all be slow, and
//! whichever copy comes first counts. Where there is a durable tier it takes part in that race, and while it is waited
//! for, those who failed or were passed over are asked again: under a burst a node looks lost for a moment. Invariants:
//! an owner without a copy at the end is one that was missed, for which copies carry the hint; its late commit is
//! dropped.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};
use zimcache_store::{Result, Version, Written};

use super::{
    commit::{Committed, Copy},
    fetch::{Fetched, Fetching, Value},
    late::Late,
};
use crate::{
    config::Durability,
    node::{Node, unavailable},
    shared::count,
    view::{Candidate, Plan, Role},
};

/// The copies of one value.
pub(crate) struct Quorum<'a> {
    value: Value<'a>,
    copies: Vec<Copy>,
    late: Late,
}

impl<'a> Quorum<'a> {
    pub(crate) fn new(value: Value<'a>, committed: Committed) -> Quorum<'a> {
        Quorum {
            value,
            copies: committed.copies,
            late: committed.late,
        }
    }

    /// Makes sure of as many copies as the namespace's class asks for. A higher version of the entry that a node turned
    /// out to hold: then this one will not stay.
    ///
    /// # Errors
    /// `Unavailable` when there are fewer. Those that exist stay, with the hint.
    pub(crate) async fn reach(mut self) -> Result<Option<Version>> {
        let shared = self.value.shared;
        let class = shared.durability_of(&self.value.key.namespace);
        let needs_tier = class == Durability::Bucket;
        let reached = if shared.has_tier() && !needs_tier {
            self.make_copies_or_have_the_tier(class).await
        } else {
            self.make_copies(class).await
        };
        self.late = Late::default();
        // Of a write that is refused nothing is promised.
        let longest = if reached.is_ok() || needs_tier {
            shared.config.timing.patience
        } else {
            shared.time_to_pull(0)
        };
        self.value.hint(&self.copies, longest).await;
        match reached {
            Ok(Some(higher)) => Ok(Some(higher)),
            Ok(None) | Err(_) if needs_tier => {
                let holder = self.holder();
                self.value.wait_for_the_tier(holder).await.map(|()| None)
            }
            reached => reached,
        }
    }

    /// One node and the durable tier are as good as two nodes, and whichever comes first is enough.
    async fn make_copies_or_have_the_tier(&mut self, class: Durability) -> Result<Option<Version>> {
        let tier = self.value.wait_for_the_tier(self.holder());
        let copies = self.make_copies(class);
        tokio::pin!(tier, copies);
        tokio::select! {
            biased;
            made = &mut copies => match made {
                Err(_) => tier.await.map(|()| None),
                made => made,
            },
            taken = &mut tier => match taken {
                Ok(()) => Ok(None),
                Err(_) => copies.await,
            },
        }
    }

    async fn make_copies(&mut self, class: Durability) -> Result<Option<Version>> {
        let made = tokio::time::timeout(self.value.longest(), self.add_copies(class)).await;
        made.unwrap_or_else(|_| Err(too_few()))
    }

    /// Adds copies as they come, and has further nodes fetch one, each when the one before failed or is late.
    async fn add_copies(&mut self, class: Durability) -> Result<Option<Version>> {
        let mut fetches: FuturesUnordered<Fetching<'a>> = FuturesUnordered::new();
        let mut tried: Vec<Arc<Node>> = Vec::new();
        let mut next_at = Instant::now();
        loop {
            let plan = self.value.shared.plan(self.value.key);
            if self.is_enough(&plan, class) {
                return Ok(None);
            }
            if next_at <= Instant::now() {
                let target = self.next_target(&plan, &tried);
                if target.is_none() && fetches.is_empty() && self.late.is_empty() {
                    self.begin_another_round(class)?;
                    tried.clear();
                }
                // Who is passed over may be back at the next poll.
                let mut pause = self.value.shared.config.timing.poll;
                if let Some(target) = target {
                    pause = self.value.soon();
                    tried.push(Arc::clone(&target));
                    fetches.push(self.value.fetch(target, self.sources()));
                }
                next_at = Instant::now() + pause;
            }
            let higher = tokio::select! {
                biased;
                Some((copy, result)) = self.late.next() => self.take_late(copy, result).await,
                Some((node, fetched)) = fetches.next() => self.take_fetched(node, fetched),
                () = sleep_until(next_at) => continue,
            };
            if higher.is_some() {
                return Ok(higher);
            }
            next_at = Instant::now();
        }
    }

    /// Everybody has failed or is passed over: they are asked again only where the durable tier is waited for anyway.
    fn begin_another_round(&self, class: Durability) -> Result<()> {
        if self.value.shared.has_tier() && class != Durability::Bucket {
            Ok(())
        } else {
            Err(too_few())
        }
    }

    /// Adds what a late commit came to; the higher version of the entry that its node holds.
    async fn take_late(
        &mut self,
        copy: Copy,
        result: zimcache_link::Result<Written>,
    ) -> Option<Version> {
        match result {
            Ok(written) => {
                copy.node.answered();
                self.copies.push(copy);
                let version = self.value.version?;
                (written.version > version).then_some(written.version)
            }
            Err(error) => {
                tracing::debug!(%error, "a late copy was not made");
                self.value.shared.learn_from(&error).await;
                None
            }
        }
    }

    /// Adds what a fetch came to; likewise.
    fn take_fetched(&mut self, node: Arc<Node>, fetched: Fetched) -> Option<Version> {
        match fetched {
            Fetched::Yes => {
                count(&self.value.shared.counts.stand_ins);
                self.copies.push(Copy {
                    node,
                    is_hinted: true,
                });
                None
            }
            Fetched::No => None,
            Fetched::Higher(version) => Some(version),
        }
    }

    fn is_enough(&self, plan: &Plan, class: Durability) -> bool {
        let needed = match class {
            Durability::Quorum => plan.quorum(),
            Durability::Local | Durability::Bucket => 1,
        };
        let roles = || self.copies.iter().map(|copy| plan.role_of(&copy.node));
        let counted = roles().filter(|role| *role != Role::None).count();
        counted >= needed && self.has_owner(plan)
    }

    fn has_owner(&self, plan: &Plan) -> bool {
        let mut roles = self.copies.iter().map(|copy| plan.role_of(&copy.node));
        roles.any(|role| role == Role::Owner)
    }

    fn has(&self, node: &Arc<Node>) -> bool {
        let mut copies = self.copies.iter();
        copies.any(|copy| Arc::ptr_eq(&copy.node, node))
    }

    /// Who is to fetch the next copy: an owner if none has one, else stand-ins first, for an owner has failed just now.
    /// Nobody whose commit goes on: it would get the same bytes twice.
    fn next_target(&self, plan: &Plan, tried: &[Arc<Node>]) -> Option<Arc<Node>> {
        let was_tried = |node: &Arc<Node>| tried.iter().any(|tried| Arc::ptr_eq(tried, node));
        let may = |it: &&Candidate| {
            let is_known = was_tried(&it.node) || self.has(&it.node) || self.late.is_on(&it.node);
            it.current != Role::None && it.is_usable() && !is_known
        };
        let of = |role| {
            let mut candidates = plan.candidates.iter().filter(may);
            candidates.find(|it| it.current == role)
        };
        let owner = of(Role::Owner);
        let chosen = if self.has_owner(plan) {
            of(Role::StandIn).or(owner)
        } else {
            owner
        };
        chosen.map(|candidate| Arc::clone(&candidate.node))
    }

    /// Where the value can be fetched.
    fn sources(&self) -> Vec<Arc<Node>> {
        let nodes = self.copies.iter().map(|copy| &copy.node);
        let reachable = nodes.filter(|node| node.is_reachable());
        reachable.map(Arc::clone).collect()
    }

    /// Who is asked whether the durable tier has the value.
    fn holder(&self) -> Option<Arc<Node>> {
        let plan = self.value.shared.plan(self.value.key);
        let mut copies = self.copies.iter();
        let owner = copies.find(|copy| plan.role_of(&copy.node) == Role::Owner);
        let holder = owner.or(self.copies.first());
        holder.map(|copy| Arc::clone(&copy.node))
    }
}

fn too_few() -> zimcache_store::Error {
    unavailable("too few nodes can be reached to keep the value safe")
}
