//! What fails in life: processes, disks, the bucket, machines.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::install::NODES;
use super::scale::scale;
use crate::kube::{condition, is_true, wait_until};
use crate::world::{READY_LIMIT, World, component};

/// How long clients work while something is away.
const AWAY: Duration = Duration::from_secs(15);
const REACHABLE: &str = "DurableTierReachable";
/// How long a condition may take to show what is so.
const SHOWN_LIMIT: Duration = Duration::from_mins(2);

pub(super) fn operator_killed(world: &mut World) -> Result<()> {
    let watched = world.watching(|world| {
        scale(world, NODES + 1)?;
        world.kill_pods(&component("operator"))?;
        world.wait_until_ready(NODES + 1)?;
        scale(world, NODES)?;
        // While a node hands over.
        std::thread::sleep(Duration::from_secs(2));
        world.kill_pods(&component("operator"))?;
        world.wait_until_ready(NODES).map(drop)
    })?;
    watched.demand_no_errors()?;
    world.clients()?.demand_everything().map(drop)
}

pub(super) fn node_killed(world: &mut World) -> Result<()> {
    let name = "main-node-0";
    let before = world.kube.get(&["pod", name])?["metadata"]["uid"].clone();
    let watched = world.watching_fault("a node is killed", |world| {
        world
            .kube
            .run(&["delete", "pod", name, "--grace-period=0", "--force"])?;
        wait_until("another pod is ready", READY_LIMIT, || {
            let now = world.kube.get(&["pod", name])?;
            let is_back = now["metadata"]["uid"] != before && is_true(&now, "Ready");
            Ok((!is_back).then(|| "it is not".to_owned()))
        })?;
        std::thread::sleep(AWAY);
        world.wait_until_ready(NODES).map(drop)
    })?;
    watched.demand_no_errors()?;
    world.clients()?.demand_everything().map(drop)
}

pub(super) fn volume_lost(world: &mut World) -> Result<()> {
    let (claim, pod) = ("data-main-node-1", "main-node-1");
    let uid = |world: &World| -> Result<Value> {
        Ok(world.kube.get(&["pvc", claim])?["metadata"]["uid"].clone())
    };
    let before = uid(world)?;
    let watched = world.watching_fault("a disk is lost", |world| {
        world.kube.run(&["delete", "pvc", claim, "--wait=false"])?;
        world
            .kube
            .run(&["delete", "pod", pod, "--grace-period=0", "--force"])?;
        wait_until("there is another volume", READY_LIMIT, || {
            let is_ready = is_true(&world.kube.get(&["pod", pod])?, "Ready");
            let is_new = uid(world)? != before;
            Ok((!is_new || !is_ready).then(|| format!("new: {is_new}, ready: {is_ready}")))
        })?;
        std::thread::sleep(AWAY);
        world.wait_until_ready(NODES).map(drop)
    })?;
    watched.demand_no_errors()?;
    world.clients()?.demand_everything().map(drop)
}

pub(super) fn bucket_away(world: &mut World) -> Result<()> {
    let servers = world
        .kube
        .list(&["statefulset", "--selector", &component("s3")])?;
    let server = servers.first().context("no S3 server")?;
    let server = server["metadata"]["name"]
        .as_str()
        .context("its name")?
        .to_owned();
    let watched = world.watching_without_deletions(|world| {
        world
            .kube
            .run(&["scale", "statefulset", &server, "--replicas=0"])?;
        wait_for_reachable(world, "False")?;
        std::thread::sleep(AWAY);
        world
            .kube
            .run(&["scale", "statefulset", &server, "--replicas=1"])?;
        wait_for_reachable(world, "True")
    })?;
    watched.demand_no_errors()?;
    wait_until("everything is in the bucket", READY_LIMIT, || {
        let cache = world.cache()?;
        let nodes = cache["status"]["nodes"]
            .as_array()
            .context("nodes of the status")?;
        let dirty: u64 = nodes.iter().filter_map(|node| node["dirty"].as_u64()).sum();
        Ok((dirty > 0).then(|| format!("{dirty} records are not")))
    })?;
    world.wait_until_ready(NODES).map(drop)
}

fn wait_for_reachable(world: &World, wanted: &str) -> Result<()> {
    wait_until(&format!("{REACHABLE} is {wanted}"), SHOWN_LIMIT, || {
        let cache = world.cache()?;
        let is = condition(&cache, REACHABLE).map(|found| found["status"].clone());
        Ok((is != Some(wanted.into())).then(|| format!("it is {is:?}")))
    })
    .map(drop)
}

/// The second machine goes, with every pod on it; the clients are on the first one.
pub(super) fn power_cut(world: &mut World) -> Result<()> {
    let machine = "n2";
    let victims = world.kube.pods("app.kubernetes.io/instance=main")?;
    let victims = victims.iter().filter(|pod| pod.machine == machine).count();
    ensure!(victims > 0, "nothing runs on {machine}");
    let _watched = world.watching_fault("a machine without power", |world| {
        let machines = world.machines.as_ref().context("no machines")?;
        machines.cut_power(machine)?;
        wait_until("the cache is degraded", READY_LIMIT, || {
            let is_ready = is_true(&world.cache()?, "Ready");
            Ok(is_ready.then(|| "it is ready".to_owned()))
        })?;
        machines.switch_on(machine)?;
        world.wait_until_ready(NODES).map(drop)
    })?;
    world.clients()?.demand_everything().map(drop)
}
