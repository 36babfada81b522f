//! Real sccache 0.19 over WebDAV: compile, start anew, compile again; nothing is compiled.
//!
//! sccache asks for `.sccache_check` when it starts and refuses to run if the answer is neither a hit nor a miss; then it
//! writes it, and goes on read-only if it may not.

use anyhow::{Context as _, Result, ensure};
use zimcache_tests::environment::scratch;
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::sccache::{Project, Started};
use zimcache_tests::server::{Serve, Server};
use zimcache_tests::tokens::{self, Tokens};

fn endpoint(server: &Server) -> String {
    format!("{}/webdav", server.url())
}

#[test]
fn a_second_compilation_by_sccache_hits_over_webdav_also_after_a_kill_half_way() -> Result<()> {
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;
    let first = project.compile(&[("SCCACHE_WEBDAV_ENDPOINT", &endpoint(&server))])?;
    first.demand_stored(project.files())?;
    let second = project.compile(&[("SCCACHE_WEBDAV_ENDPOINT", &endpoint(&server))])?;
    second.demand_hits(&first)?;

    // In another folder nothing is known, and the server dies under the fifth upload after the probe's.
    let relay = Relay::to(server.address())?;
    let through = format!("{}/webdav", relay.url());
    let killed = [
        ("SCCACHE_WEBDAV_ENDPOINT", through.as_str()),
        ("SCCACHE_WEBDAV_KEY_PREFIX", "/killed"),
    ];
    relay.stop_after("PUT", 5);
    let (during, server) = killed_half_way(&relay, &serve, server, || project.compile(&killed))?;
    ensure!(during.objects == first.objects, "the objects differ");
    ensure!(
        during.failed_writes <= 1,
        "more than the upload that was stopped: {}",
        during.log
    );
    let after = project.compile(&killed)?;
    ensure!(after.objects == first.objects, "the objects differ");
    ensure!(
        after.hits == during.writes,
        "{} of {}",
        after.hits,
        during.writes
    );
    project.compile(&killed)?.demand_hits(&first)?;
    server.stop()?;
    say(&format!(
        "sccache, webdav: {} files, 5 runs, a kill",
        project.files()
    ));
    Ok(())
}

#[test]
fn sccache_reads_only_over_webdav_with_a_read_only_token_and_does_not_start_with_a_wrong_one()
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
    let endpoint = endpoint(&server);
    let bearer = |token| {
        [
            ("SCCACHE_WEBDAV_ENDPOINT", endpoint.as_str()),
            ("SCCACHE_WEBDAV_TOKEN", token),
        ]
    };
    let basic = |token| {
        [
            ("SCCACHE_WEBDAV_ENDPOINT", endpoint.as_str()),
            ("SCCACHE_WEBDAV_USERNAME", "sccache"),
            ("SCCACHE_WEBDAV_PASSWORD", token),
        ]
    };

    let early = project
        .compile(&bearer(&read))
        .context("read-only, empty cache")?;
    ensure!(early.mode == "ReadOnly", "{} {}", early.mode, early.log);
    early.demand_compiled_only(&early)?;
    let first = project.compile(&bearer(&write))?;
    ensure!(first.mode == "ReadWrite", "{} {}", first.mode, first.log);
    first.demand_stored(project.files())?;
    project
        .compile(&basic(&write))?
        .demand_hits(&first)
        .context("basic")?;
    let reader = project.compile(&basic(&read))?;
    ensure!(reader.mode == "ReadOnly", "{} {}", reader.mode, reader.log);
    reader.demand_hits(&first).context("read-only")?;
    match project.start(&bearer(tokens::UNKNOWN))? {
        Started::Refused(said) => ensure!(
            said.contains("401") || said.contains("PermissionDenied"),
            "{said}"
        ),
        Started::Running(_) => anyhow::bail!("sccache started with a wrong token"),
    }
    server.stop()?;
    say(
        "sccache, webdav: Bearer and Basic, read-only on an empty and on a full cache, wrong token",
    );
    Ok(())
}
