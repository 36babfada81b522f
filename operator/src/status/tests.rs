//! Tests of what people are told.

use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStatus, StatefulSetStatus};
use zimcache_ring::{Change, next};

use super::*;
use crate::{
    conditions::is_true,
    crd::{NodePhase, ZimCacheSpec},
    dereference::PublishedRing,
    node_client::{GatewayReport, NodeReport, Silence},
    pods::PodView,
    ring::Seen,
    validate::tests::cache,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A cache of three nodes with which all is well, to be changed by each test.
struct Scene {
    cache: Cache,
    world: World,
    document: Document,
    step: Step,
    rollout: Rollout,
    growth: Growth,
    node_set: StatefulSet,
    gateways: Deployment,
    certificates: Result<(), String>,
    failure: Option<(&'static str, String)>,
}

fn well() -> Scene {
    let cache = cache(ZimCacheSpec::default());
    let Step::Create(document) = step(&cache, &World::default(), None) else {
        panic!("no first ring")
    };
    let mut world = World::default();
    for ordinal in 0..3 {
        let name = cache.names.pod(ordinal);
        world.nodes.push(PodView {
            name: name.clone(),
            uid: String::new(),
            revision: "a".to_owned(),
            is_ready: true,
            is_terminating: false,
            machine: None,
            ip: None,
            ring_epoch: Some(1),
            trouble: None,
        });
        let mut report = NodeReport {
            id: name.clone(),
            epoch: 1,
            ..NodeReport::default()
        };
        report.stats.capacity_bytes = 1 << 30;
        report.stats.live_bytes = 300 << 20;
        world.reports.insert(name, Ok(report));
    }
    world.ring = Some(PublishedRing {
        document: Ok(document.clone()),
        version: None,
        changed: Some(NOW),
    });
    let mut node_set = StatefulSet::default();
    node_set.metadata.generation = Some(2);
    node_set.status = Some(StatefulSetStatus {
        observed_generation: Some(2),
        ..StatefulSetStatus::default()
    });
    Scene {
        step: step(&cache, &world, Some(&document)),
        cache,
        world,
        document,
        rollout: Rollout::Done,
        growth: Growth::Settled,
        node_set,
        gateways: gateways_ready(2),
        certificates: Ok(()),
        failure: None,
    }
}

fn gateways_ready(ready: i32) -> Deployment {
    let mut gateways = Deployment::default();
    gateways.metadata.generation = Some(1);
    gateways.spec = Some(DeploymentSpec {
        replicas: Some(2),
        ..DeploymentSpec::default()
    });
    gateways.status = Some(DeploymentStatus {
        observed_generation: Some(1),
        replicas: Some(2),
        updated_replicas: Some(2),
        ready_replicas: Some(ready),
        available_replicas: Some(ready),
        ..DeploymentStatus::default()
    });
    gateways
}

fn step(cache: &Cache, world: &World, document: Option<&Document>) -> Step {
    crate::ring::next_step(&Seen {
        names: &cache.names,
        wanted: cache.spec.nodes.replicas,
        factor: 2,
        document,
        reports: &world.reports,
        zones: &world.zones,
        zone_aware: false,
        lost: &cache.lost,
        forced: &cache.forced,
        claimed: &world.claimed(),
        now_seconds: 1,
    })
}

impl Scene {
    fn status(&self) -> ZimCacheStatus {
        let seen = Observation {
            cache: &self.cache,
            world: &self.world,
            node_set: Some(&self.node_set),
            gateways: Some(&self.gateways),
            document: Some(&self.document),
            step: &self.step,
            rollout: &self.rollout,
            node_pods: self.cache.spec.nodes.replicas,
            growth: &self.growth,
            certificates: self.certificates.clone(),
            failure: self.failure.clone(),
            now: NOW,
        };
        status(&seen, &ZimCacheStatus::default())
    }

    /// The reason for which it is not ready.
    fn reason(&self) -> String {
        let status = self.status();
        let ready = status
            .conditions
            .iter()
            .find(|one| one.type_ == condition::READY)
            .unwrap();
        assert_eq!(ready.status, "False", "{ready:?}");
        assert_eq!(ready.observed_generation, Some(4));
        ready.reason.clone()
    }
}

#[test]
fn a_cache_with_which_all_is_well_is_ready_and_says_what_it_holds() {
    let mut scene = well();
    let report = GatewayReport {
        hits: 3,
        misses: 1,
        ..GatewayReport::default()
    };
    scene
        .world
        .gateway_reports
        .insert("main-gateway-x".to_owned(), Ok(report));
    let status = scene.status();
    assert_eq!(status.observed_generation, Some(4));
    assert_eq!(
        status.phase,
        Some(Phase::Running),
        "{:?}",
        status.conditions
    );
    for (kind, is_so) in [
        (condition::READY, true),
        (condition::AVAILABLE, true),
        (condition::DEGRADED, false),
        (condition::PROGRESSING, false),
        (condition::RECONCILING, false),
        (condition::STALLED, false),
        (condition::CERTIFICATES_READY, true),
    ] {
        assert_eq!(is_true(&status.conditions, kind), is_so, "{kind}");
    }
    let has = |kind| status.conditions.iter().any(|one| one.type_ == kind);
    assert!(
        !has(condition::RECONCILING)
            && !has(condition::STALLED)
            && !has(condition::DURABLE_TIER_REACHABLE)
    );
    assert_eq!((status.replicas, status.ready_replicas), (3, 3));
    assert_eq!(
        (status.capacity.as_deref(), status.hit_ratio.as_deref()),
        (Some("3Gi"), Some("75%"))
    );
    assert!(
        status
            .nodes
            .iter()
            .all(|node| node.state == NodePhase::Active)
    );
    assert!(status.selector.contains("app.kubernetes.io/component=node"));
}

#[test]
fn each_thing_that_is_not_as_specified_is_a_reason() {
    let mut scene = well();
    scene
        .world
        .secrets
        .problems
        .push("there is no Secret keys".to_owned());
    assert_eq!(scene.reason(), "SecretMissing");
    let mut scene = well();
    scene.certificates = Err("not yet".to_owned());
    assert_eq!(scene.reason(), "CertificatesNotReady");
    let mut scene = well();
    scene.rollout = Rollout::Waiting(vec!["main-node-0".to_owned()], "x".to_owned());
    assert_eq!(scene.reason(), "NodesUpdating");
    let mut scene = well();
    scene.node_set.metadata.generation = Some(3);
    assert_eq!(
        scene.reason(),
        "NodesChanging",
        "the controllers have not seen the change"
    );
    let mut scene = well();
    scene.world.nodes[1].is_ready = false;
    assert_eq!(scene.reason(), "NodesNotReady");
    let mut scene = well();
    let pod = PodView {
        name: "main-node-3".to_owned(),
        ..scene.world.nodes[0].clone()
    };
    scene.world.nodes.push(pod);
    assert_eq!(scene.reason(), "NodesNotReady", "one too many");
    let mut scene = well();
    scene.gateways = gateways_ready(1);
    assert_eq!(scene.reason(), "GatewaysNotReady");
    let mut scene = well();
    scene.world.gateway_pods.push(PodView {
        is_terminating: true,
        ..scene.world.nodes[0].clone()
    });
    assert_eq!(scene.reason(), "GatewaysNotReady", "the old one serves");
    let mut scene = well();
    scene.growth = Growth::Waiting {
        claims: vec!["data-main-node-0".to_owned()],
    };
    assert_eq!(scene.reason(), "StorageResizing");
}

#[test]
fn a_node_that_does_not_answer_is_no_full_service_but_still_serves() {
    let mut scene = well();
    scene
        .world
        .reports
        .insert("main-node-1".to_owned(), Err(Silence::Slow));
    assert_eq!(scene.reason(), "NodesNotActive");
    let status = scene.status();
    assert_eq!(status.nodes[1].state, NodePhase::Unreachable);
    assert!(is_true(&status.conditions, condition::AVAILABLE));
    assert!(is_true(&status.conditions, condition::DEGRADED));
    scene
        .world
        .reports
        .insert("main-node-2".to_owned(), Err(Silence::Slow));
    assert!(
        !is_true(&scene.status().conditions, condition::AVAILABLE),
        "both copies may be there"
    );
}

#[test]
fn a_drain_that_takes_long_is_called_blocked_and_names_whom_it_waits_for() {
    let mut scene = well();
    let ids = vec!["main-node-2".to_owned()];
    scene.document = next(&scene.document, &Change::Leave { ids }).unwrap();
    scene.cache.spec.nodes.replicas = 2;
    scene.step = step(&scene.cache, &scene.world, Some(&scene.document));
    assert_eq!(scene.reason(), "RingChanging");
    let status = scene.status();
    assert_eq!(status.phase, Some(Phase::Scaling));
    assert_eq!(status.nodes[2].state, NodePhase::Draining);
    assert!(!is_true(&status.conditions, condition::SCALE_DOWN_BLOCKED));
    scene.world.ring.as_mut().unwrap().changed = Some(Timestamp(NOW.0 - 3_600_000));
    let status = scene.status();
    assert!(is_true(&status.conditions, condition::SCALE_DOWN_BLOCKED));
    assert!(is_true(
        &status.conditions,
        condition::RING_TRANSITION_BLOCKED
    ));
    let blocked = status
        .conditions
        .iter()
        .find(|one| one.type_ == condition::SCALE_DOWN_BLOCKED)
        .unwrap();
    assert!(
        blocked.message.contains("main-node-2 cannot leave yet"),
        "{}",
        blocked.message
    );
}

#[test]
fn a_spec_that_does_not_fit_what_is_there_is_stalled() {
    let mut scene = well();
    scene.cache.spec.replication.factor = 3;
    assert_eq!(scene.reason(), "OtherReplicationFactor");
    let status = scene.status();
    assert!(is_true(&status.conditions, condition::STALLED));
    assert!(!is_true(&status.conditions, condition::RECONCILING));
    assert_eq!(status.phase, Some(Phase::Stalled));
    let problems = Problems(vec!["write less".to_owned()]);
    let status = stalled(&problems, 5, &status, NOW);
    assert!(is_true(&status.conditions, condition::STALLED));
    assert_eq!((status.observed_generation, status.replicas), (Some(5), 3));
}

#[test]
fn a_round_that_failed_is_told_and_keeps_what_was_known() {
    let before = well().status();
    let after = failed("ApiServer", "forbidden", 4, &before, NOW);
    assert!(!is_true(&after.conditions, condition::READY));
    assert!(is_true(&after.conditions, condition::AVAILABLE));
    assert_eq!(after.nodes, before.nodes);
}

#[test]
fn the_bucket_is_as_good_as_the_nodes_say() {
    let mut scene = well();
    scene.cache.spec.durable_tier =
        serde_json::from_str(r#"{"s3": {"bucket": "builds"}}"#).unwrap();
    let tier = |scene: &Scene| {
        let status = scene.status();
        let one = status
            .conditions
            .iter()
            .find(|one| one.type_ == condition::DURABLE_TIER_REACHABLE);
        one.unwrap().status.clone()
    };
    assert_eq!(tier(&scene), "Unknown");
    for (pod, report) in &mut scene.world.reports {
        report.as_mut().unwrap().tier_reachable = Some(pod != "main-node-1");
    }
    assert_eq!(tier(&scene), "False");
    assert_eq!(
        scene.status().phase,
        Some(Phase::Running),
        "nodes go on without"
    );
}
