//! Real Nx 24.0.6 with its self-hosted remote cache: build, wipe, build again; the second build runs nothing.
//!
//! Nx takes a cache's word seriously: an answer it does not expect, or no answer, ends its run. So what a case demands is
//! the exit code, how many tasks came from the cache, and what the user reads. It is configured as `zim setup nx` says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use zimcache_tests::certificate::Certificates;
use zimcache_tests::environment::scratch;
use zimcache_tests::folders;
use zimcache_tests::http;
use zimcache_tests::monorepo::{FILES, Monorepo, PACKAGES, TASKS, npm_tool};
use zimcache_tests::process::{Tool, said};
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::setup::Setup;
use zimcache_tests::tokens::{self, Tokens};

const VERSION: &str = "24.0.6";
const BUILD_SECONDS: u32 = 120;
const NAMESPACE: &str = "acme";
const REMOTE_HIT: &str = "[remote cache]";

struct Workspace {
    repo: Monorepo,
    program: PathBuf,
}

/// What one build did.
struct Build {
    passed: bool,
    remote_hits: u64,
    text: String,
    outputs: BTreeMap<PathBuf, String>,
}

impl Workspace {
    fn new() -> Result<Workspace> {
        let repo = Monorepo::new("nx")?;
        for name in PACKAGES {
            let others = PACKAGES
                .iter()
                .filter(|other| name == "report" && **other != name);
            let others: Vec<&&str> = others.collect();
            let command = json!({"command": format!("sh build.sh {name}"), "cwd": "{projectRoot}"});
            let build = json!({"executor": "nx:run-commands", "options": command});
            let project = json!({"name": name, "implicitDependencies": others,
                                 "targets": {"build": build}});
            repo.write(
                &format!("packages/{name}/project.json"),
                &project.to_string(),
            )?;
        }
        repo.write("package.json", r#"{"name": "sample", "private": true}"#)?;
        let cached = json!({"cache": true, "dependsOn": ["^build"],
                            "outputs": ["{projectRoot}/dist"]});
        let config = json!({"analytics": false, "neverConnectToCloud": true,
                            "targetDefaults": {"build": cached}});
        repo.write("nx.json", &config.to_string())?;
        let program = npm_tool("nx", VERSION, "nx/dist/bin/nx.js")?;
        // Nx insists on being a module of the workspace.
        let modules = npm_tool("nx", VERSION, "")?;
        std::os::unix::fs::symlink(modules, repo.root().join("node_modules"))?;
        repo.commit()?;
        Ok(Workspace { repo, program })
    }

    fn nx(&self, url: &str, token: &str) -> Result<Tool> {
        let local = self.repo.beside("nx");
        let tool = self.repo.tool("node", BUILD_SECONDS);
        Ok(Setup::of("nx", url, token, None)?
            .env(tool)
            .env("NX_NO_CLOUD", "true")
            .env("NX_DAEMON", "false")
            .env("NX_TUI", "false")
            .env("NX_CACHE_DIRECTORY", local.join("cache"))
            .env("NX_WORKSPACE_DATA_DIRECTORY", local.join("data"))
            .args([&self.program])
            .args(["run-many", "--target=build", "--parallel=2"]))
    }

    fn build(&self, url: &str, token: &str) -> Result<Build> {
        self.build_by(self.nx(url, token)?)
    }

    /// Wipes everything local and builds.
    fn build_by(&self, nx: Tool) -> Result<Build> {
        folders::wipe(&self.repo.beside("nx"))?;
        self.repo.wipe(&[".nx"])?;
        let output = nx.run()?;
        let text = said(&output);
        Ok(Build {
            passed: output.status.success(),
            remote_hits: text.matches(REMOTE_HIT).count() as u64,
            outputs: self.repo.outputs()?,
            text,
        })
    }
}

impl Build {
    fn demand(&self, remote_hits: u64) -> Result<()> {
        ensure!(self.passed, "the build failed: {}", self.text);
        ensure!(
            self.remote_hits == remote_hits,
            "{} remote hits, not {remote_hits}: {}",
            self.remote_hits,
            self.text
        );
        Ok(())
    }

    fn demand_hit(&self, first: &Build) -> Result<()> {
        self.demand(TASKS)?;
        ensure!(self.outputs == first.outputs, "the outputs differ");
        Ok(())
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
fn a_second_nx_build_restores_every_task_also_after_a_kill_half_way() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    let relay = Relay::to(server.address())?;
    let url = relay.url();
    let build = || workspace.build(&url, "any");

    let first = build()?;
    first.demand(0)?;
    ensure!(first.outputs.len() == FILES, "{:?}", first.outputs);
    build()?.demand_hit(&first)?;

    workspace.repo.set_inputs(1)?;
    relay.stop_after("PUT", 1);
    let (changed, server) = killed_half_way(&relay, &storage.serve, server, build)?;
    // Uploads are tried again, look-ups are not: which of the two met the gap decides.
    let ended = changed.text.contains("Failed to send request");
    ensure!(changed.passed || ended, "{}", changed.text);
    say(&format!("nx: lost its server, passed: {}", changed.passed));
    let again = build()?;
    ensure!(again.passed, "after the kill: {}", again.text);
    build()?.demand_hit(&again)?;
    workspace.repo.set_inputs(0)?;
    build()?
        .demand_hit(&first)
        .context("stored before the kill")?;
    server.stop()?;
    say(&format!(
        "nx: {TASKS} tasks, 6 builds after a wipe, killed during an upload"
    ));
    Ok(())
}

#[test]
fn nx_ends_its_run_without_a_server_and_hits_again_when_it_is_back() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let server = storage.serve.start()?;
    let first = workspace.build(&server.url(), "any")?;
    first.demand(0)?;

    let url = server.url();
    server.kill_9()?;
    let refused = workspace.build(&url, "any")?;
    ensure!(!refused.passed, "it passed: {}", refused.text);
    ensure!(
        refused.text.contains("Failed to send request"),
        "{}",
        refused.text
    );

    let server = storage.serve.start()?;
    let again = workspace.build(&server.url(), "any")?;
    again.demand_hit(&first)?;
    let nx = workspace.nx(&server.url(), "any")?;
    let with_slash = format!("{}/", server.url());
    let nx = nx.env("NX_SELF_HOSTED_REMOTE_CACHE_SERVER", with_slash);
    workspace.build_by(nx)?.demand_hit(&first)?;
    server.stop()?;
    say("nx: 4 builds, one without a server, one by a URL with a slash at its end");
    Ok(())
}

#[test]
fn nx_with_a_read_only_token_reads_and_stores_nothing() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    let write = tokens.create(NAMESPACE, "write")?;
    let read = tokens.create(NAMESPACE, "read")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;
    let url = server.url();

    workspace.build(&url, &read)?.demand(0)?;
    let first = workspace.build(&url, &write)?;
    first.demand(0).context("what was refused was stored")?;
    workspace.build(&url, &read)?.demand_hit(&first)?;
    workspace.repo.set_inputs(1)?;
    workspace.build(&url, &read)?.demand(0)?;
    server.stop()?;
    say("nx: read-only, 4 builds");
    Ok(())
}

#[test]
fn nx_shows_our_message_when_its_token_is_wrong() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let tokens = Tokens::in_folder(storage.folder.path());
    tokens.create(NAMESPACE, "write")?;
    let server = storage.serve.clone().flags(&tokens.flags()?).start()?;

    let bearer = format!("Authorization: Bearer {}", tokens::UNKNOWN);
    let refused = http::once(server.address(), "GET", "/v1/cache/1", &[&bearer], None)?;
    let message = format!("Unauthorized: {}", refused.text().trim_end());
    ensure!(message.len() > 20, "no message: {}", refused.status);
    let wrong = workspace.build(&server.url(), tokens::UNKNOWN)?;
    ensure!(!wrong.passed, "it passed: {}", wrong.text);
    ensure!(
        wrong.text.contains(&message),
        "no {message:?} in {}",
        wrong.text
    );
    server.stop()?;
    say("nx: a wrong token ends the run with our message");
    Ok(())
}

#[test]
fn nx_speaks_tls_with_an_authority_of_our_own() -> Result<()> {
    let _turn = Turn::shared()?;
    let workspace = Workspace::new()?;
    let storage = Storage::new()?;
    let certificates = Certificates::make_in(storage.folder.path())?;
    let flags = certificates.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = storage.serve.clone().flags(&flags).start()?;
    let url = server.url();
    ensure!(url.starts_with("https://"), "{url}");

    let trusting = || {
        let nx = workspace.nx(&url, "any")?;
        workspace.build_by(nx.env("SSL_CERT_FILE", certificates.authority()))
    };
    let first = trusting()?;
    first.demand(0)?;
    trusting()?.demand_hit(&first)?;
    let stranger = workspace.build(&url, "any")?;
    ensure!(
        !stranger.passed,
        "an unknown authority is trusted: {}",
        stranger.text
    );
    server.stop()?;
    say("nx: TLS, 3 builds");
    Ok(())
}
