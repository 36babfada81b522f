//! What the product is named for: another number of nodes by one word, while builds go on.

use anyhow::{Result, ensure};
use zimcache_tests::report::say;

use super::install::NODES;
use crate::world::{CACHE, World, component};

/// Asks for another number of nodes as a user does.
pub(super) fn scale(world: &World, nodes: u64) -> Result<()> {
    let replicas = format!("--replicas={nodes}");
    world
        .kube
        .run(&["scale", "zimcache", CACHE, &replicas])
        .map(drop)
}

pub(super) fn three_four_two(world: &mut World) -> Result<()> {
    world.clients()?;
    let watched = world.watching(|world| {
        for nodes in [4, 2] {
            scale(world, nodes)?;
            world.wait_until_ready(nodes)?;
            let pods = world.kube.pods(&component("node"))?;
            let staying = pods.iter().filter(|pod| !pod.is_leaving).count();
            ensure!(
                staying as u64 == nodes,
                "{staying} pods instead of {nodes}: {pods:?}"
            );
            let restarted = pods.iter().find(|pod| pod.restarts > 0);
            ensure!(restarted.is_none(), "started more than once: {restarted:?}");
        }
        Ok(())
    })?;
    watched.demand_no_errors()?;
    world.clients()?.demand_everything()?;
    scale(world, NODES)?;
    let took = world.wait_until_ready(NODES)?;
    say(&format!(
        "       back to {NODES} nodes in {:.1} s",
        took.as_secs_f64()
    ));
    world.clients()?.demand_everything().map(drop)
}
