//! Real Turborepo 2.11.11: build, wipe, build again; the second build runs nothing and restores every byte.
//!
//! Turborepo never fails a build over its cache, so what a case demands is how many tasks were cached. Local caches are
//! wiped before every build. The client is configured as `zim setup turbo` says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use zimcache_tests::certificate::Certificates;
use zimcache_tests::environment::scratch;
use zimcache_tests::monorepo::{FILES, Monorepo, PACKAGES, TASKS, npm_tool};
use zimcache_tests::process::{Tool, said};
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::setup::Setup;
use zimcache_tests::tokens::{self, Tokens};

use crate::two_gateways::while_a_node_is_replaced;

const VERSION: &str = "2.11.11";
const BUILD_SECONDS: u32 = 120;
const TEAM: &str = "acme";
const KEY: &str = "a key of more than thirty-two bytes to sign with";

/// Which cache a build uses.
#[derive(Debug, Clone, Copy)]
struct Cache<'a> {
    url: &'a str,
    token: &'a str,
    team: &'a str,
}

impl<'a> Cache<'a> {
    fn new(url: &'a str, token: &'a str) -> Cache<'a> {
        Cache {
            url,
            token,
            team: TEAM,
        }
    }
}

struct Workspace {
    repo: Monorepo,
    program: PathBuf,
}

/// What one build did.
struct Build {
    cached: u64,
    text: String,
    outputs: BTreeMap<PathBuf, String>,
}

impl Workspace {
    fn new() -> Result<Workspace> {
        let repo = Monorepo::new("turbo")?;
        let mut locked = serde_json::Map::new();
        for name in PACKAGES {
            let needed = PACKAGES
                .iter()
                .filter(|other| name == "report" && **other != name);
            let needed: BTreeMap<&str, &str> = needed.map(|other| (*other, "1.0.0")).collect();
            let manifest = json!({"name": name, "version": "1.0.0", "dependencies": needed,
                                  "scripts": {"build": format!("sh build.sh {name}")}});
            repo.write(
                &format!("packages/{name}/package.json"),
                &manifest.to_string(),
            )?;
            let link = json!({"resolved": format!("packages/{name}"), "link": true});
            locked.insert(format!("node_modules/{name}"), link);
            locked.insert(format!("packages/{name}"), manifest);
        }
        let root = json!({"name": "sample", "private": true, "packageManager": "npm@10.8.2",
                          "workspaces": ["packages/*"]});
        repo.write("package.json", &root.to_string())?;
        let lock = json!({"name": "sample", "lockfileVersion": 3, "packages": locked});
        repo.write("package-lock.json", &lock.to_string())?;
        // Otherwise what npm says about itself becomes part of a task's output.
        std::fs::write(repo.home().join(".npmrc"), "update-notifier=false\n")?;
        let workspace = Workspace {
            program: npm_tool("turbo", VERSION, "@turbo/linux-64/bin/turbo")?,
            repo,
        };
        workspace.configure(false)?;
        workspace.repo.commit()?;
        Ok(workspace)
    }

    fn configure(&self, signature: bool) -> Result<()> {
        let config = json!({
            "remoteCache": {"signature": signature},
            "tasks": {"build": {"dependsOn": ["^build"], "outputs": ["dist/**"]}},
        });
        self.repo.write("turbo.json", &config.to_string())
    }

    fn turbo(&self, cache: Cache<'_>) -> Result<Tool> {
        let tool = self.repo.tool(&self.program, BUILD_SECONDS);
        let setup = Setup::of("turbo", cache.url, cache.token, Some(cache.team))?;
        Ok(setup
            .env(tool)
            .env("TURBO_TELEMETRY_DISABLED", "1")
            .env("DO_NOT_TRACK", "1")
            .args(["run", "build", "--concurrency=2"]))
    }

    fn build(&self, cache: Cache<'_>) -> Result<Build> {
        self.build_by(self.turbo(cache)?)
    }

    /// Wipes everything local and builds; turbo has to succeed.
    fn build_by(&self, turbo: Tool) -> Result<Build> {
        self.repo.wipe(&[".turbo", "node_modules"])?;
        let text = said(&turbo.run_ok()?);
        let cached = cached_in(&text).with_context(|| format!("no count of hits: {text}"))?;
        Ok(Build {
            cached,
            outputs: self.repo.outputs()?,
            text,
        })
    }

    /// The tasks that a dry run expects to read from the server.
    fn dry_run(&self, cache: Cache<'_>) -> Result<usize> {
        self.repo.wipe(&[".turbo", "node_modules"])?;
        let output = self.turbo(cache)?.args(["--dry=json"]).run_ok()?;
        let plan: Value = serde_json::from_slice(&output.stdout)?;
        let tasks = plan["tasks"].as_array().context("the tasks of a dry run")?;
        let remote = |task: &&Value| task["cache"]["remote"] == true;
        Ok(tasks.iter().filter(remote).count())
    }
}

/// The count of a line such as `Cached:    2 cached, 5 total`.
fn cached_in(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("Cached:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

impl Build {
    fn demand(&self, cached: u64) -> Result<()> {
        ensure!(
            self.cached == cached,
            "{} tasks cached, not {cached}: {}",
            self.cached,
            self.text
        );
        Ok(())
    }

    fn demand_quiet(&self) -> Result<()> {
        let about_cache = |line: &&str| line.contains("WARNING") && line.contains("cache");
        let warning = self.text.lines().find(about_cache);
        ensure!(warning.is_none(), "trouble with the cache: {}", self.text);
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
fn a_second_turbo_build_restores_every_task_also_after_a_kill_half_way() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    let relay = Relay::to(server.address())?;
    let url = relay.url();
    let cache = Cache::new(&url, "any");

    let first = workspace.build(cache)?;
    first.demand(0)?;
    first.demand_quiet()?;
    ensure!(first.outputs.len() == FILES, "{:?}", first.outputs);
    workspace.build(cache)?.demand_hit(&first)?;

    workspace.repo.set_inputs(1)?;
    let build = || workspace.build(cache);
    relay.stop_after("PUT", 1);
    let (changed, server) = killed_half_way(&relay, &storage.serve, server, build)?;
    changed.demand(0)?;
    let again = workspace.build(cache)?;
    ensure!(again.outputs == changed.outputs, "the outputs differ");
    again.demand_quiet()?;
    workspace.build(cache)?.demand_hit(&changed)?;
    workspace.repo.set_inputs(0)?;
    let kept = workspace.build(cache)?;
    kept.demand_hit(&first).context("stored before the kill")?;
    server.stop()?;
    say(&format!(
        "turbo: {TASKS} tasks, 6 builds after a wipe, killed during an upload"
    ));
    Ok(())
}

#[test]
fn turbo_with_a_read_only_token_reads_and_stores_nothing() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let write = tokens.create(TEAM, "write")?;
    let read = tokens.create(TEAM, "read")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    let url = server.url();

    let refused = workspace.build(Cache::new(&url, &read))?;
    refused.demand(0)?;
    let warnings = refused.text.matches("rejected an upload with 403").count();
    ensure!(warnings == 1, "{warnings} warnings: {}", refused.text);
    let first = workspace.build(Cache::new(&url, &write))?;
    first.demand(0).context("what was refused was stored")?;
    first.demand_quiet()?;
    let read_only = workspace.build(Cache::new(&url, &read))?;
    read_only.demand_hit(&first)?;
    let by_flag = workspace.turbo(Cache::new(&url, &read))?;
    let by_flag = by_flag.args(["--cache=local:rw,remote:r"]);
    workspace.build_by(by_flag)?.demand_hit(&first)?;

    workspace.repo.set_inputs(1)?;
    let by_flag = workspace.turbo(Cache::new(&url, &read))?;
    let by_flag = workspace.build_by(by_flag.args(["--cache=local:rw,remote:r"]))?;
    by_flag.demand(0)?;
    by_flag.demand_quiet().context("it uploads nothing")?;
    server.stop()?;
    say("turbo: read-only by token and by flag, 5 builds");
    Ok(())
}

#[test]
fn turbo_builds_without_a_cache_when_its_token_is_wrong() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let write = tokens.create(TEAM, "write")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    let url = server.url();

    let first = workspace.build(Cache::new(&url, &write))?;
    first.demand(0)?;
    let wrong = workspace.build(Cache::new(&url, tokens::UNKNOWN))?;
    wrong.demand(0).context("a token nobody made reads")?;
    ensure!(wrong.outputs == first.outputs, "the outputs differ");
    ensure!(wrong.text.contains("401"), "it goes unseen: {}", wrong.text);
    workspace
        .build(Cache::new(&url, &write))?
        .demand_hit(&first)?;
    server.stop()?;
    say("turbo: a wrong token is a miss");
    Ok(())
}

#[test]
fn turbo_teams_do_not_see_each_other() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let ours = tokens.create(TEAM, "write")?;
    let theirs = tokens.create("other", "write")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    let url = server.url();
    let ours = Cache::new(&url, &ours);
    let theirs = Cache {
        url: &url,
        token: &theirs,
        team: "other",
    };
    let intruder = Cache {
        team: TEAM,
        ..theirs
    };

    let first = workspace.build(ours)?;
    first.demand(0)?;
    workspace
        .build(intruder)?
        .demand(0)
        .context("an intruder")?;
    let other = workspace.build(theirs)?;
    other.demand(0).context("another team's artifacts")?;
    other.demand_quiet()?;
    workspace.build(ours)?.demand_hit(&first)?;
    workspace.build(theirs)?.demand_hit(&first)?;
    server.stop()?;
    say("turbo: two teams, 5 builds");
    Ok(())
}

#[test]
fn turbo_signs_asks_before_it_calls_and_plans_with_remote_hits() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    let url = server.url();
    let cache = Cache::new(&url, "any");

    ensure!(workspace.dry_run(cache)? == 0, "a hit in an empty cache");
    let preflight = || {
        let turbo = workspace.turbo(cache)?;
        workspace.build_by(turbo.env("TURBO_PREFLIGHT", "true"))
    };
    let first = preflight()?;
    first.demand(0)?;
    first.demand_quiet()?;
    preflight()?.demand_hit(&first)?;
    let planned = workspace.dry_run(cache)?;
    ensure!(planned as u64 == TASKS, "{planned} tasks planned as hits");

    workspace.configure(true)?;
    let signed = |key: &str| {
        let turbo = workspace.turbo(cache)?;
        workspace.build_by(turbo.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", key))
    };
    let unsigned = signed(KEY)?;
    unsigned
        .demand(0)
        .context("artifacts without a signature")?;
    signed(KEY)?.demand_hit(&first)?;
    let forged = signed(&KEY.to_uppercase())?;
    forged.demand(0).context("artifacts signed by another")?;
    server.stop()?;
    say("turbo: preflight, dry runs, signatures, 5 builds");
    Ok(())
}

#[test]
fn turbo_speaks_tls_with_an_authority_of_our_own() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let certificates = Certificates::make_in(storage.folder.path())?;
    let flags = certificates.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = storage.serve.clone().flags(&flags).start()?;
    let url = server.url();
    ensure!(url.starts_with("https://"), "{url}");

    let cache = Cache::new(&url, "any");
    let trusting = || {
        let turbo = workspace.turbo(cache)?;
        workspace.build_by(turbo.env("SSL_CERT_FILE", certificates.authority()))
    };
    let first = trusting()?;
    first.demand(0)?;
    trusting()?.demand_hit(&first)?;
    workspace
        .build(cache)?
        .demand(0)
        .context("an unknown authority")?;
    server.stop()?;
    say("turbo: TLS, 3 builds");
    Ok(())
}

#[test]
fn the_count_of_cached_tasks_is_read() {
    let text = " Tasks:    5 successful, 5 total\nCached:    2 cached, 5 total\n";
    assert_eq!(cached_in(text), Some(2));
    assert_eq!(cached_in("Tasks: none"), None);
}

#[test]
fn turbo_hits_through_both_gateways_of_a_cluster_while_a_node_is_killed_and_replaced() -> Result<()>
{
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let build = |url: &str| workspace.build(Cache::new(url, "any"));
    let first = |url: &str| {
        let first = build(url)?;
        first.demand(0).map(|()| first)
    };
    while_a_node_is_replaced(first, |url, first| build(url)?.demand_hit(first))
}
