//! Real moon 2.5.5 over gRPC with blobs as zstd: build, wipe, build again; the second build runs nothing.
//!
//! The samples and demands are those of the suite over HTTP; the client is configured as `zim setup moon-grpc` says.

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::content;
use zimcache_tests::monorepo::{FILES, TASKS};
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::tokens::{self, Tokens};

use crate::moon::{Cache, NAMESPACE, Storage, Workspace};

/// Too large for a batch, so that it goes by ByteStream.
const LARGE_BYTES: usize = 6_000_000;
/// Where the server is killed: in the large output, which does not compress.
const CUT_BYTES: u64 = 3_000_000;

/// Gives the packages the inputs of a round, with a large one.
fn set_inputs(workspace: &Workspace, round: u64) -> Result<()> {
    workspace.repo.set_inputs(round)?;
    let input = workspace.repo.package("large").join("input");
    std::fs::write(input, content::body(1_000 + round, LARGE_BYTES))?;
    Ok(())
}

#[test]
fn a_second_moon_build_over_grpc_restores_every_task_also_after_a_kill_half_way() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    set_inputs(&workspace, 0)?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    let relay = Relay::to(server.address())?;
    let url = relay.url();
    let build = || workspace.build(Cache::over_grpc(&url, "any"));

    let first = build()?;
    first.demand(0)?;
    first.demand_quiet()?;
    ensure!(first.outputs.len() == FILES, "{:?}", first.outputs);
    build()?.demand_hit(&first)?;

    set_inputs(&workspace, 1)?;
    relay.stop_after_bytes(CUT_BYTES);
    let (changed, server) = killed_half_way(&relay, &storage.serve, server, build)?;
    changed.demand(0)?;
    let again = build()?;
    ensure!(again.outputs == changed.outputs, "the outputs differ");
    again.demand_quiet()?;
    build()?.demand_hit(&changed)?;
    set_inputs(&workspace, 0)?;
    build()?
        .demand_hit(&first)
        .context("stored before the kill")?;
    server.stop()?;
    say(&format!(
        "moon over gRPC: {TASKS} tasks, 6 builds after a wipe, killed during an upload"
    ));
    Ok(())
}

#[test]
fn moon_over_grpc_with_a_read_only_token_reads_and_stores_nothing() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let write = tokens.create(NAMESPACE, "write")?;
    let read = tokens.create(NAMESPACE, "read")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    let url = server.url();

    let refused = workspace.build(Cache::over_grpc(&url, &read))?;
    refused.demand(0)?;
    let told = refused.text.contains("Failed to store blobs")
        && refused.text.contains("does not have permission");
    ensure!(told, "no word of refused writes: {}", refused.text);
    let first = workspace.build(Cache::over_grpc(&url, &write))?;
    first.demand(0).context("what was refused was stored")?;
    first.demand_quiet()?;
    workspace
        .build(Cache::over_grpc(&url, &read))?
        .demand_hit(&first)?;
    // The task's description names `.moon/workspace.yml`, so tasks configured otherwise are other tasks.
    let named = Cache::over_grpc(&url, &write).in_namespace(NAMESPACE);
    let first = workspace.build(named)?;
    first.demand(0)?;
    first.demand_quiet()?;
    workspace.build(named)?.demand_hit(&first)?;
    server.stop()?;
    say("moon over gRPC: read-only, 5 builds, 2 of them with the namespace by name");
    Ok(())
}

#[test]
fn moon_over_grpc_goes_on_without_a_cache_when_its_token_is_wrong() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let write = tokens.create(NAMESPACE, "write")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    let url = server.url();

    let first = workspace.build(Cache::over_grpc(&url, &write))?;
    first.demand(0)?;
    let wrong = workspace.build(Cache::over_grpc(&url, tokens::UNKNOWN))?;
    wrong.demand(0)?;
    let told = wrong
        .text
        .contains("Failed to connect to storage backend, disabling it")
        && wrong.text.contains("valid authentication credentials");
    ensure!(told, "no word of wrong credentials: {}", wrong.text);
    ensure!(wrong.outputs == first.outputs, "the outputs differ");
    workspace
        .build(Cache::over_grpc(&url, &write))?
        .demand_hit(&first)?;
    server.stop()?;
    say("moon over gRPC: a wrong token switches the cache off for a run");
    Ok(())
}
