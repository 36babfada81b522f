//! Real Bazel 4 (package `bazel-bootstrap`) over HTTP: build, wipe, build again; the second build runs nothing.
//!
//! The workspace compiles zlib with a rule of its own, and has large, empty, loud and folder outputs. Bazel keeps its
//! system rc (it names the install base) and gets an output base of its own; its server is shut down with the guard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use zimcache_tests::content;
use zimcache_tests::environment::scratch;
use zimcache_tests::process::{Tool, has_program, said};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::sources;

use crate::churn::Churn;

const BAZEL: &str = "bazel-4";
const BUILD_SECONDS: u32 = 180;
/// 15 compilations, 1 archive, 3 genrules, 1 folder.
const ACTIONS: u64 = 20;

struct Workspace {
    folder: TempDir,
}

/// What one build did.
struct Build {
    remote_hits: u64,
    executed: u64,
    outputs: BTreeMap<PathBuf, String>,
}

impl Workspace {
    fn new() -> Result<Workspace> {
        ensure!(
            has_program(BAZEL),
            "{BAZEL} is missing: install bazel-bootstrap"
        );
        let folder = scratch("bazel")?;
        let source = folder.path().join("source");
        sources::ZLIB.copy_to(&source.join("zlib"))?;
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bazel");
        for name in ["BUILD.bazel", "rules.bzl"] {
            std::fs::copy(fixtures.join(name), source.join(name))?;
        }
        std::fs::write(source.join("WORKSPACE"), "")?;
        Ok(Workspace { folder })
    }

    fn bazel(&self, limit_seconds: u32) -> Tool {
        let base = self.folder.path().join("output");
        Tool::new(BAZEL, limit_seconds)
            .args(["--noworkspace_rc", "--nohome_rc", "--max_idle_secs=120"])
            .args([format!("--output_base={}", base.display())])
            .current_dir(&self.folder.path().join("source"))
            .env("HOME", self.folder.path())
    }

    fn clean(&self) -> Result<()> {
        self.bazel(60).args(["clean"]).run_ok()?;
        Ok(())
    }

    /// Builds everything with this cache, from nothing.
    fn build(&self, cache_url: &str) -> Result<Build> {
        self.clean()?;
        let output = self
            .bazel(BUILD_SECONDS)
            .args([
                "build",
                "--color=no",
                "--curses=no",
                "--spawn_strategy=local",
            ])
            .args([format!("--remote_cache={cache_url}")])
            .args(["//..."])
            .run_ok()?;
        let text = said(&output);
        ensure!(
            !text.contains("WARNING: R"),
            "trouble with the cache: {text}"
        );
        ensure!(
            !text.contains("WARNING: W"),
            "trouble with the cache: {text}"
        );
        let processes = processes_in(&text).with_context(|| text.clone())?;
        Ok(Build {
            remote_hits: processes.get("remote cache hit").copied().unwrap_or(0),
            executed: processes
                .iter()
                .filter(|(kind, _)| *kind != "remote cache hit" && *kind != "internal")
                .map(|(_, count)| count)
                .sum(),
            outputs: self.outputs()?,
        })
    }

    fn outputs(&self) -> Result<BTreeMap<PathBuf, String>> {
        let root = self.folder.path().join("source/bazel-bin").canonicalize()?;
        let mut outputs = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for item in std::fs::read_dir(folder)? {
                let path = item?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root)?.to_owned();
                    outputs.insert(name, content::sha256(&std::fs::read(&path)?));
                }
            }
        }
        Ok(outputs)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = self.bazel(60).args(["shutdown"]).run() {
            say(&format!("bazel shutdown: {error:#}"));
        }
    }
}

/// The counts of a line such as `INFO: 20 processes: 15 remote cache hit, 5 internal.`
fn processes_in(text: &str) -> Option<BTreeMap<String, u64>> {
    let line = text
        .lines()
        .rfind(|line| line.contains(" processes: ") || line.contains(" process: "))?;
    let counts = line.split("process").nth(1)?.split(": ").nth(1)?;
    let mut processes = BTreeMap::new();
    for part in counts.trim_end_matches('.').split(", ") {
        let (count, kind) = part.split_once(' ')?;
        processes.insert(kind.to_owned(), count.parse().ok()?);
    }
    Some(processes)
}

fn check_first(build: &Build) -> Result<()> {
    ensure!(
        build.executed == ACTIONS,
        "{} actions ran, not {ACTIONS}",
        build.executed
    );
    ensure!(
        build.outputs.len() > 20,
        "outputs: {:?}",
        build.outputs.keys()
    );
    Ok(())
}

fn check_second(first: &Build, second: &Build) -> Result<()> {
    ensure!(
        second.executed == 0,
        "{} actions ran again",
        second.executed
    );
    ensure!(
        second.remote_hits == ACTIONS,
        "{} remote hits",
        second.remote_hits
    );
    ensure!(first.outputs == second.outputs, "the outputs differ");
    Ok(())
}

/// All cases share one workspace, because a Bazel server takes longer to start than to build this.
#[test]
fn a_second_bazel_build_hits_the_cache_also_after_a_kill_and_during_churn() -> Result<()> {
    let _turn = Turn::alone()?;
    let workspace = Workspace::new()?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;

    let first = workspace.build(&server.url())?;
    check_first(&first)?;
    check_second(&first, &workspace.build(&server.url())?).context("plain")?;

    let prefixed = format!("{}/team/linux", server.url());
    let other = workspace.build(&prefixed)?;
    check_first(&other).context("an instance prefix is a room of its own")?;
    check_second(&other, &workspace.build(&prefixed)?).context("with an instance prefix")?;

    server.kill_9()?;
    let server = serve.start()?;
    check_second(&first, &workspace.build(&server.url())?).context("after kill -9")?;
    let prefixed = format!("{}/team/linux", server.url());
    check_second(&first, &workspace.build(&prefixed)?).context("prefixed, after kill -9")?;

    let churn = Churn::start(server.address(), "bazel");
    let during = workspace
        .build(&server.url())
        .and_then(|build| check_second(&first, &build));
    let churned = churn.finish()?;
    during.context("during churn")?;
    check_second(&first, &workspace.build(&server.url())?).context("after churn")?;
    server.stop()?;
    say(&format!(
        "row 37, bazel: {ACTIONS} actions, 7 builds after a wipe, {} MB churned beside them",
        churned / 1_000_000
    ));
    Ok(())
}

#[test]
fn the_process_counts_of_a_build_are_read() {
    let line = "INFO: 22 processes: 15 remote cache hit, 7 internal.";
    let counts = processes_in(line).expect("counts");
    assert_eq!(counts["remote cache hit"], 15);
    assert_eq!(counts["internal"], 7);
}
