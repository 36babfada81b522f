//! Real moon 2.5.5 over HTTP: build, wipe, build again; the second build runs nothing and restores every byte.
//!
//! moon never fails a build over its cache. It speaks JSON where Bazel speaks protocol buffers, so the second build also
//! shows that action results come back as they were sent. The client is configured as `zim setup moon` says.

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
use zimcache_tests::setup::Setup;
use zimcache_tests::tokens::{self, Tokens};

const VERSION: &str = "2.5.5";
const BUILD_SECONDS: u32 = 120;
pub(crate) const NAMESPACE: &str = "acme";
const WORKSPACE: &str = "projects: ['packages/*']\ntelemetry: false\n";
const REMOTE_HIT: &str = "cached from remote";

/// Which cache a build uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache<'a> {
    /// What `zim setup` calls this kind of client.
    tool: &'a str,
    url: &'a str,
    token: &'a str,
    namespace: Option<&'a str>,
}

impl<'a> Cache<'a> {
    /// The token says which namespace is meant.
    fn new(url: &'a str, token: &'a str) -> Cache<'a> {
        Cache {
            tool: "moon",
            url,
            token,
            namespace: None,
        }
    }

    /// The same over gRPC.
    pub(crate) fn over_grpc(url: &'a str, token: &'a str) -> Cache<'a> {
        Cache {
            tool: "moon-grpc",
            ..Cache::new(url, token)
        }
    }

    /// The same with the namespace by name.
    pub(crate) fn in_namespace(self, name: &'a str) -> Cache<'a> {
        Cache {
            namespace: Some(name),
            ..self
        }
    }
}

pub(crate) struct Workspace {
    pub(crate) repo: Monorepo,
    program: PathBuf,
}

/// What one build did.
pub(crate) struct Build {
    remote_hits: u64,
    pub(crate) text: String,
    pub(crate) outputs: BTreeMap<PathBuf, String>,
}

impl Workspace {
    pub(crate) fn new() -> Result<Workspace> {
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
        workspace.repo.commit()?;
        Ok(workspace)
    }

    /// Configures the client and gives what its environment needs.
    fn moon(&self, cache: Cache<'_>) -> Result<Tool> {
        let setup = Setup::of(cache.tool, cache.url, cache.token, cache.namespace)?;
        setup.append_to(&self.repo.root(), WORKSPACE)?;
        let tool = self.repo.tool(&self.program, BUILD_SECONDS);
        Ok(setup.env(tool).env("MOON_TELEMETRY", "false").args([
            "run",
            ":build",
            "--concurrency",
            "2",
        ]))
    }

    /// Wipes everything local and builds; moon has to succeed.
    pub(crate) fn build(&self, cache: Cache<'_>) -> Result<Build> {
        self.repo.wipe(&[".moon/cache"])?;
        let text = said(&self.moon(cache)?.run_ok()?);
        Ok(Build {
            remote_hits: text.matches(REMOTE_HIT).count() as u64,
            outputs: self.repo.outputs()?,
            text,
        })
    }
}

impl Build {
    pub(crate) fn demand(&self, remote_hits: u64) -> Result<()> {
        ensure!(
            self.remote_hits == remote_hits,
            "{} remote hits, not {remote_hits}: {}",
            self.remote_hits,
            self.text
        );
        Ok(())
    }

    pub(crate) fn demand_quiet(&self) -> Result<()> {
        ensure!(!self.text.contains("WARN"), "trouble: {}", self.text);
        Ok(())
    }

    pub(crate) fn demand_hit(&self, first: &Build) -> Result<()> {
        self.demand(TASKS)?;
        ensure!(self.outputs == first.outputs, "the outputs differ");
        self.demand_quiet()
    }
}

pub(crate) struct Storage {
    pub(crate) folder: TempDir,
    pub(crate) serve: Serve,
}

impl Storage {
    pub(crate) fn new() -> Result<Storage> {
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
    let url = relay.url();
    let build = || workspace.build(Cache::new(&url, "any"));

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
    let url = server.url();

    let refused = workspace.build(Cache::new(&url, &read))?;
    refused.demand(0)?;
    ensure!(refused.text.contains("403 Forbidden"), "{}", refused.text);
    let first = workspace.build(Cache::new(&url, &write))?;
    first.demand(0).context("what was refused was stored")?;
    first.demand_quiet()?;
    workspace
        .build(Cache::new(&url, &read))?
        .demand_hit(&first)?;
    // The task's description names `.moon/workspace.yml`, so tasks configured otherwise are other tasks.
    let named = Cache::new(&url, &write).in_namespace(NAMESPACE);
    let first = workspace.build(named)?;
    first.demand(0)?;
    first.demand_quiet()?;
    workspace.build(named)?.demand_hit(&first)?;
    server.stop()?;
    say("moon: read-only, 5 builds, 2 of them with the namespace by name");
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
    let url = server.url();

    let first = workspace.build(Cache::new(&url, &write))?;
    first.demand(0)?;
    let wrong = workspace.build(Cache::new(&url, tokens::UNKNOWN))?;
    wrong.demand(0)?;
    ensure!(wrong.text.contains("401 Unauthorized"), "{}", wrong.text);
    ensure!(wrong.outputs == first.outputs, "the outputs differ");
    workspace
        .build(Cache::new(&url, &write))?
        .demand_hit(&first)?;
    server.stop()?;
    say("moon: a wrong token switches the cache off for a run");
    Ok(())
}
