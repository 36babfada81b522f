//! Tests of the decisions about the ring.

use zimcache_ring::Placement;

use super::*;
use crate::node_client::Silence;

/// A cache as it is seen, to be changed by each test.
struct Scene {
    names: Names,
    wanted: i32,
    document: Option<Document>,
    reports: NodeReports,
    zones: BTreeMap<String, String>,
    zone_aware: bool,
    lost: BTreeSet<String>,
    forced: BTreeSet<String>,
    claimed: BTreeSet<i32>,
}

impl Scene {
    /// A settled ring of so many nodes, all of which answer.
    fn of(nodes: i32) -> Scene {
        let mut scene = Scene {
            names: Names::new("main", "build"),
            wanted: nodes,
            document: None,
            reports: NodeReports::new(),
            zones: BTreeMap::new(),
            zone_aware: false,
            lost: BTreeSet::new(),
            forced: BTreeSet::new(),
            claimed: BTreeSet::new(),
        };
        scene.take();
        scene.answering(nodes, 1);
        scene
    }

    fn step(&self) -> Step {
        next_step(&Seen {
            names: &self.names,
            wanted: self.wanted,
            factor: 2,
            document: self.document.as_ref(),
            reports: &self.reports,
            zones: &self.zones,
            zone_aware: self.zone_aware,
            lost: &self.lost,
            forced: &self.forced,
            claimed: &self.claimed,
            now_seconds: 1_800_000_000,
        })
    }

    /// Does what comes next, and gives the document.
    fn take(&mut self) -> &Document {
        let document = match self.step() {
            Step::Create(document) | Step::Publish(document, _) => document,
            other => panic!("{other:?}"),
        };
        self.document.insert(document)
    }

    /// The first nodes answer, and have handed over everything for this epoch.
    fn answering(&mut self, nodes: i32, synced_epoch: u64) {
        for ordinal in 0..nodes {
            let id = self.names.pod(ordinal);
            let report = NodeReport {
                id: id.clone(),
                epoch: synced_epoch,
                synced_epoch,
                ..NodeReport::default()
            };
            self.reports.insert(id, Ok(report));
        }
    }

    fn silent(&mut self, ordinal: i32) {
        self.reports
            .insert(self.names.pod(ordinal), Err(Silence::Slow));
    }

    fn document(&self) -> &Document {
        self.document.as_ref().unwrap()
    }

    fn current(&self) -> Vec<String> {
        ids(self.document().current())
    }
}

fn ids(placement: &Placement) -> Vec<String> {
    placement
        .members
        .iter()
        .map(|member| member.id.clone())
        .collect()
}

fn pods<const N: usize>(ordinals: [i32; N]) -> Vec<String> {
    ordinals
        .map(|ordinal| format!("main-node-{ordinal}"))
        .into()
}

#[test]
fn a_new_cache_gets_a_ring_of_its_nodes_at_once() {
    let scene = Scene::of(3);
    assert_eq!(scene.document().epoch(), 1);
    assert_eq!(scene.current(), pods([0, 1, 2]));
    let member = scene.document().current().member("main-node-1").unwrap();
    assert_eq!(
        member.address.as_deref(),
        Some("https://main-node-1.main-node.build.svc:7400")
    );
    assert_eq!(scene.step(), Step::Settled);
}

#[test]
fn zones_are_waited_for_where_they_matter() {
    let mut scene = Scene::of(3);
    scene.document = None;
    scene.zone_aware = true;
    scene.zones.insert("main-node-0".to_owned(), "a".to_owned());
    assert_eq!(scene.step(), Step::Wait(Wait::Machines(pods([1, 2]))));
    for (ordinal, zone) in [(1, "b"), (2, "a")] {
        scene
            .zones
            .insert(scene.names.pod(ordinal), zone.to_owned());
    }
    let document = scene.take();
    assert_eq!(document.current().member("main-node-1").unwrap().zone, "b");
}

#[test]
fn a_ring_that_was_lost_comes_back_with_every_volume_and_a_number_nobody_has_seen() {
    let mut scene = Scene::of(3);
    scene.document = None;
    scene.wanted = 2;
    scene.claimed = [0, 1, 2, 3].into();
    let document = scene.take();
    assert_eq!(ids(document.current()), pods([0, 1, 2, 3]));
    assert_eq!(
        (document.epoch(), document.published_epoch()),
        (1_800_000_000, 1_800_000_000)
    );
}

#[test]
fn new_nodes_join_together_once_all_of_them_answer() {
    let mut scene = Scene::of(3);
    scene.wanted = 5;
    assert_eq!(scene.step(), Step::Wait(Wait::Newcomers(pods([3, 4]))));
    scene.answering(4, 1);
    assert_eq!(scene.step(), Step::Wait(Wait::Newcomers(pods([4]))));
    scene.answering(5, 1);
    scene.take();
    assert_eq!(scene.current(), pods([0, 1, 2, 3, 4]));
    assert!(scene.document().previous().is_some());
    assert_eq!(
        scene.step(),
        Step::Wait(Wait::HandOver(pods([0, 1, 2, 3, 4])))
    );
    scene.answering(5, 2);
    scene.take();
    assert!(scene.document().previous().is_none());
    assert_eq!(scene.step(), Step::Settled);
}

#[test]
fn nodes_leave_one_at_a_time_highest_first() {
    let mut scene = Scene::of(4);
    scene.wanted = 2;
    scene.take();
    assert_eq!(scene.current(), pods([0, 1, 2]));
    assert_eq!(scene.step(), Step::Wait(Wait::HandOver(pods([0, 1, 2, 3]))));
    scene.answering(4, 2);
    scene.take();
    assert!(scene.document().previous().is_none());
    scene.take();
    assert_eq!(scene.current(), pods([0, 1]));
}

#[test]
fn a_node_that_still_holds_hints_does_not_go() {
    let mut scene = Scene::of(3);
    scene.wanted = 2;
    scene.take();
    scene.answering(3, 2);
    let report = scene
        .reports
        .get_mut("main-node-2")
        .unwrap()
        .as_mut()
        .unwrap();
    report.hints = 1;
    assert_eq!(scene.step(), Step::Wait(Wait::HandOver(pods([2]))));
}

#[test]
fn a_node_that_does_not_answer_is_never_skipped() {
    let mut scene = Scene::of(3);
    scene.wanted = 2;
    scene.take();
    scene.answering(3, 2);
    scene.silent(0);
    assert_eq!(scene.step(), Step::Wait(Wait::HandOver(pods([0]))));
    scene.lost.insert("main-node-0".to_owned());
    scene.take();
    scene.take();
    assert!(
        scene.document().previous().is_none(),
        "who is declared lost is not waited for"
    );
}

#[test]
fn raising_the_number_again_lets_the_node_stay() {
    let mut scene = Scene::of(3);
    scene.wanted = 2;
    scene.take();
    scene.wanted = 3;
    assert_eq!(
        drain::pods_needed(&scene.names, 3, scene.document.as_ref()),
        3
    );
    scene.answering(3, 2);
    scene.take();
    scene.take();
    assert_eq!(scene.current(), pods([0, 1, 2]));
    scene.answering(3, 4);
    scene.take();
    assert_eq!(scene.step(), Step::Settled);
}

#[test]
fn only_an_annotation_lets_a_node_go_that_cannot_hand_over() {
    let mut scene = Scene::of(3);
    scene.forced.insert("main-node-2".to_owned());
    assert_eq!(scene.step(), Step::Settled, "it is not on its way out");
    scene.wanted = 2;
    scene.take();
    scene.answering(2, 2);
    scene.silent(2);
    scene.take();
    scene.take();
    assert!(scene.document().previous().is_none());
    assert_eq!(
        drain::pods_needed(&scene.names, 2, scene.document.as_ref()),
        2
    );
}

#[test]
fn a_lost_node_that_is_back_fills_itself_and_is_ready_then() {
    let mut scene = Scene::of(3);
    scene.silent(1);
    scene.lost.insert("main-node-1".to_owned());
    scene.take();
    scene.lost.clear();
    assert_eq!(scene.step(), Step::Settled, "it is still away");
    scene.answering(3, 1);
    let back = scene
        .reports
        .get_mut("main-node-1")
        .unwrap()
        .as_mut()
        .unwrap();
    back.catching_up = true;
    let document = scene.take();
    assert_eq!(
        document.current().member("main-node-1").unwrap().state,
        State::Joining
    );
    assert_eq!(scene.step(), Step::Settled);
    scene.answering(3, 1);
    let document = scene.take();
    assert_eq!(
        document.current().member("main-node-1").unwrap().state,
        State::Ready
    );
}
