//! The chart by Helm, and what the API server makes of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::helm::{RELEASE, Version};
use crate::kube::wait_until;
use crate::world::{CACHE, World, component};

/// The oldest Kubernetes that the chart is for.
const OLDEST: &str = "1.33.0";
/// Nodes that the values ask for.
pub(super) const NODES: u64 = 3;

pub(super) fn renders(world: &mut World) -> Result<()> {
    for version in [Version::Three, Version::Four] {
        let (chart, values) = (world.helm.chart(), world.helm.values());
        let linted = world
            .helm
            .run(version, &["lint", "--strict", &chart, "--values", &values])?;
        ensure!(linted.contains("0 chart(s) failed"), "{linted}");
        let rendered = world
            .helm
            .apply(version, "template", &["--kube-version", OLDEST])?;
        ensure!(
            rendered.contains("kind: ZimCache") && rendered.contains("name: zim-operator"),
            "{version:?} renders neither operator nor cache"
        );
    }
    Ok(())
}

pub(super) fn installs(world: &mut World) -> Result<()> {
    world.make_namespace()?;
    world.helm.apply(Version::Four, "install", &[])?;
    world.wait_until_ready(NODES)?;
    let nodes = world.kube.pods(&component("node"))?;
    let gateways = world.kube.pods(&component("gateway"))?;
    ensure!(
        nodes.len() == 3 && gateways.len() == 2,
        "{nodes:?} {gateways:?}"
    );
    let restarted = nodes.iter().chain(&gateways).find(|pod| pod.restarts > 0);
    ensure!(restarted.is_none(), "started more than once: {restarted:?}");
    Ok(())
}

/// The namespace refuses other pods already; this holds on clusters that do not look.
pub(super) fn is_restricted(world: &mut World) -> Result<()> {
    let pods = world.kube.list(&["pods"])?;
    ensure!(pods.len() >= 6, "only {} pods", pods.len());
    for pod in pods {
        let containers = pod["spec"]["containers"].as_array().context("containers")?;
        for container in containers {
            let context = &container["securityContext"];
            let (root, escalation) = (
                &context["readOnlyRootFilesystem"],
                &context["allowPrivilegeEscalation"],
            );
            ensure!(
                *root == json!(true) && *escalation == json!(false),
                "{}: {context}",
                pod["metadata"]["name"]
            );
        }
    }
    Ok(())
}

pub(super) fn helm_test_passes(world: &mut World) -> Result<()> {
    let said = world.helm.run(Version::Four, &["test", RELEASE])?;
    ensure!(said.contains("Succeeded"), "{said}");
    Ok(())
}

pub(super) fn refuses_bad_specs(world: &mut World) -> Result<()> {
    let before = world.cache()?["spec"].clone();
    for (patch, word) in [
        (json!({"spec": {"nodes": {"replicas": 0}}}), "replicas"),
        (json!({"spec": {"nodes": {"replicas": 1}}}), "replicas"),
        (
            json!({"spec": {"nodes": {"storage": {"size": "1Mi"}}}}),
            "size",
        ),
        (
            json!({"spec": {"nodes": {"storage": {"size": "much"}}}}),
            "size",
        ),
        (json!({"spec": {"replication": {"factor": 9}}}), "factor"),
    ] {
        let said = refused(world, &patch)?;
        ensure!(
            said.contains(word),
            "{patch} is refused without a word of {word}: {said}"
        );
    }
    ensure!(
        world.cache()?["spec"] == before,
        "a refused change was made"
    );
    Ok(())
}

fn refused(world: &World, patch: &Value) -> Result<String> {
    let patch = patch.to_string();
    world.kube.refused(&[
        "patch",
        "zimcache",
        CACHE,
        "--type=merge",
        "--patch",
        &patch,
    ])
}

/// Waits until nothing of the installation runs.
pub(super) fn wait_until_gone(world: &World) -> Result<()> {
    wait_until("no pod is left", Duration::from_mins(3), || {
        // Not the pod of `helm test`, which has ended.
        let pods = world
            .kube
            .list(&["pods", "--field-selector=status.phase!=Succeeded"])?;
        let names = pods.iter().map(|pod| pod["metadata"]["name"].to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        Ok((!names.is_empty()).then_some(names))
    })
    .map(drop)
}
