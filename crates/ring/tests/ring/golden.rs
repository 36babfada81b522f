//! Golden vectors: what hash "v1" gives, computed by a second implementation in another language.

use std::collections::BTreeMap;

use zimcache_ring::{Document, Member, Point, Ring, RingKey};
use zimcache_types::{EntryKey, EntryKind, Namespace};

use crate::harness::{document, ids, members};

const VECTORS: &str = include_str!("fixtures/v1.txt");

/// The fields of every line of this name.
fn lines(name: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = VECTORS
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    lines.filter(move |fields| fields[0] == name)
}

fn cases() -> BTreeMap<&'static str, Document> {
    let zoned = |zones: &[(u32, &str)]| -> Vec<Member> {
        let member = |(n, (weight, zone)): (usize, &(u32, &str))| Member {
            weight: *weight,
            zone: (*zone).to_owned(),
            ..Member::new(format!("n{n}"))
        };
        zones.iter().enumerate().map(member).collect()
    };
    let weights = [
        (100, "a"),
        (50, "b"),
        (200, "c"),
        (100, "a"),
        (1, "b"),
        (300, "a"),
        (100, ""),
    ];
    let uneven = [
        (100, "a"),
        (100, "a"),
        (100, "a"),
        (100, "a"),
        (100, "a"),
        (100, "b"),
    ];
    let mut only = Member::new("only");
    (only.weight, only.zone) = (1, "a".to_owned());
    let mut fifty = members("zimcache-node-", 50);
    for (n, member) in fifty.iter_mut().enumerate() {
        member.zone = format!("zone-{}", n % 3);
    }
    BTreeMap::from([
        ("one", document(2, vec![only])),
        ("three", document(2, members("node-", 3))),
        ("four", document(2, members("node-", 4))),
        ("weights", document(3, zoned(&weights))),
        ("uneven", document(3, zoned(&uneven))),
        ("fifty", document(2, fifty)),
    ])
}

#[test]
fn owners_and_stand_ins_are_the_golden_ones() {
    let rings: BTreeMap<_, _> = cases()
        .into_iter()
        .map(|(name, document)| (name, Ring::new(&document)))
        .collect();
    let mut checked = 0;
    for fields in lines("place") {
        let [_, case, point, owners, _, stand_ins] = fields[..] else {
            panic!("{fields:?}");
        };
        let ring = &rings[case];
        let point = Point(u64::from_str_radix(point, 16).unwrap());
        let found = ring.current(point);
        assert_eq!(
            ids(ring, found.owners.to_vec()).join(","),
            owners,
            "{fields:?}"
        );
        assert_eq!(
            ids(ring, found.stand_ins.to_vec()).join(","),
            stand_ins,
            "{fields:?}"
        );
        checked += 1;
    }
    assert_eq!(checked, 6 * 40);
}

/// A key on a virtual node belongs to its member, whoever else is there. A wrong hash is right by luck every other time.
#[test]
fn virtual_nodes_lie_at_the_golden_points() {
    let mut checked = 0;
    for fields in lines("point") {
        let [_, id, _, point] = fields[..] else {
            panic!("{fields:?}");
        };
        let point = u64::from_str_radix(point, 16).unwrap();
        let ring = Ring::new(&document(1, vec![Member::new(id), Member::new("other")]));
        assert_eq!(
            ids(&ring, ring.owners(Point(point)).to_vec()),
            [id],
            "{fields:?}"
        );
        checked += 1;
    }
    assert_eq!(checked, 36);
}

#[test]
fn keys_of_entries_are_the_golden_ones() {
    let mut checked = 0;
    for fields in lines("entry") {
        let [_, namespace, kind, generation, text, expected] = fields[..] else {
            panic!("{fields:?}");
        };
        let kind = match kind {
            "ActionResult" => EntryKind::ActionResult,
            "Gradle" => EntryKind::Gradle,
            _ => EntryKind::Nx,
        };
        let key = EntryKey::new(Namespace::new(namespace).unwrap(), kind, text).unwrap();
        let found = RingKey::of_entry(&key, generation.parse().unwrap());
        let bytes = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&expected[at..at + 2], 16));
        let expected: Vec<u8> = bytes.collect::<Result<_, _>>().unwrap();
        assert_eq!(found.0[..], expected, "{fields:?}");
        checked += 1;
    }
    assert_eq!(checked, 5);
}

/// The document's own form is frozen too: old gateways read what a new operator writes.
#[test]
fn the_json_form_is_the_golden_one() {
    let json = include_str!("fixtures/transition.json");
    let document = Document::parse(json).unwrap();
    assert_eq!(document.to_json().unwrap(), json);
    assert_eq!((document.epoch(), document.published_epoch()), (9, 7));
    let namespace = Namespace::new("team/a").unwrap();
    assert_eq!(document.generation(&namespace), 3);
    assert_eq!(document.generation(&Namespace::default()), 0);
}
