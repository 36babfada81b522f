//! From one document to the next.

use std::collections::BTreeMap;

use proptest::prelude::*;
use zimcache_ring::{Change, Document, Member, Refusal, Ring, State, next};
use zimcache_types::Namespace;

use crate::harness::{document, ids, members, points};

fn join(id: &str) -> Change {
    let members = vec![Member::new(id)];
    Change::Join { members }
}

fn leave(id: &str) -> Change {
    let ids = vec![id.to_owned()];
    Change::Leave { ids }
}

fn mark(id: &str, state: State) -> Change {
    let id = id.to_owned();
    Change::Mark { id, state }
}

fn close(reports: &[(&str, u64)]) -> Change {
    let reports = reports.iter().map(|(id, epoch)| ((*id).to_owned(), *epoch));
    Change::ClosePrevious {
        reports: reports.collect(),
    }
}

/// Three nodes.
fn three() -> Document {
    document(2, members("node-", 3))
}

fn after(changes: &[Change]) -> Document {
    changes
        .iter()
        .fold(three(), |document, change| next(&document, change).unwrap())
}

fn states(document: &Document) -> Vec<(&str, State)> {
    document
        .members()
        .map(|member| (member.id.as_str(), member.state))
        .collect()
}

#[test]
fn who_joins_is_ready_once_everybody_has_reported() {
    let joining = after(&[join("late")]);
    assert_eq!((joining.epoch(), joining.published_epoch()), (2, 2));
    assert_eq!(
        joining.current().member("late").unwrap().state,
        State::Joining
    );
    assert_eq!(joining.previous().unwrap().members.len(), 3);
    let early = close(&[("node-0", 2), ("node-1", 1), ("late", 3)]);
    let refusal = next(&joining, &early).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the previous placement waits for node-1, node-2"
    );
    let all = close(&[("node-0", 2), ("node-1", 2), ("node-2", 5), ("late", 2)]);
    let closed = next(&joining, &all).unwrap();
    assert_eq!((closed.epoch(), closed.previous()), (3, None));
    assert_eq!(closed.published_epoch(), 2);
    assert!(
        states(&closed)
            .iter()
            .all(|(_, state)| *state == State::Ready)
    );
}

#[test]
fn who_leaves_drains_is_drained_and_is_gone() {
    let leaving = after(&[leave("node-1")]);
    assert!(leaving.current().member("node-1").is_none());
    assert_eq!(states(&leaving)[1], ("node-1", State::Draining));
    let others = close(&[("node-0", 2), ("node-2", 2)]);
    let refusal = next(&leaving, &others).unwrap_err();
    let members = vec!["node-1".to_owned()];
    assert_eq!(refusal, Refusal::Waiting { members });
    let drained = next(&leaving, &mark("node-1", State::Drained)).unwrap();
    assert_eq!((drained.epoch(), drained.published_epoch()), (3, 2));
    let closed = next(&drained, &others).unwrap();
    assert_eq!(ids_of(&closed), ["node-0", "node-2"]);
}

fn ids_of(document: &Document) -> Vec<&str> {
    document
        .members()
        .map(|member| member.id.as_str())
        .collect()
}

#[test]
fn a_new_placement_waits_until_the_previous_one_is_closed() {
    let open = after(&[join("late")]);
    let weights = BTreeMap::from([("node-0".to_owned(), 50)]);
    for change in [join("later"), leave("node-0"), Change::Reweigh { weights }] {
        assert_eq!(next(&open, &change), Err(Refusal::PreviousOpen));
    }
}

#[test]
fn a_lost_member_is_lost_in_both_placements_and_nobody_waits_for_it() {
    let document = after(&[join("late"), mark("node-2", State::Lost)]);
    assert_eq!((document.epoch(), document.published_epoch()), (3, 2));
    for placement in [document.current(), document.previous().unwrap()] {
        assert_eq!(placement.member("node-2").unwrap().state, State::Lost);
    }
    let closed = next(
        &document,
        &close(&[("node-0", 2), ("node-1", 2), ("late", 2)]),
    )
    .unwrap();
    let moved_on = next(&closed, &leave("node-2")).unwrap();
    assert_eq!(states(&moved_on)[3], ("node-2", State::Lost));
    let back = next(&moved_on, &mark("node-2", State::Draining)).unwrap();
    assert_eq!(states(&back)[3], ("node-2", State::Draining));
}

#[test]
fn a_state_moves_no_key() {
    let before = after(&[join("late")]);
    let lost = next(&before, &mark("node-0", State::Lost)).unwrap();
    let (before, lost) = (Ring::new(&before), Ring::new(&lost));
    assert!(points(1000).all(|point| before.read_set(point) == lost.read_set(point)));
}

#[test]
fn a_lost_member_that_is_back_joins_again() {
    let back = after(&[mark("node-0", State::Lost), mark("node-0", State::Joining)]);
    let ready = next(&back, &mark("node-0", State::Ready)).unwrap();
    assert_eq!((ready.epoch(), ready.published_epoch()), (4, 1));
}

#[test]
fn nobody_gets_into_a_state_by_a_way_that_does_not_exist() {
    let draining = after(&[leave("node-1")]);
    let cases = [
        (three(), "node-0", State::Joining),
        (three(), "node-0", State::Draining),
        (three(), "node-0", State::Drained),
        (draining.clone(), "node-1", State::Ready),
        (draining.clone(), "node-1", State::Joining),
        (
            after(&[mark("node-0", State::Lost)]),
            "node-0",
            State::Ready,
        ),
        (
            after(&[leave("node-1"), mark("node-1", State::Drained)]),
            "node-1",
            State::Lost,
        ),
    ];
    for (document, id, state) in cases {
        let refusal = next(&document, &mark(id, state)).unwrap_err();
        assert!(
            matches!(refusal, Refusal::State { .. }),
            "{id} {state:?}: {refusal}"
        );
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let unknown = Refusal::UnknownMember { id: "x".to_owned() };
    assert_eq!(next(&three(), &leave("x")), Err(unknown.clone()));
    assert_eq!(
        next(&three(), &mark("x", State::Lost)),
        Err(unknown.clone())
    );
    let weights = BTreeMap::from([("x".to_owned(), 1)]);
    assert_eq!(next(&three(), &Change::Reweigh { weights }), Err(unknown));
    let known = Refusal::KnownMember {
        id: "node-1".to_owned(),
    };
    assert_eq!(next(&three(), &join("node-1")), Err(known));
    assert_eq!(next(&three(), &close(&[])), Err(Refusal::NothingOpen));
    let weights = BTreeMap::from([("node-1".to_owned(), 100)]);
    assert_eq!(
        next(&three(), &Change::Reweigh { weights }),
        Err(Refusal::Unchanged)
    );
    assert_eq!(
        next(&three(), &Change::Join { members: vec![] }),
        Err(Refusal::Unchanged)
    );
    assert_eq!(
        next(&three(), &Change::Leave { ids: vec![] }),
        Err(Refusal::Unchanged)
    );
    assert_eq!(
        next(&three(), &mark("node-1", State::Ready)),
        Err(Refusal::Unchanged)
    );
    let everybody = ["node-0", "node-1", "node-2"].map(str::to_owned).to_vec();
    let refusal = next(&three(), &Change::Leave { ids: everybody }).unwrap_err();
    assert!(
        refusal.to_string().contains("current has no members"),
        "{refusal}"
    );
    let refusal = next(&three(), &join("not a name")).unwrap_err();
    assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal}");
}

#[test]
fn a_purge_raises_the_generation_of_one_namespace() {
    let namespace = Namespace::new("team/a").unwrap();
    let raise = Change::RaiseGeneration {
        namespace: namespace.clone(),
    };
    let document = after(&[raise.clone(), join("late"), raise]);
    assert_eq!(document.generation(&namespace), 2);
    assert_eq!(document.generation(&Namespace::default()), 0);
    assert_eq!((document.epoch(), document.published_epoch()), (4, 3));
}

#[test]
fn during_a_change_reads_ask_the_owners_of_both_placements_once() {
    let ring = Ring::new(&after(&[leave("node-1")]));
    let mut seen_three = false;
    for point in points(500) {
        let both = ring.read_set(point);
        let all = ids(&ring, both.iter());
        assert_eq!(both.current, ring.owners(point));
        assert_eq!(both.previous, ring.previous(point).unwrap().owners);
        assert!(
            both.previous
                .iter()
                .all(|node| both.iter().any(|each| each == *node))
        );
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        seen_three |= all.len() == 3;
    }
    assert!(seen_three);
}

/// Any change, of members that are there and of some that are not.
fn any_change() -> impl Strategy<Value = Change> {
    let id = || (0_u8..8).prop_map(|n| format!("node-{n}"));
    let state = prop::sample::select(vec![
        State::Joining,
        State::Ready,
        State::Draining,
        State::Drained,
        State::Lost,
    ]);
    prop_oneof![
        id().prop_map(|id| join(&id)),
        id().prop_map(|id| leave(&id)),
        (id(), 0_u32..300).prop_map(|(id, weight)| Change::Reweigh {
            weights: BTreeMap::from([(id, weight)]),
        }),
        (id(), state).prop_map(|(id, state)| Change::Mark { id, state }),
        prop::collection::btree_map(id(), 1_u64..40, 0..8)
            .prop_map(|reports| Change::ClosePrevious { reports }),
        Just(close(
            &[0, 1, 2, 3, 4, 5, 6, 7].map(|n| (NAMES[n], u64::MAX))
        )),
        Just(Change::RaiseGeneration {
            namespace: Namespace::default()
        }),
    ]
}

const NAMES: [&str; 8] = [
    "node-0", "node-1", "node-2", "node-3", "node-4", "node-5", "node-6", "node-7",
];

proptest! {
    /// Whatever is done in whatever order: every document is valid, epochs grow by one, a placement is replaced only
    /// while no other is open, and no more than two are ever there.
    #[test]
    fn any_series_of_changes_keeps_the_rules(changes in prop::collection::vec(any_change(), 1..40)) {
        let mut document = three();
        for change in changes {
            let Ok(new) = next(&document, &change) else { continue };
            prop_assert_eq!(new.epoch(), document.epoch() + 1);
            prop_assert_eq!(&Document::parse(&new.to_json().unwrap()).unwrap(), &new);
            if new.published_epoch() != document.published_epoch() {
                prop_assert_eq!(new.published_epoch(), new.epoch());
                prop_assert!(document.previous().is_none());
                let names = |placement: &zimcache_ring::Placement| {
                    placement.members.iter().map(|member| member.id.clone()).collect::<Vec<_>>()
                };
                prop_assert_eq!(names(new.previous().unwrap()), names(document.current()));
            }
            document = new;
        }
    }
}
