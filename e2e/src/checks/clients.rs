//! Real build tools at the Service.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use zimcache_tests::bazel::{Release, Workspace};
use zimcache_tests::environment::scratch;
use zimcache_tests::report::say;
use zimcache_tests::tokens::{Tokens, UNKNOWN};

use super::install::NODES;
use crate::turbo;
use crate::world::{CACHE, World};

/// The Secret with the hashes of tokens.
const TOKENS: &str = "main-tokens";

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

/// With a token in a Secret, which the cache is told of: whoever shows another one is nobody.
pub(super) fn turborepo(world: &mut World) -> Result<()> {
    let folder = scratch("tokens")?;
    let token = Tokens::in_folder(folder.path()).create(turbo::TEAM, "write")?;
    let file = format!(
        "--from-file=tokens.toml={}",
        folder.path().join("tokens").display()
    );
    world
        .kube
        .run(&["create", "secret", "generic", TOKENS, &file])?;
    let patch = json!({"spec": {"auth": {"tokens": {"existingSecret": {"name": TOKENS}}}}});
    world.kube.patch("zimcache", CACHE, &patch)?;
    world.wait_until_ready(NODES)?;
    let gateway = world.gateway()?;
    let workspace = turbo::Workspace::new()?;
    let first = workspace.build(gateway, &token)?;
    ensure!(first.cached == 0, "hits in the first build: {}", first.text);
    let stranger = workspace.build(gateway, UNKNOWN)?;
    ensure!(
        stranger.cached == 0,
        "hits of a stranger: {}",
        stranger.text
    );
    let again = workspace.build(gateway, &token)?;
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
