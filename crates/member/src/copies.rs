//! Telling others to pull records of ours, many at once.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use zimcache_link::Pull;
use zimcache_ring::{NodeIx, Ring};
use zimcache_store::{Pins, RecordInfo, RecordKey};

use crate::member::Inner;

/// Records of a call.
const BATCH: usize = 64;
/// Calls under way.
const CALLS: usize = 4;
/// Records of a walk's page.
pub(crate) const PAGE: usize = 256;

/// A record, and who is to hold it.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) record: RecordInfo,
    pub(crate) targets: Vec<NodeIx>,
    /// Which of the targets said that they hold it.
    pub(crate) holders: Vec<NodeIx>,
}

impl Copy {
    pub(crate) const fn new(record: RecordInfo, targets: Vec<NodeIx>) -> Copy {
        Copy {
            record,
            targets,
            holders: Vec::new(),
        }
    }

    /// Whether every target holds it.
    pub(crate) fn is_done(&self) -> bool {
        self.targets.len() == self.holders.len()
    }
}

impl Inner {
    /// Has the targets pull, and notes who holds what then.
    pub(crate) async fn copy(&self, ring: &Ring, copies: &mut [Copy]) {
        let Some((_, from)) = self.me(ring) else {
            return;
        };
        let mut by_target: BTreeMap<NodeIx, Vec<usize>> = BTreeMap::new();
        for (at, copy) in copies.iter().enumerate() {
            for target in &copy.targets {
                by_target.entry(*target).or_default().push(at);
            }
        }
        let mut calls = Vec::new();
        for (target, wanted) in by_target {
            for batch in wanted.chunks(BATCH) {
                let key = |at: &usize| (*at, copies[*at].record.key.clone());
                calls.push((target, batch.iter().map(key).collect()));
            }
        }
        let calls = calls.into_iter().map(|(target, batch)| async move {
            let held = self.offer(ring, from, target, batch).await;
            (target, held)
        });
        let held: Vec<_> = stream::iter(calls).buffer_unordered(CALLS).collect().await;
        for (target, batch) in held {
            for at in batch {
                copies[at].holders.push(target);
            }
        }
    }

    /// Which records of a batch the target holds after it was told to pull them; by their numbers.
    async fn offer(
        &self,
        ring: &Ring,
        from: &str,
        target: NodeIx,
        batch: Vec<(usize, RecordKey)>,
    ) -> Vec<usize> {
        let Some(peer) = self.peer_of(ring, target) else {
            return Vec::new();
        };
        let (numbers, keys): (Vec<usize>, _) = batch.into_iter().unzip();
        let pull = Pull {
            epoch: ring.epoch(),
            from: from.into(),
            keys,
            pins: Pins::default(),
        };
        match peer.pull(pull).await {
            Ok(held) => {
                let held = numbers.into_iter().zip(held).filter(|(_, held)| *held);
                held.map(|(at, _)| at).collect()
            }
            Err(error) => {
                let member = &ring.member(target).id;
                tracing::debug!(%error, member, "a member cannot pull what it should hold");
                Vec::new()
            }
        }
    }

    /// The owners of a record in every open placement that others wait for, without this node.
    pub(crate) fn other_owners(&self, ring: &Ring, record: &RecordInfo) -> Vec<NodeIx> {
        let me = ring.find(&self.parts.id);
        let owners = ring.read_set(crate::point(&record.key)).iter();
        let owners = owners.filter(|node| Some(*node) != me);
        owners
            .filter(|node| !ring.member(*node).state.is_gone())
            .collect()
    }
}
