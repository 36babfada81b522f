//! Which nodes follow a place on the ring: the owners and stand-ins of one virtual node after the other.
//!
//! The rule: the next node clockwise, then always the next node clockwise of a zone that has given the fewest so far,
//! as long as that zone has another one. So owners lie in distinct zones where there are as many, and the stand-ins
//! make up for the zone of any owner they replace. With a single zone this is the next distinct nodes.
//!
//! Computed by walking the ring backwards once round to learn what lies ahead, and once more to write it down: for
//! every zone the next distinct nodes, and which zone comes next. Both lists are cut at the width of the result, because
//! whatever lies behind that can never be in it.

use crate::ring::NodeIx;

/// A node, and when the walk met it last; later is nearer.
#[derive(Debug, Clone, Copy)]
struct Met {
    node: NodeIx,
    step: usize,
}

/// What lies ahead of the walk.
#[derive(Debug)]
struct Walk<'a> {
    /// The zone of each node.
    zone_of: &'a [u16],
    /// The next distinct nodes of each zone, nearest first.
    ahead: Vec<Vec<Met>>,
    /// The next distinct zones, nearest first.
    zones: Vec<u16>,
    width: usize,
}

/// For each virtual node, the `width` nodes that follow from it on. `nodes` are the nodes of the virtual nodes in ring
/// order; `zone_of` has the zone of each node, numbered from 0. There are at least `width` distinct nodes.
pub(crate) fn lists(nodes: &[NodeIx], zone_of: &[u16], width: usize) -> Box<[NodeIx]> {
    let zones = zone_of
        .iter()
        .max()
        .map_or(0, |last| usize::from(*last) + 1);
    let mut walk = Walk {
        zone_of,
        ahead: vec![Vec::with_capacity(width + 1); zones],
        zones: Vec::with_capacity(width + 1),
        width,
    };
    let mut lists = vec![NodeIx::default(); nodes.len() * width].into_boxed_slice();
    let backwards = || nodes.iter().rev();
    backwards()
        .zip(0..)
        .for_each(|(node, step)| walk.pass(*node, step));
    let mut row = Vec::with_capacity(width);
    let filled = backwards()
        .zip(nodes.len()..)
        .zip(lists.rchunks_exact_mut(width.max(1)));
    for ((node, step), list) in filled {
        walk.pass(*node, step);
        walk.write(list, &mut row);
    }
    lists
}

impl Walk<'_> {
    fn pass(&mut self, node: NodeIx, step: usize) {
        let zone = self.zone_of[node.index()];
        let ahead = &mut self.ahead[usize::from(zone)];
        bring_to_front(ahead, self.width, Met { node, step }, |met| {
            met.node == node
        });
        bring_to_front(&mut self.zones, self.width, zone, |known| *known == zone);
    }

    /// Round by round, one node of every zone that has another, nearest first.
    fn write(&self, list: &mut [NodeIx], row: &mut Vec<Met>) {
        let mut written = 0;
        for round in 0..list.len() {
            row.clear();
            let zones = self
                .zones
                .iter()
                .map(|zone| &self.ahead[usize::from(*zone)]);
            row.extend(zones.filter_map(|ahead| ahead.get(round)));
            row.sort_unstable_by_key(|met| std::cmp::Reverse(met.step));
            for (place, met) in list[written..].iter_mut().zip(&*row) {
                *place = met.node;
                written += 1;
            }
            if written == list.len() {
                return;
            }
        }
    }
}

/// Puts the item first; what it was before goes, and so does whatever no longer fits.
fn bring_to_front<T>(list: &mut Vec<T>, limit: usize, item: T, is_same: impl Fn(&T) -> bool) {
    if let Some(at) = list.iter().position(is_same) {
        list.remove(at);
    }
    list.insert(0, item);
    list.truncate(limit);
}
