//! Real sccache 0.19 over the GitHub Actions cache, version 2 (Twirp, signed URLs) and version 1 (REST).
//!
//! The same service to other clients, whose programs only run inside GitHub's runners, is in `actions_cache.rs`.

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::environment::scratch;
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::sccache::{Project, Started};
use zimcache_tests::server::Serve;
use zimcache_tests::tokens::{self, Tokens};

type Variables<'a> = Vec<(&'a str, &'a str)>;

/// What GitHub's runner sets for version 2; the URL ends with a slash.
fn version_2<'a>(url: &'a str, token: &'a str) -> Variables<'a> {
    vec![
        ("SCCACHE_GHA_ENABLED", "on"),
        ("ACTIONS_CACHE_SERVICE_V2", "on"),
        ("ACTIONS_RESULTS_URL", url),
        ("ACTIONS_RUNTIME_TOKEN", token),
    ]
}

/// What older runners set.
fn version_1<'a>(url: &'a str, token: &'a str) -> Variables<'a> {
    vec![
        ("SCCACHE_GHA_ENABLED", "on"),
        ("ACTIONS_CACHE_URL", url),
        ("ACTIONS_RUNTIME_TOKEN", token),
    ]
}

fn second_hits(name: &str, variables: for<'a> fn(&'a str, &'a str) -> Variables<'a>) -> Result<()> {
    let project = Project::new()?;
    let storage = scratch("store")?;
    let server = Serve::on(&storage.path().join("store"), "2GB").start()?;
    let url = format!("{}/", server.url());
    let first = project.compile(&variables(&url, "any"))?;
    first.demand_stored(project.files())?;
    // The probe's key exists by now: a conflict that must not make the storage read-only.
    let second = project.compile(&variables(&url, "any"))?;
    ensure!(second.mode == "ReadWrite", "{} {}", second.mode, second.log);
    second.demand_hits(&first)?;
    server.stop()?;
    say(&format!(
        "sccache, {name}: {} files, 2 runs",
        project.files()
    ));
    Ok(())
}

#[test]
fn a_second_compilation_by_sccache_hits_the_actions_cache_version_2() -> Result<()> {
    let _turn = Turn::shared()?;
    second_hits("actions cache 2", version_2)
}

#[test]
fn a_second_compilation_by_sccache_hits_the_actions_cache_version_1() -> Result<()> {
    let _turn = Turn::shared()?;
    second_hits("actions cache 1", version_1)
}

#[test]
fn sccache_goes_on_when_the_actions_cache_dies_half_way_and_finds_again_what_was_stored()
-> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;
    let relay = Relay::to(server.address())?;
    let url = format!("{}/", relay.url());
    relay.stop_after("PUT", 5);
    let (first, server) = killed_half_way(&relay, &serve, server, || {
        project.compile(&version_2(&url, "any"))
    })?;
    ensure!(
        first.failed_writes <= 1,
        "more than the upload that was stopped: {}",
        first.log
    );
    let second = project.compile(&version_2(&url, "any"))?;
    ensure!(second.objects == first.objects, "the objects differ");
    ensure!(
        second.hits == first.writes,
        "{} of {} {}",
        second.hits,
        first.writes,
        second.log
    );
    project
        .compile(&version_2(&url, "any"))?
        .demand_hits(&first)?;
    server.stop()?;
    say("sccache, actions cache 2: a kill during an upload");
    Ok(())
}

#[test]
fn sccache_reads_only_from_the_actions_cache_with_a_read_only_token_and_does_not_start_with_a_wrong_one()
-> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let tokens = Tokens::in_folder(storage.path());
    let (write, read) = (
        tokens.create("team", "write")?,
        tokens.create("team", "read")?,
    );
    let serve = Serve::on(&storage.path().join("store"), "2GB").flags(&tokens.flags()?);
    let server = serve.start()?;
    let url = format!("{}/", server.url());
    let first = project.compile(&version_2(&url, &write))?;
    first.demand_stored(project.files())?;
    let reader = project.compile(&version_2(&url, &read))?;
    reader.demand_hits(&first).context("read-only")?;
    match project.start(&version_2(&url, tokens::UNKNOWN))? {
        Started::Refused(said) => ensure!(
            said.contains("401") || said.contains("PermissionDenied"),
            "{said}"
        ),
        Started::Running(_) => anyhow::bail!("sccache started with a wrong token"),
    }
    server.stop()?;
    say("sccache, actions cache 2: read-only, wrong token");
    Ok(())
}
