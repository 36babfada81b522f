//! Real build tools at the Service.

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::bazel::{Release, Workspace};
use zimcache_tests::report::say;

use crate::turbo;
use crate::world::World;

const ACTIONS: u64 = Workspace::C_ACTIONS;

pub(super) fn bazel_over_grpc(world: &mut World) -> Result<()> {
    bazel(&format!("--remote_cache=grpc://{}", world.gateway()?))
}

pub(super) fn bazel_over_http(world: &mut World) -> Result<()> {
    bazel(&format!(
        "--remote_cache=http://{}/ns/bazel-http",
        world.gateway()?
    ))
}

fn bazel(cache: &str) -> Result<()> {
    let workspace = Workspace::of_c(Release::Debian4)?;
    let flags = [cache];
    let first = workspace.build(&flags)?;
    first.demand(ACTIONS, ACTIONS).context("the first build")?;
    let again = workspace.build(&flags)?;
    again
        .demand_all_of(&first, ACTIONS)
        .context("the second build")?;
    say(&format!(
        "       {ACTIONS} actions, all of them hits the second time"
    ));
    Ok(())
}

pub(super) fn turborepo(world: &mut World) -> Result<()> {
    let workspace = turbo::Workspace::new()?;
    let gateway = world.gateway()?;
    let first = workspace.build(gateway)?;
    ensure!(first.cached == 0, "hits in the first build: {}", first.text);
    let again = workspace.build(gateway)?;
    ensure!(
        again.cached == turbo::TASKS,
        "not everything hit: {}",
        again.text
    );
    ensure!(first.outputs == again.outputs, "the outputs differ");
    say(&format!(
        "       {} tasks, all of them hits the second time",
        turbo::TASKS
    ));
    Ok(())
}
