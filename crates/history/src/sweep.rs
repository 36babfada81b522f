//! The rules of the final sweep: every acknowledged key is asked for through every gateway, answered, and alike.

use std::collections::{BTreeMap, HashSet};

use crate::{Event, History, Kind, Op, Outcome, Rule, Violation};

/// What a call is about.
type Place<'a> = (Kind, &'a str, &'a str);

/// Everything that is wrong about the sweep; nothing when there was none.
pub(crate) fn check(history: &History, found: &mut Vec<Violation>) {
    let reads = history.events.iter();
    let reads = reads.filter(|event| event.sweep && event.op == Op::Get);
    let mut by_key: BTreeMap<_, Vec<&Event>> = BTreeMap::new();
    for read in reads {
        if matches!(read.outcome, Outcome::Failed | Outcome::Unknown) {
            found.push(Violation::new(Rule::Unreadable, read, None));
        }
        by_key.entry(read.place()).or_default().push(read);
    }
    if by_key.is_empty() {
        return;
    }
    let puts = history.events.iter().filter(|event| event.op == Op::Put);
    let unknown: HashSet<_> = puts
        .filter(|put| put.outcome == Outcome::Unknown)
        .map(|put| (put.place(), &put.value))
        .collect();
    for reads in by_key.values() {
        let purges = history.events.iter().filter(|event| event.op == Op::Purge);
        let last =
            purges.filter(|purge| reads.iter().any(|read| purge.namespace == read.namespace));
        let last = last.max_by_key(|purge| purge.invoked);
        // A purge that failed halfway leaves pieces.
        if last.is_none_or(|purge| purge.outcome != Outcome::Unknown) {
            found.extend(disagreement(reads, &unknown));
        }
    }
    let mut asked = HashSet::new();
    for put in &history.events {
        let is_first = put.op == Op::Put && put.outcome == Outcome::Ok && asked.insert(put.place());
        if !is_first {
            continue;
        }
        let reads = by_key.get(&put.place()).map_or(&[][..], Vec::as_slice);
        let gateways: HashSet<u32> = reads.iter().map(|read| read.gateway).collect();
        if (0..history.limits.gateways).any(|gateway| !gateways.contains(&gateway)) {
            found.push(Violation::new(Rule::Unswept, put, None));
        }
    }
}

/// Two answers about one entry that differ. A blob whose deletion failed halfway may be on some nodes only, and so may a
/// value whose put was never acknowledged: it is seen through one gateway before it is through the other.
fn disagreement<'a>(
    reads: &[&'a Event],
    unknown: &HashSet<(Place<'a>, &'a Option<String>)>,
) -> Option<Violation> {
    let answered = |read: &&&Event| {
        let is_known = !unknown.contains(&(read.place(), &read.value));
        is_known && matches!(read.outcome, Outcome::Ok | Outcome::Absent)
    };
    let mut answers = reads.iter().filter(answered);
    let first = answers.next().filter(|read| read.kind == Kind::Entry)?;
    let other = answers.find(|read| read.value != first.value || read.outcome != first.outcome)?;
    Some(Violation::new(
        Rule::Disagreement,
        other,
        Some((*first).clone()),
    ))
}
