//! One body to several nodes in parallel, as fast as the slowest of them takes it, unless that one stalls.
//!
//! A node that cannot take the write is replaced by a stand-in as long as the body can be sent again: before its first
//! byte, and up to [`crate::Config::kept_bytes`] of it. Later the write goes on with those that are left. Dropping a fan
//! aborts everywhere.

use std::sync::Arc;

use bytes::Bytes;
use zimcache_link::{Error, Result, Write, Writing};
use zimcache_store::{RecordHead, RecordKey, RecordOptions};

use crate::{
    gather::{Limits, Numbered, gather},
    node::{InFlight, Node, is_of_the_node},
    shared::{Shared, count},
    view::{Candidate, Plan, Role},
};

/// What is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) key: RecordKey,
    pub(crate) head: RecordHead,
    pub(crate) options: RecordOptions,
}

/// A write to several nodes.
#[derive(Debug)]
pub(crate) struct Fan {
    pub(super) shared: Arc<Shared>,
    order: Order,
    epoch: u64,
    pub(super) lanes: Vec<Lane>,
    /// Stand-ins that were not tried.
    stand_ins: Vec<Arc<Node>>,
    /// The body so far, while it can be sent again.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    pub(super) offset: u64,
    pub(super) sent: u64,
    /// An owner was missed.
    pub(super) is_incomplete: bool,
}

/// One node that takes the write.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) node: Arc<Node>,
    pub(super) is_owner: bool,
    pub(super) writing: Box<dyn Writing>,
    /// Bytes that the node has already.
    skip: u64,
    _in_flight: InFlight,
}

/// Which candidates get a write at once, and which only in place of one of them.
pub(crate) fn owners_and_stand_ins(plan: &Plan) -> (Vec<&Candidate>, Vec<Arc<Node>>) {
    let owns = |candidate: &&Candidate| candidate.is_any_owner();
    let owners = plan.candidates.iter().filter(owns).collect();
    let stands_in = |it: &&Candidate| it.current == Role::StandIn && !it.is_any_owner();
    let stand_ins = plan
        .candidates
        .iter()
        .filter(stands_in)
        .filter(|it| it.is_usable());
    (owners, stand_ins.map(|it| Arc::clone(&it.node)).collect())
}

impl Fan {
    /// Starts a write on these candidates.
    ///
    /// # Errors
    /// What a node says about the request itself; its failure when no node takes the write.
    pub(crate) async fn open(
        shared: Arc<Shared>,
        order: Order,
        epoch: u64,
        owners: Vec<&Candidate>,
        stand_ins: Vec<Arc<Node>>,
    ) -> Result<Fan> {
        let mut fan = Fan {
            kept: Some(Vec::new()),
            shared,
            order,
            epoch,
            lanes: Vec::new(),
            stand_ins,
            kept_bytes: 0,
            offset: 0,
            sent: 0,
            is_incomplete: owners.iter().any(|owner| !owner.is_usable()),
        };
        let usable = owners.iter().filter(|owner| owner.is_usable());
        let targets = usable
            .map(|it| (Arc::clone(&it.node), it.current == Role::Owner))
            .collect();
        // Previous owners are no reason for a stand-in: they do not count.
        let counted = owners
            .iter()
            .filter(|owner| owner.current == Role::Owner)
            .count();
        let mut failure = fan.add(targets).await?;
        if fan.order.options.resume_as.is_none() {
            failure = fan.replace(counted).await?.or(failure);
        }
        if fan.lanes.is_empty() {
            return Err(failure.unwrap_or_else(|| no_node("no node can be reached")));
        }
        fan.offset = fan.lanes.iter().map(|lane| lane.skip).min().unwrap_or(0);
        let offset = fan.offset;
        fan.lanes.iter_mut().for_each(|lane| lane.skip -= offset);
        if offset > 0 {
            fan.kept = None;
        }
        Ok(fan)
    }

    /// How many leading bytes every node has already.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the body so far.
    pub(crate) const fn sent(&self) -> u64 {
        self.offset + self.sent
    }

    /// Opens lanes; the last failure of a node that could not.
    async fn add(&mut self, targets: Vec<(Arc<Node>, bool)>) -> Result<Option<Error>> {
        let timing = &self.shared.config.timing;
        let limits = Limits {
            all: timing.connect,
            most: timing.patience,
        };
        let opening = targets.iter().enumerate().map(|(number, (node, _))| {
            let write = Write {
                epoch: self.epoch,
                key: self.order.key.clone(),
                head: self.order.head.clone(),
                options: self.order.options.clone(),
            };
            let opened = async move {
                (
                    number,
                    node.call(timing.patience, node.peer.write(write)).await,
                )
            };
            Box::pin(opened) as Numbered<'_, _>
        });
        let is_open = |results: &[Option<Result<Box<dyn Writing>>>]| {
            results.iter().any(|it| matches!(it, Some(Ok(_))))
        };
        let results = gather(opening, limits, is_open).await.results;
        let mut failure = None;
        for ((node, is_owner), result) in targets.into_iter().zip(results) {
            match result {
                Some(Ok(writing)) => self.lanes.push(Lane {
                    skip: writing.offset(),
                    is_owner,
                    writing,
                    _in_flight: node.enter(),
                    node,
                }),
                Some(Err(error)) if !is_of_the_node(&error) || is_stale(&error) => {
                    return Err(error);
                }
                late => {
                    let error = late.and_then(Result::err);
                    failure = Some(error.unwrap_or_else(|| late_strike(&node)));
                    self.is_incomplete = true;
                }
            }
        }
        Ok(failure)
    }

    /// Opens stand-ins until there are as many lanes as owners, and sends them what was sent so far.
    async fn replace(&mut self, owners: usize) -> Result<Option<Error>> {
        let mut failure = None;
        loop {
            let counted = self
                .lanes
                .iter()
                .filter(|lane| lane.is_owner || !self.is_previous(lane));
            let lacking = owners
                .saturating_sub(counted.count())
                .min(self.stand_ins.len());
            if lacking == 0 {
                return Ok(failure);
            }
            let Some(kept) = self.kept.clone() else {
                return Ok(failure);
            };
            let before = self.lanes.len();
            let next = self.stand_ins.drain(..lacking).map(|node| (node, false));
            let next = next.collect();
            failure = self.add(next).await?.or(failure);
            (before..self.lanes.len()).for_each(|_| count(&self.shared.counts.stand_ins));
            let mut at = before;
            while at < self.lanes.len() {
                match self.lanes[at]
                    .resend(&kept, self.shared.config.timing.patience)
                    .await
                {
                    Ok(()) => at += 1,
                    Err(error) => {
                        failure = Some(error);
                        self.lanes.remove(at);
                    }
                }
            }
        }
    }

    /// Whether a lane is there for the previous placement alone.
    fn is_previous(&self, lane: &Lane) -> bool {
        !lane.is_owner && self.shared.plan(&self.order.key).role_of(&lane.node) == Role::None
    }

    /// Sends the next bytes.
    ///
    /// # Errors
    /// What a node says about the request itself; a node's failure when no node is left.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.sent += chunk.len() as u64;
        let failure = self.send(&chunk).await?;
        if let Some(kept) = &mut self.kept {
            self.kept_bytes += chunk.len();
            kept.push(chunk);
            if self.kept_bytes > self.shared.config.kept_bytes {
                self.kept = None;
            }
        }
        let Some(failure) = failure else {
            return Ok(());
        };
        self.is_incomplete = true;
        let owners = self.shared.plan(&self.order.key).replicas;
        if self.order.options.resume_as.is_none() {
            self.replace(owners).await?;
        }
        if self.lanes.is_empty() {
            Err(failure)
        } else {
            Ok(())
        }
    }

    /// Sends bytes to all lanes and drops those that fail or stall; the last failure.
    async fn send(&mut self, chunk: &Bytes) -> Result<Option<Error>> {
        let timing = &self.shared.config.timing;
        let limits = Limits {
            all: timing.stall,
            most: timing.patience,
        };
        let sending = self.lanes.iter_mut().enumerate().map(|(number, lane)| {
            let sent = async move { (number, lane.send(chunk.clone()).await) };
            Box::pin(sent) as Numbered<'_, _>
        });
        let is_taken =
            |results: &[Option<Result<()>>]| results.iter().any(|it| matches!(it, Some(Ok(()))));
        let results = gather(sending, limits, is_taken).await.results;
        let mut failure = None;
        let lanes = std::mem::take(&mut self.lanes);
        for (lane, result) in lanes.into_iter().zip(results) {
            match result {
                Some(Ok(())) => self.lanes.push(lane),
                Some(Err(error)) if !is_of_the_node(&error) => return Err(error),
                Some(Err(error)) => {
                    lane.node.note::<()>(&Err(error.clone()));
                    self.shared.learn_from(&error).await;
                    failure = Some(error);
                }
                None => failure = Some(late_strike(&lane.node)),
            }
        }
        Ok(failure)
    }
}

impl Lane {
    /// Sends what the node does not have yet of a chunk.
    async fn send(&mut self, mut chunk: Bytes) -> Result<()> {
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let rest = chunk.split_off(skipped as usize);
        if rest.is_empty() {
            Ok(())
        } else {
            self.writing.write(rest).await
        }
    }

    async fn resend(&mut self, kept: &[Bytes], limit: std::time::Duration) -> Result<()> {
        let all = async {
            for chunk in kept {
                self.writing.write(chunk.clone()).await?;
            }
            Ok(())
        };
        let sent = tokio::time::timeout(limit, all).await;
        sent.unwrap_or_else(|_| Err(late_strike(&self.node)))
    }
}

pub(super) fn is_stale(error: &Error) -> bool {
    matches!(error, Error::StaleRing { .. })
}

/// That a node was given up because it was slow.
pub(super) fn late_strike(node: &Node) -> Error {
    node.strike();
    node.unreachable("it was too slow")
}

/// That there is no node to write to.
pub(crate) fn no_node(why: &str) -> Error {
    Error::Refused {
        code: zimcache_types::Code::Unavailable,
        message: why.into(),
    }
}
