//! The ring with the nodes of its members: whom a key concerns, in which role, in which order to ask.
//!
//! Never changed: a new ring is a new view, which takes over the nodes that are still where they were. Invariant: a
//! plan names each node once.

use std::sync::Arc;

use zimcache_ring::{Member, NodeIx, Owners, Ring, RingKey};
use zimcache_store::{RecordKey, RecordKind};

use crate::node::Node;

/// One ring, and the ways to its members.
#[derive(Debug)]
pub(crate) struct View {
    ring: Ring,
    /// By the numbers of the ring.
    seats: Vec<Seat>,
}

/// A member and the way to it.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) node: Arc<Node>,
    pub(crate) state: zimcache_ring::State,
}

/// What a node is to a key in one placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    None,
    /// One of the first R.
    Owner,
    /// One of the next two.
    StandIn,
}

/// A node that may hold a key.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: Arc<Node>,
    /// It is drained or lost: nobody asks it or waits for it.
    pub(crate) is_gone: bool,
    /// In the current placement.
    pub(crate) current: Role,
    /// In the previous placement.
    pub(crate) previous: Role,
}

impl Candidate {
    pub(crate) fn is_any_owner(&self) -> bool {
        self.current == Role::Owner || self.previous == Role::Owner
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.is_gone && self.node.is_reachable()
    }

    /// By what those that are read from first are found.
    fn reading_place(&self, zone: &str) -> (u8, bool, bool, u64) {
        let tier = match (self.current, self.previous) {
            (Role::Owner, _) => 0,
            (_, Role::Owner) => 1,
            _ => 2,
        };
        let node = &self.node;
        (
            tier,
            node.is_suspect(),
            *node.zone != *zone,
            node.in_flight(),
        )
    }
}

/// Whom a key concerns under one ring: owners of the current placement in their order, other owners of the previous one,
/// stand-ins.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) epoch: u64,
    pub(crate) candidates: Vec<Candidate>,
    /// Whether the previous placement is open.
    pub(crate) is_changing: bool,
    /// Owners in the current placement.
    pub(crate) replicas: usize,
    /// The node that decides about a put that wants absence: the first owner in the previous placement while that is
    /// open, else in the current one.
    pub(crate) decider: usize,
}

/// Where a key lies: owners and stand-ins in the current placement, and in the previous one while it is open. Keys
/// in the same places have the same plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Places<'a> {
    current: (&'a [NodeIx], &'a [NodeIx]),
    previous: Option<(&'a [NodeIx], &'a [NodeIx])>,
}

impl View {
    /// The view of a ring. Nodes of `before` are taken over; `connect` makes the others.
    pub(crate) fn new(
        ring: Ring,
        before: Option<&View>,
        connect: impl Fn(&Member) -> Arc<Node>,
    ) -> View {
        let known = |member: &Member| {
            let seats = &before?.seats;
            let seat = seats.iter().find(|seat| seat.node.is(member))?;
            Some(Arc::clone(&seat.node))
        };
        let seats = ring.members().map(|(_, member)| Seat {
            node: known(member).unwrap_or_else(|| connect(member)),
            state: member.state,
        });
        View {
            seats: seats.collect(),
            ring,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.ring.epoch()
    }

    pub(crate) const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// All members.
    pub(crate) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The members that are neither drained nor lost.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Node>> {
        let present = self.seats.iter().filter(|seat| !seat.state.is_gone());
        present.map(|seat| &seat.node)
    }

    /// Whom a key concerns.
    pub(crate) fn plan(&self, key: &RecordKey) -> Plan {
        self.plan_of(self.places(key))
    }

    /// Where a key lies.
    pub(crate) fn places(&self, key: &RecordKey) -> Places<'_> {
        let point = ring_key(key).point();
        let current = self.ring.current(point);
        let previous = self.ring.previous(point);
        Places {
            current: (current.owners, current.stand_ins),
            previous: previous.map(|before| (before.owners, before.stand_ins)),
        }
    }

    /// Whom keys in these places concern.
    pub(crate) fn plan_of(&self, places: Places<'_>) -> Plan {
        let owners = |(owners, stand_ins)| Owners { owners, stand_ins };
        let current = owners(places.current);
        let mut plan = Plan {
            epoch: self.epoch(),
            candidates: Vec::with_capacity(6),
            is_changing: places.previous.is_some(),
            replicas: current.owners.len(),
            decider: 0,
        };
        let before = owners(places.previous.unwrap_or_default());
        for nodes in [
            current.owners,
            before.owners,
            current.stand_ins,
            before.stand_ins,
        ] {
            for ix in nodes {
                let seat = &self.seats[ix.index()];
                if plan
                    .candidates
                    .iter()
                    .any(|known| Arc::ptr_eq(&known.node, &seat.node))
                {
                    continue;
                }
                plan.candidates.push(Candidate {
                    node: Arc::clone(&seat.node),
                    is_gone: seat.state.is_gone(),
                    current: role(*ix, current),
                    previous: role(*ix, before),
                });
            }
        }
        let first = |role: fn(&Candidate) -> Role| {
            let is_first = |it: &Candidate| role(it) == Role::Owner && !it.is_gone;
            plan.candidates.iter().position(is_first)
        };
        let of_previous = if plan.is_changing {
            first(|it| it.previous)
        } else {
            None
        };
        plan.decider = of_previous.or_else(|| first(|it| it.current)).unwrap_or(0);
        plan
    }
}

fn role(node: NodeIx, owners: Owners<'_>) -> Role {
    if owners.owners.contains(&node) {
        Role::Owner
    } else if owners.stand_ins.contains(&node) {
        Role::StandIn
    } else {
        Role::None
    }
}

/// What the ring knows of a record.
fn ring_key(key: &RecordKey) -> RingKey {
    match key.kind {
        RecordKind::Blob(_) => RingKey(key.id),
        RecordKind::Entry(kind) => RingKey::of_entry_record(&key.namespace, kind, &key.id),
    }
}

impl Plan {
    /// The candidates by their numbers, those to be read from first in front: owners before stand-ins, those that
    /// answered last time, of the own zone, with the least in flight. Those that cannot be asked are left out.
    pub(crate) fn reading_order(&self, zone: &str) -> Vec<usize> {
        let places = self.candidates.iter().enumerate();
        let usable = places.filter(|(_, candidate)| candidate.is_usable());
        let mut order: Vec<_> = usable
            .map(|(number, candidate)| (candidate.reading_place(zone), number))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, number)| number).collect()
    }

    /// Copies that make a quorum.
    pub(crate) fn quorum(&self) -> usize {
        self.replicas.min(2)
    }

    /// What a node is to the key in the current placement.
    pub(crate) fn role_of(&self, node: &Arc<Node>) -> Role {
        let found = self
            .candidates
            .iter()
            .find(|known| Arc::ptr_eq(&known.node, node));
        found.map_or(Role::None, |candidate| candidate.current)
    }
}
