//! Who leaves, and when its pod may go: pure.
//!
//! One node at a time, highest number first: (1) a placement without it, in which it serves reads and takes no blobs;
//! (2) it hands over what it has; (3) it says so; (4) only then the StatefulSet gets smaller. Raising the number wanted
//! cancels: the pod stays, and joins again when the placement is closed. Invariants: the StatefulSet is never smaller
//! than what the ring needs; nothing but an annotation makes a node go that has not handed over.

use std::collections::BTreeSet;

use zimcache_ring::{Change, Document, Member, State};

use crate::{names::Names, ring::Seen};

/// The next node to leave, if one is to and none is on its way, and why, for people.
pub(crate) fn leaving(seen: &Seen<'_>, document: &Document) -> Option<(Change, String)> {
    if document.previous().is_some() {
        return None;
    }
    let highest = surplus(seen.names, seen.wanted, document)
        .max_by_key(|(ordinal, _)| *ordinal)?
        .1;
    let ids = vec![highest.id.clone()];
    Some((Change::Leave { ids }, format!("{} is to leave", highest.id)))
}

/// Members of the current placement that the spec does not want.
fn surplus<'a>(
    names: &'a Names,
    wanted: i32,
    document: &'a Document,
) -> impl Iterator<Item = (i32, &'a Member)> {
    let numbered = document.current().members.iter();
    numbered
        .filter_map(|member| Some((names.ordinal(&member.id)?, member)))
        .filter(move |(ordinal, _)| *ordinal >= wanted)
}

/// How many pods there have to be: those wanted, and those that the ring still needs.
pub fn pods_needed(names: &Names, wanted: i32, document: Option<&Document>) -> i32 {
    let members = document.into_iter().flat_map(Document::members);
    let needed = members.filter(|member| member.state != State::Drained);
    let ordinals = needed.filter_map(|member| names.ordinal(&member.id));
    ordinals.map(|ordinal| ordinal + 1).fold(wanted, i32::max)
}

/// Members that are on their way out.
pub fn draining(document: &Document) -> impl Iterator<Item = &Member> {
    document
        .members()
        .filter(|member| member.state == State::Draining)
}

/// Draining nodes that have reported, but still hold what an owner may lack.
pub(crate) fn holding_back(seen: &Seen<'_>, document: &Document) -> BTreeSet<String> {
    let published = document.published_epoch();
    let holds = |member: &&Member| {
        let report = seen.report(&member.id);
        report.is_some_and(|report| !report.has_handed_over(published))
    };
    draining(document)
        .filter(holds)
        .map(|member| member.id.clone())
        .collect()
}

/// Whether people want this node gone, whatever is on it. Only for one that drains: nobody else is on its way out.
pub(crate) fn is_forced(seen: &Seen<'_>, document: &Document, id: &str) -> bool {
    seen.forced.contains(id) && draining(document).any(|member| member.id == id)
}

#[cfg(test)]
mod tests {
    use zimcache_ring::next;

    use super::*;

    fn ring(nodes: i32) -> Document {
        let names = Names::new("main", "build");
        let members = (0..nodes)
            .map(|ordinal| Member::new(names.pod(ordinal)))
            .collect();
        Document::first(2, members).unwrap()
    }

    #[test]
    fn there_are_as_many_pods_as_the_spec_wants_and_as_the_ring_needs() {
        let names = Names::new("main", "build");
        assert_eq!(pods_needed(&names, 3, None), 3);
        let four = ring(4);
        assert_eq!(pods_needed(&names, 2, Some(&four)), 4);
        assert_eq!(pods_needed(&names, 5, Some(&four)), 5);
        let ids = vec!["main-node-3".to_owned()];
        let leaving = next(&four, &Change::Leave { ids }).unwrap();
        assert_eq!(
            pods_needed(&names, 2, Some(&leaving)),
            4,
            "it still hands over"
        );
        let reports = leaving
            .members()
            .map(|member| (member.id.clone(), 9))
            .collect();
        let left = next(&leaving, &Change::ClosePrevious { reports }).unwrap();
        assert_eq!(pods_needed(&names, 2, Some(&left)), 3);
    }

    #[test]
    fn a_lost_node_keeps_its_place_in_the_middle() {
        let names = Names::new("main", "build");
        let id = "main-node-1".to_owned();
        let lost = next(
            &ring(3),
            &Change::Mark {
                id,
                state: State::Lost,
            },
        )
        .unwrap();
        assert_eq!(pods_needed(&names, 3, Some(&lost)), 3);
    }
}
