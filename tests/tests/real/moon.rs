//! Real moon 2.5.5 over HTTP: build, wipe, build again; the second build runs nothing and restores every byte.
//!
//! moon never fails a build over its cache. It speaks JSON where Bazel speaks protocol buffers, so the second build also
//! shows that action results come back as they were sent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use zimcache_tests::environment::scratch;
use zimcache_tests::monorepo::{FILES, Monorepo, PACKAGES, TASKS, npm_tool};
use zimcache_tests::process::{Tool, said};
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::tokens::{self, Tokens};

const VERSION: &str = "2.5.5";
const BUILD_SECONDS: u32 = 120;
const NAMESPACE: &str = "acme";
const REMOTE_HIT: &str = "cached from remote";

struct Workspace {
    repo: Monorepo,
    program: PathBuf,
}

/// What one build did.
struct Build {
    remote_hits: u64,
    text: String,
    outputs: BTreeMap<PathBuf, String>,
}

impl Workspace {
    fn new() -> Result<Workspace> {
        let repo = Monorepo::new("moon")?;
        for name in PACKAGES {
            let others = PACKAGES
                .iter()
                .filter(|other| name == "report" && **other != name);
            let others: Vec<String> = others.map(|other| format!("{other}:build")).collect();
            let task = format!(
                "tasks:\n  build:\n    command: 'sh build.sh {name}'\n    toolchain: system\n    \
                 inputs: [input, build.sh]\n    outputs: [dist]\n    deps: {others:?}\n"
            );
            repo.write(&format!("packages/{name}/moon.yml"), &task)?;
        }
        let workspace = Workspace {
            program: npm_tool("moon", VERSION, "@moonrepo/core-linux-x64-gnu/moon")?,
            repo,
        };
        workspace.configure("http://127.0.0.1:9")?;
        workspace.repo.commit()?;
        Ok(workspace)
    }

    /// Without an instance name, the token says which namespace is meant.
    fn configure(&self, url: &str) -> Result<()> {
        let config = format!(
            "projects: ['packages/*']\ntelemetry: false\nremote:\n  api: http\n  host: '{url}'\n  \
             auth: {{ token: ZIMCACHE_TOKEN }}\n  cache: {{ instanceName: '' }}\n"
        );
        self.repo.write(".moon/workspace.yml", &config)
    }

    fn moon(&self, token: &str) -> Tool {
        self.repo
            .tool(&self.program, BUILD_SECONDS)
            .env("MOON_TELEMETRY", "false")
            .env("ZIMCACHE_TOKEN", token)
            .args(["run", ":build", "--concurrency", "2"])
    }

    /// Wipes everything local and builds; moon has to succeed.
    fn build(&self, token: &str) -> Result<Build> {
        self.repo.wipe(&[".moon/cache"])?;
        let text = said(&self.moon(token).run_ok()?);
        Ok(Build {
            remote_hits: text.matches(REMOTE_HIT).count() as u64,
            outputs: self.repo.outputs()?,
            text,
        })
    }
}

impl Build {
    fn demand(&self, remote_hits: u64) -> Result<()> {
        ensure!(
            self.remote_hits == remote_hits,
            "{} remote hits, not {remote_hits}: {}",
            self.remote_hits,
            self.text
        );
        Ok(())
    }

    fn demand_quiet(&self) -> Result<()> {
        ensure!(!self.text.contains("WARN"), "trouble: {}", self.text);
        Ok(())
    }

    fn demand_hit(&self, first: &Build) -> Result<()> {
        self.demand(TASKS)?;
        ensure!(self.outputs == first.outputs, "the outputs differ");
        self.demand_quiet()
    }
}

struct Storage {
    folder: TempDir,
    serve: Serve,
}

impl Storage {
    fn new() -> Result<Storage> {
        let folder = scratch("store")?;
        let serve = Serve::on(&folder.path().join("store"), "1GB");
        Ok(Storage { folder, serve })
    }
}

#[test]
fn a_second_moon_build_restores_every_task_also_after_a_kill_half_way() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    let relay = Relay::to(server.address())?;
    workspace.configure(&relay.url())?;
    let build = || workspace.build("any");

    let first = build()?;
    first.demand(0)?;
    first.demand_quiet()?;
    ensure!(first.outputs.len() == FILES, "{:?}", first.outputs);
    build()?.demand_hit(&first)?;

    workspace.repo.set_inputs(1)?;
    relay.stop_after("PUT", 3);
    let (changed, server) = killed_half_way(&relay, &storage.serve, server, build)?;
    changed.demand(0)?;
    let again = build()?;
    ensure!(again.outputs == changed.outputs, "the outputs differ");
    again.demand_quiet()?;
    build()?.demand_hit(&changed)?;
    workspace.repo.set_inputs(0)?;
    build()?
        .demand_hit(&first)
        .context("stored before the kill")?;
    server.stop()?;
    say(&format!(
        "moon: {TASKS} tasks, 6 builds after a wipe, killed during an upload"
    ));
    Ok(())
}

#[test]
fn moon_with_a_read_only_token_reads_and_stores_nothing() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let write = tokens.create(NAMESPACE, "write")?;
    let read = tokens.create(NAMESPACE, "read")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    workspace.configure(&server.url())?;

    let refused = workspace.build(&read)?;
    refused.demand(0)?;
    ensure!(refused.text.contains("403 Forbidden"), "{}", refused.text);
    let first = workspace.build(&write)?;
    first.demand(0).context("what was refused was stored")?;
    first.demand_quiet()?;
    workspace.build(&read)?.demand_hit(&first)?;
    server.stop()?;
    say("moon: read-only, 3 builds");
    Ok(())
}

#[test]
fn moon_goes_on_without_a_cache_when_its_token_is_wrong() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let write = tokens.create(NAMESPACE, "write")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    workspace.configure(&server.url())?;

    let first = workspace.build(&write)?;
    first.demand(0)?;
    let wrong = workspace.build(tokens::UNKNOWN)?;
    wrong.demand(0)?;
    ensure!(wrong.text.contains("401 Unauthorized"), "{}", wrong.text);
    ensure!(wrong.outputs == first.outputs, "the outputs differ");
    workspace.build(&write)?.demand_hit(&first)?;
    server.stop()?;
    say("moon: a wrong token switches the cache off for a run");
    Ok(())
}
