//! Whether every acknowledged value is on all of its owners, once everything has converged.
//!
//! The sweep alone would not see a single copy: it is read like two. Only keys are looked at about which there is no
//! doubt: put, and neither deleted nor left with an unknown outcome.

use std::collections::BTreeMap;

use zimcache_history::{Event, History, Kind, Op, Outcome};
use zimcache_member::point;
use zimcache_ring::Ring;
use zimcache_store::{RecordKey, Version};

use crate::{client, world::World};

/// What is on fewer disks than it should be, or in different versions, a line each.
pub(crate) fn missing(world: &World, history: &History) -> Vec<String> {
    let ring = Ring::new(&world.ring());
    let mut lines = Vec::new();
    for (kind, namespace, key) in history.acknowledged() {
        let about = |event: &&Event| {
            let is_here = event.namespace == namespace;
            is_here && (event.op == Op::Purge || event.kind == kind && event.key == key)
        };
        let is_doubtful = |event: &Event| match event.op {
            Op::Put => kind == Kind::Entry && event.outcome == Outcome::Unknown,
            Op::Delete | Op::Purge => event.outcome != Outcome::Failed,
            Op::Get | Op::Find => false,
        };
        if history.events.iter().filter(about).any(is_doubtful) {
            continue;
        }
        let record = client::record_key(kind, namespace, key);
        let held = held(world, &ring, &record);
        let versions: Vec<_> = held.values().collect();
        let is_whole = versions.iter().all(|it| it.is_some() && *it == versions[0]);
        if !is_whole {
            lines.push(format!("{kind:?} {namespace}/{key} is held as {held:?}"));
        }
    }
    lines
}

/// What each owner has of a record.
fn held(world: &World, ring: &Ring, record: &RecordKey) -> BTreeMap<String, Option<Version>> {
    let owners = ring.owners(point(record)).iter();
    let row = |id: &str| {
        let on_disk = world.disk(id).records().records().remove(record);
        (id.to_owned(), on_disk.map(|(head, ..)| head.version))
    };
    owners.map(|owner| row(&ring.member(*owner).id)).collect()
}
