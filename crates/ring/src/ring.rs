//! The ring of one epoch: who owns a point, in the current placement and in the previous one while it is open.
//!
//! Built once per document and never changed; a clone is a pointer. All tables use one numbering of the members of
//! both placements, which is good for this ring alone: across rings a node is known by its id.

use std::{fmt, sync::Arc};

use crate::{
    document::{Document, Member},
    key::Point,
    table::Table,
};

/// The number of a member in one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NodeIx(u16);

impl NodeIx {
    /// As an index, below [`Ring::len`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who may hold a key in one placement. All nodes in it are distinct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners<'a> {
    /// The first R, or all there are; the first of them uploads and decides.
    pub owners: &'a [NodeIx],
    /// The next two, or fewer in a small cluster: the only ones that may hold hints for the owners.
    pub stand_ins: &'a [NodeIx],
}

impl<'a> Owners<'a> {
    /// Owners, then stand-ins.
    pub fn iter(&self) -> impl Iterator<Item = NodeIx> + use<'a> {
        self.owners.iter().chain(self.stand_ins).copied()
    }
}

/// Whom a read may have to ask: owners of both placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadSet<'a> {
    /// Of the current placement, in its order.
    pub current: &'a [NodeIx],
    /// Of the previous placement, in its order; empty when it is closed.
    pub previous: &'a [NodeIx],
}

impl<'a> ReadSet<'a> {
    /// Each node once, those of the current placement first.
    pub fn iter(&self) -> impl Iterator<Item = NodeIx> + use<'a> {
        let current = self.current;
        let only_before = self
            .previous
            .iter()
            .filter(move |node| !current.contains(node));
        current.iter().chain(only_before).copied()
    }
}

/// Who owns what under one ring document.
#[derive(Clone)]
pub struct Ring(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    document: Document,
    /// Of both placements, by id; the current placement has the say.
    members: Box<[Member]>,
    current: Table,
    previous: Option<Table>,
}

impl Ring {
    /// Computes the tables of a document. A thousand nodes take some 0.1 s: not for a thread that serves.
    pub fn new(document: &Document) -> Ring {
        let members: Box<[Member]> = document.members().cloned().collect();
        let ix_of = |id: &str| {
            let before = members.partition_point(|member| *member.id < *id);
            NodeIx(before as u16)
        };
        let replicas = document.replicas() as usize;
        let table = |placement| Table::new(placement, replicas, ix_of);
        Ring(Arc::new(Tables {
            current: table(document.current()),
            previous: document.previous().map(table),
            document: document.clone(),
            members,
        }))
    }

    /// The document it was made of.
    pub fn document(&self) -> &Document {
        &self.0.document
    }

    /// The document's epoch.
    pub fn epoch(&self) -> u64 {
        self.0.document.epoch()
    }

    /// The owners of a point, of whom writes count.
    pub fn owners(&self, point: Point) -> &[NodeIx] {
        self.current(point).owners
    }

    /// Who stands in for an owner of a point.
    pub fn stand_ins(&self, point: Point) -> &[NodeIx] {
        self.current(point).stand_ins
    }

    /// Owners and stand-ins in the current placement.
    pub fn current(&self, point: Point) -> Owners<'_> {
        self.0.current.look_up(point)
    }

    /// Owners and stand-ins in the previous placement, while it is open.
    pub fn previous(&self, point: Point) -> Option<Owners<'_>> {
        let previous = self.0.previous.as_ref();
        previous.map(|table| table.look_up(point))
    }

    /// The owners of both placements.
    pub fn read_set(&self, point: Point) -> ReadSet<'_> {
        ReadSet {
            current: self.owners(point),
            previous: self.previous(point).map_or(&[], |previous| previous.owners),
        }
    }

    /// Whether a node is among the owners of a point in the current placement. What else it holds is foreign.
    pub fn owns(&self, node: NodeIx, point: Point) -> bool {
        self.owners(point).contains(&node)
    }

    /// The member of this number.
    pub fn member(&self, node: NodeIx) -> &Member {
        &self.0.members[node.index()]
    }

    /// The number of the member of this id.
    pub fn find(&self, id: &str) -> Option<NodeIx> {
        let found = self
            .0
            .members
            .binary_search_by(|member| (*member.id).cmp(id));
        found.ok().map(|ix| NodeIx(ix as u16))
    }

    /// Every member of either placement, by id.
    pub fn members(&self) -> impl Iterator<Item = (NodeIx, &Member)> {
        (0..).map(NodeIx).zip(&self.0.members)
    }

    /// How many members both placements have.
    pub fn len(&self) -> usize {
        self.0.members.len()
    }

    /// Never: no document is without members.
    pub fn is_empty(&self) -> bool {
        self.0.members.is_empty()
    }

    /// Points on the ring of the current placement.
    pub fn virtual_nodes(&self) -> usize {
        self.0.current.len()
    }

    /// What the tables of both placements hold in memory.
    pub fn memory_bytes(&self) -> usize {
        let previous = self.0.previous.as_ref().map_or(0, Table::memory_bytes);
        self.0.current.memory_bytes() + previous
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Ring");
        shown
            .field("epoch", &self.epoch())
            .field("members", &self.len());
        shown.field("is_in_transition", &self.0.previous.is_some());
        shown.finish_non_exhaustive()
    }
}
