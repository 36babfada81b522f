//! Whoever keeps the ring: lets nodes join and leave, changes weights, closes placements when all have reported.

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt as _, rngs::StdRng};
use turmoil::Sim;
use zimcache_ring::{Change, Document, State, next};

use crate::{
    bug::Bug,
    node,
    plan::pick,
    random::generator,
    world::{World, node_name, ring_member},
};

/// The most changes of a run.
const MOST_CHANGES: u64 = 2;

/// The operator.
pub(crate) struct Operator {
    world: Arc<World>,
    random: StdRng,
    /// When the next changes are due, in microseconds, the next one last.
    due: Vec<u64>,
    /// Nodes that ever were.
    nodes: u64,
    /// The window of the change under way.
    window: Option<usize>,
}

impl Operator {
    pub(crate) fn new(world: Arc<World>) -> Operator {
        let mut random = generator(world.plan.seed, "operator");
        let mut due = Vec::new();
        if world.plan.has_ring_changes {
            let work = u64::try_from(world.plan.work.as_micros()).unwrap();
            let changes = random.random_range(1..=MOST_CHANGES);
            due = (0..changes)
                .map(|_| random.random_range(0..work * 3 / 4))
                .collect();
            due.sort_unstable();
            due.reverse();
        }
        Operator {
            nodes: world.plan.nodes,
            world,
            random,
            due,
            window: None,
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_done(&self) -> bool {
        self.window.is_none()
    }

    /// Starts no more changes; one under way is finished.
    pub(crate) fn stop(&mut self) {
        self.due.clear();
    }

    /// Looks what there is to do.
    pub(crate) fn look(&mut self, sim: &mut Sim<'_>, now: u64) {
        let ring = self.world.ring();
        if ring.previous().is_some() {
            self.close(sim, &ring, now);
        } else if self.due.last().is_some_and(|due| *due <= now) {
            self.due.pop();
            self.change(sim, &ring, now);
        }
    }

    fn change(&mut self, sim: &mut Sim<'_>, ring: &Document, now: u64) {
        let members: Vec<String> = ring.members().map(|member| member.id.clone()).collect();
        let one = pick(&mut self.random, &members).clone();
        let change = match self.random.random_range(0..4) {
            0..2 if members.len() > 3 => Change::Leave { ids: vec![one] },
            2 => Change::Reweigh {
                weights: BTreeMap::from([(one, 250)]),
            },
            _ => {
                let name = node_name(self.nodes);
                self.nodes += 1;
                start(sim, &self.world, &name);
                Change::Join {
                    members: vec![ring_member(&name)],
                }
            }
        };
        if let Ok(document) = next(ring, &change) {
            let what = format!("{change:?}");
            self.window = Some(self.world.journal.fault_begins(&what, false, now));
            self.world.publish(document);
        }
    }

    fn close(&mut self, sim: &mut Sim<'_>, ring: &Document, now: u64) {
        let members = self.world.members().into_iter();
        let is_early = self.world.bug == Some(Bug::ClosesPreviousEarly);
        let reports = members.map(|(id, member)| {
            let synced = member.standing().synced_epoch;
            (id, if is_early { u64::MAX } else { synced })
        });
        let close = Change::ClosePrevious {
            reports: reports.collect(),
        };
        let Ok(closed) = next(ring, &close) else {
            return;
        };
        let leavers = ring
            .members()
            .filter(|member| member.state == State::Draining);
        for leaver in leavers {
            sim.crash(leaver.id.as_str());
            self.world.crashed(&leaver.id);
            self.world.lose_disk(&leaver.id);
        }
        self.world.publish(closed);
        if let Some(window) = self.window.take() {
            self.world.journal.fault_ends(window, now);
        }
    }
}

/// Starts a node for the first time.
pub(crate) fn start(sim: &mut Sim<'_>, world: &Arc<World>, name: &str) {
    let (world, id) = (Arc::clone(world), name.to_owned());
    sim.host(name, move || node::run(Arc::clone(&world), id.clone()));
}
