//! Uninstalling, and a new installation of the same name.

use anyhow::{Result, ensure};

use super::install::{NODES, wait_until_gone};
use super::rollout::claims;
use crate::helm::{RELEASE, Version};
use crate::world::{CACHE, World};

pub(super) fn installs_again(world: &mut World) -> Result<()> {
    again(world, Version::Four)
}

pub(super) fn installs_again_with_helm_3(world: &mut World) -> Result<()> {
    again(world, Version::Three)
}

fn again(world: &mut World, version: Version) -> Result<()> {
    // At least something is to be found again.
    world.watching(|_| {
        std::thread::sleep(std::time::Duration::from_secs(5));
        Ok(())
    })?;
    world.clients()?.demand_everything()?;
    let before = claims(world)?;
    world.helm.run(version, &["uninstall", RELEASE, "--wait"])?;
    wait_until_gone(world)?;
    ensure!(
        !world.kube.has("zimcache", CACHE)?,
        "the cache is still there"
    );
    ensure!(claims(world)? == before, "volumes went: {before:?}");
    world.forget_gateway();
    world.helm.apply(version, "install", &[])?;
    world.wait_until_ready(NODES)?;
    world.clients()?.demand_everything().map(drop)
}
