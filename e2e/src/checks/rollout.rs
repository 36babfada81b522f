//! Changes of pods and certificates while builds go on, and changes that somebody else made.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use zimcache_tests::process::Tool;

use super::install::NODES;
use crate::kube::{Pod, condition, wait_until};
use crate::world::{CACHE, READY_LIMIT, World, component};

const NODE_SECRET: &str = "main-peer-node";
const GATEWAY_SECRET: &str = "main-peer-gateway";
/// How long the kubelet may take to show a new Secret to a pod, and the pod to use it.
const SEEN_LIMIT: Duration = Duration::from_mins(3);

fn all_pods(world: &World) -> Result<Vec<Pod>> {
    let mut pods = world.kube.pods(&component("node"))?;
    pods.extend(world.kube.pods(&component("gateway"))?);
    Ok(pods)
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.uid.clone()).collect()
}

pub(super) fn rolling_upgrade(world: &mut World) -> Result<()> {
    let before = uids(&all_pods(world)?);
    let watched = world.watching_fault("nodes are restarted", |world| {
        let patch =
            json!({"spec": {"podTemplate": {"annotations": {"e2e.zimcache.dev/round": "2"}}}});
        world.kube.patch("zimcache", CACHE, &patch)?;
        wait_until("every pod is another one", 2 * READY_LIMIT, || {
            let pods = all_pods(world)?;
            let old = pods
                .iter()
                .find(|pod| before.contains(&pod.uid) || !pod.is_ready);
            Ok(old.map(|pod| format!("{} is old or not ready", pod.name)))
        })?;
        world.wait_until_ready(NODES).map(drop)
    })?;
    watched.demand_no_errors()?;
    world.clients()?.demand_everything().map(drop)
}

pub(super) fn certificates(world: &mut World) -> Result<()> {
    let before = all_pods(world)?;
    let address = world.kube.get(&["pod", "main-node-0"])?["status"]["podIP"].clone();
    let address = address.as_str().context("the address of a pod")?.to_owned();
    let old = served_certificate(&address)?;
    let watched = world.watching(|world| {
        world
            .kube
            .run(&["delete", "secret", NODE_SECRET, GATEWAY_SECRET])?;
        wait_until("a node shows another certificate", SEEN_LIMIT, || {
            let is_old = served_certificate(&address)? == old;
            Ok(is_old.then(|| "it is the old one".to_owned()))
        })
        .map(drop)
    })?;
    watched.demand_no_errors()?;
    let after = all_pods(world)?;
    ensure!(
        uids(&before) == uids(&after),
        "pods were replaced: {after:?}"
    );
    let restarted = after.iter().find(|pod| pod.restarts > 0);
    ensure!(restarted.is_none(), "started again: {restarted:?}");
    world.wait_until_ready(NODES).map(drop)
}

/// The certificate that a node shows to whoever connects.
fn served_certificate(address: &str) -> Result<String> {
    let script = format!(
        "openssl s_client -connect {address}:7400 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
    );
    let output = Tool::new("sh", 20).args(["-c", &script]).run_ok()?;
    let fingerprint = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(fingerprint.contains('='), "no certificate at {address}");
    Ok(fingerprint)
}

/// Objects of the operator that somebody edits or removes.
pub(super) fn hands_off(world: &mut World) -> Result<()> {
    let selector = world.kube.get(&["service", "main-gateway"])?["spec"]["selector"].clone();
    world.kube.patch(
        "service",
        "main-gateway",
        &json!({"spec": {"selector": {"app.kubernetes.io/component": "nobody"}}}),
    )?;
    wait_until("the selector is what it was", READY_LIMIT, || {
        let now = world.kube.get(&["service", "main-gateway"])?["spec"]["selector"].clone();
        Ok((now != selector).then(|| now.to_string()))
    })?;
    world.kube.run(&["delete", "service", "main-node"])?;
    wait_until("the Service of the nodes is back", READY_LIMIT, || {
        let is_back = world.kube.has("service", "main-node")?;
        Ok((!is_back).then(|| "it is not".to_owned()))
    })?;
    world.wait_until_ready(NODES).map(drop)
}

/// A Secret that the spec names goes and comes back; whoever is served meanwhile is served.
pub(super) fn secret_missing(world: &mut World) -> Result<()> {
    let name = world.cache()?["spec"]["rateLimits"]["redis"]["existingSecret"]["name"].clone();
    let name = name
        .as_str()
        .context("a Secret for Redis in the spec")?
        .to_owned();
    let secret = world.kube.get(&["secret", &name])?;
    let copy = json!({
        "apiVersion": "v1", "kind": "Secret", "type": secret["type"], "data": secret["data"],
        "metadata": {
            "name": name,
            "labels": secret["metadata"]["labels"],
            "annotations": secret["metadata"]["annotations"],
        },
    });
    let watched = world.watching(|world| {
        world.kube.run(&["delete", "secret", &name])?;
        let shown = wait_until("the condition Ready names the Secret", READY_LIMIT, || {
            let cache = world.cache()?;
            let ready = condition(&cache, "Ready").context("no condition Ready")?;
            let message = ready["message"].as_str().unwrap_or_default();
            let is_shown = ready["status"] == "False" && message.contains(&name);
            Ok((!is_shown).then(|| ready.to_string()))
        })
        .and_then(|_| {
            wait_until("an event names the Secret", READY_LIMIT, || {
                let words = [
                    "get",
                    "events",
                    "--field-selector=involvedObject.kind=ZimCache",
                ];
                let events = world.kube.run(&words)?;
                Ok((!events.contains(&name)).then_some(events))
            })
        });
        world.kube.apply(&copy)?;
        world.wait_until_ready(NODES)?;
        shown.map(drop)
    })?;
    watched.demand_no_errors()
}

/// The names of the claims of nodes.
pub(super) fn claims(world: &World) -> Result<BTreeSet<String>> {
    let claims = world.kube.list(&["pvc"])?;
    let name = |claim: &Value| claim["metadata"]["name"].as_str().map(ToOwned::to_owned);
    Ok(claims
        .iter()
        .filter_map(name)
        .filter(|name| name.starts_with("data-main-node-"))
        .collect())
}
