//! The table of one placement: a lookup on the `hashring` crate gives a virtual node, whose row has the nodes.
//!
//! The crate's own way to several nodes, `get_with_replicas`, copies the whole ring per call and gives one node twice;
//! it must never be called. The crate does not hash here either: what it stores and what it is asked for are points
//! already, and the hasher passes them through.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};

use hashring::HashRing;

use crate::{
    document::Placement,
    key::Point,
    points,
    ring::{NodeIx, Owners},
    successors,
};

/// Stand-ins per key: the only nodes that may hold hints for an owner.
const STAND_INS: usize = 2;

/// A place of a node on the ring.
#[derive(Debug, Clone, Copy)]
struct VirtualNode {
    point: u64,
    /// Its row in the table.
    row: u32,
}

/// Only the point: the row follows from it.
impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.point);
    }
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Passes the one number it is given through.
#[derive(Debug, Clone, Copy, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    /// The last 8 bytes as a number; points come by `write_u64` alone.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |number, byte| number << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, point: u64) {
        self.0 = point;
    }
}

impl BuildHasher for Identity {
    type Hasher = Identity;

    fn build_hasher(&self) -> Identity {
        Identity(0)
    }
}

/// Who owns what in one placement.
pub(crate) struct Table {
    ring: HashRing<VirtualNode, Identity>,
    /// Owners and stand-ins, a row for each virtual node.
    rows: Box<[NodeIx]>,
    width: usize,
    owners: usize,
}

impl Table {
    /// The table of a placement; `ix_of` gives each member its number, in the order of the ids.
    pub(crate) fn new(
        placement: &Placement,
        replicas: usize,
        ix_of: impl Fn(&str) -> NodeIx,
    ) -> Table {
        let members = placement
            .members
            .iter()
            .map(|member| (ix_of(&member.id), member));
        let members: Vec<_> = members.collect();
        let zone_of = zones(
            members
                .iter()
                .map(|(ix, member)| (*ix, member.zone.as_str())),
        );
        let places = members
            .iter()
            .flat_map(|(ix, member)| points::of(member).map(|point| (point, *ix)));
        let mut places: Vec<(u64, NodeIx)> = places.collect();
        // Equal points: the smaller id, which has the smaller number, keeps the place.
        places.sort_unstable();
        places.dedup_by_key(|(point, _)| *point);
        let nodes: Vec<NodeIx> = places.iter().map(|(_, node)| *node).collect();
        let width = (replicas + STAND_INS).min(members.len());
        let virtual_nodes = places.iter().zip(0..);
        let virtual_nodes =
            virtual_nodes.map(|((point, _), row)| VirtualNode { point: *point, row });
        let mut ring = HashRing::with_hasher(Identity::default());
        ring.batch_add(virtual_nodes.collect());
        Table {
            ring,
            rows: successors::lists(&nodes, &zone_of, width),
            width,
            owners: replicas.min(members.len()),
        }
    }

    pub(crate) fn look_up(&self, point: Point) -> Owners<'_> {
        let row = self.ring.get(&point).map_or(0, |found| found.row as usize);
        let row = &self.rows[row * self.width..][..self.width];
        let (owners, stand_ins) = row.split_at(self.owners);
        Owners { owners, stand_ins }
    }

    /// Virtual nodes.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// What the table holds in memory: the ring keeps a point of its own beside each virtual node.
    pub(crate) fn memory_bytes(&self) -> usize {
        let place = size_of::<u64>() + size_of::<VirtualNode>();
        self.ring.len() * place + size_of_val(&*self.rows)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Table");
        shown.field("virtual_nodes", &self.ring.len());
        shown
            .field("width", &self.width)
            .field("owners", &self.owners);
        shown.finish_non_exhaustive()
    }
}

/// The zone of each node as a number; nodes of the other placement stay in zone 0, where nobody asks for them.
fn zones<'a>(members: impl Iterator<Item = (NodeIx, &'a str)>) -> Vec<u16> {
    let mut numbers = std::collections::BTreeMap::new();
    let mut zone_of = Vec::new();
    for (ix, zone) in members {
        let new = numbers.len() as u16;
        let number = *numbers.entry(zone).or_insert(new);
        if zone_of.len() <= ix.index() {
            zone_of.resize(ix.index() + 1, 0);
        }
        zone_of[ix.index()] = number;
    }
    zone_of
}
