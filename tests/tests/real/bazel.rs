//! Real Bazel 4 (package `bazel-bootstrap`) over HTTP: build, wipe, build again; the second build runs nothing.
//!
//! The workspace compiles zlib with a rule of its own, and has large, empty, loud and folder outputs.

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::bazel::{Build, Release, Workspace};
use zimcache_tests::environment::scratch;
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;

use crate::churn::Churn;
use crate::two_gateways::while_a_node_is_replaced;

const ACTIONS: u64 = Workspace::C_ACTIONS;

fn build(workspace: &Workspace, cache_url: &str) -> Result<Build> {
    workspace.build(&[format!("--remote_cache={cache_url}")])
}

fn check_first(build: &Build) -> Result<()> {
    build.demand(ACTIONS, ACTIONS)?;
    ensure!(
        build.outputs.len() > 20,
        "outputs: {:?}",
        build.outputs.keys()
    );
    Ok(())
}

fn check_second(first: &Build, second: &Build) -> Result<()> {
    second.demand_all_of(first, ACTIONS)
}

/// All cases share one workspace, because a Bazel server takes longer to start than to build this.
#[test]
fn a_second_bazel_build_hits_the_cache_also_after_a_kill_and_during_churn() -> Result<()> {
    let _turn = Turn::alone()?;
    let workspace = Workspace::of_c(Release::Debian4)?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;

    let first = build(&workspace, &server.url())?;
    check_first(&first)?;
    check_second(&first, &build(&workspace, &server.url())?).context("plain")?;

    let prefixed = format!("{}/team/linux", server.url());
    let other = build(&workspace, &prefixed)?;
    check_first(&other).context("an instance prefix is a room of its own")?;
    check_second(&other, &build(&workspace, &prefixed)?).context("with an instance prefix")?;

    server.kill_9()?;
    let server = serve.start()?;
    check_second(&first, &build(&workspace, &server.url())?).context("after kill -9")?;
    let prefixed = format!("{}/team/linux", server.url());
    check_second(&first, &build(&workspace, &prefixed)?).context("prefixed, after kill -9")?;

    let churn = Churn::start(server.address(), "bazel");
    let during = build(&workspace, &server.url()).and_then(|build| check_second(&first, &build));
    let churned = churn.finish()?;
    during.context("during churn")?;
    check_second(&first, &build(&workspace, &server.url())?).context("after churn")?;
    server.stop()?;
    say(&format!(
        "row 37, bazel: {ACTIONS} actions, 7 builds after a wipe, {} MB churned beside them",
        churned / 1_000_000
    ));
    Ok(())
}

#[test]
fn bazel_hits_through_both_gateways_of_a_cluster_while_a_node_is_killed_and_replaced() -> Result<()>
{
    let _turn = Turn::alone()?;
    let workspace = Workspace::of_c(Release::Debian4)?;
    let first = |url: &str| {
        let first = build(&workspace, url)?;
        check_first(&first).map(|()| first)
    };
    while_a_node_is_replaced(first, |url, first| {
        check_second(first, &build(&workspace, url)?)
    })
}
