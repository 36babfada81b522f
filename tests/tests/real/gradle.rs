//! Real Gradle 4.4.1 (Debian's `gradle`) with its HTTP build cache: build, wipe, build again; no task runs again.
//!
//! The sample has three tasks that can be cached, one of whose outputs is larger than a part of a stored value. Gradle's
//! local cache is off, so a hit is a hit of the server. Jars hold times and are left out of the comparison.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use zimcache_tests::environment::scratch;
use zimcache_tests::folders;
use zimcache_tests::process::{Tool, has_program, said};
use zimcache_tests::relay::{Relay, killed_half_way};
use zimcache_tests::report::{Turn, say};
use zimcache_tests::server::Serve;
use zimcache_tests::tokens::{self, Tokens};

use crate::two_gateways::while_a_node_is_replaced;

const BUILD_SECONDS: u32 = 180;
const CACHEABLE: [&str; 3] = [":table", ":numbers:compileJava", ":report:compileJava"];

struct Project {
    folder: TempDir,
}

/// Which cache a build uses, and how.
#[derive(Clone, Copy)]
struct Cache<'a> {
    url: &'a str,
    token: &'a str,
    push: bool,
}

/// What one build did.
struct Build {
    from_cache: Vec<&'static str>,
    text: String,
    outputs: BTreeMap<PathBuf, String>,
}

impl Project {
    fn new() -> Result<Project> {
        ensure!(has_program("gradle"), "gradle is missing: install it");
        let folder = scratch("gradle")?;
        folders::copy(&folders::fixture("gradle"), &folder.path().join("source"))?;
        Ok(Project { folder })
    }

    /// Wipes what earlier builds left and builds.
    fn build(&self, cache: Cache<'_>) -> Result<Build> {
        let source = self.folder.path().join("source");
        for name in ["build", "numbers/build", "report/build", ".gradle"] {
            folders::wipe(&source.join(name))?;
        }
        let output = Tool::new("gradle", BUILD_SECONDS)
            .args(["--no-daemon", "--console=plain", "--build-cache"])
            .args([
                "--gradle-user-home".as_ref(),
                self.folder.path().join("home").as_os_str(),
            ])
            .args([
                format!("-PcacheUrl={}/cache/", cache.url),
                format!("-PcachePush={}", cache.push),
                format!("-PcacheToken={}", cache.token),
            ])
            .args(["table", "jar"])
            .env("HOME", self.folder.path())
            .current_dir(&source)
            .run_ok()?;
        let text = said(&output);
        let hit = |task: &&str| {
            text.lines()
                .any(|line| line == format!("{task} FROM-CACHE"))
        };
        Ok(Build {
            from_cache: CACHEABLE.into_iter().filter(hit).collect(),
            outputs: folders::digests(&source, is_output)?,
            text,
        })
    }
}

/// Whether a file was made by a task whose output does not depend on the time.
fn is_output(path: &Path) -> bool {
    let end = path.extension().unwrap_or_default();
    end == "class" || end == "bin" && path.starts_with("build")
}

impl Build {
    fn demand_miss(&self) -> Result<()> {
        ensure!(
            self.from_cache.is_empty(),
            "hits from nowhere: {}",
            self.text
        );
        ensure!(self.outputs.len() == 3, "outputs: {:?}", self.outputs);
        Ok(())
    }

    fn demand_hit(&self, first: &Build) -> Result<()> {
        self.demand_same(first)?;
        ensure!(self.from_cache == CACHEABLE, "ran again: {}", self.text);
        self.demand_quiet()
    }

    fn demand_same(&self, first: &Build) -> Result<()> {
        ensure!(
            self.outputs == first.outputs,
            "the outputs differ: {}",
            self.text
        );
        Ok(())
    }

    fn demand_quiet(&self) -> Result<()> {
        let troubled = self.text.contains("Could not");
        ensure!(!troubled, "trouble with the cache: {}", self.text);
        Ok(())
    }
}

#[test]
fn a_second_gradle_build_takes_every_task_from_the_cache_also_after_a_kill_half_way() -> Result<()>
{
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let storage = scratch("store")?;
    let serve = Serve::on(&storage.path().join("store"), "2GB");
    let server = serve.start()?;
    let relay = Relay::to(server.address())?;
    let url = relay.url();
    let cache = Cache {
        url: &url,
        token: "",
        push: true,
    };

    relay.stop_after("PUT", 1);
    let (first, server) = killed_half_way(&relay, &serve, server, || project.build(cache))?;
    first.demand_miss()?;

    let second = project.build(cache)?;
    second.demand_same(&first)?;
    ensure!(
        second.from_cache.contains(&":table"),
        "what was acknowledged before the kill is gone: {}",
        second.text
    );
    second.demand_quiet()?;
    project.build(cache)?.demand_hit(&first)?;
    server.stop()?;
    say("gradle: 3 tasks, 3 builds, killed during a PUT of the first");
    Ok(())
}

#[test]
fn gradle_reads_with_a_read_only_token_and_builds_without_a_cache_when_its_token_is_wrong()
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
    let url = server.url();
    let with = |token, push| Cache {
        url: &url,
        token,
        push,
    };

    let first = project.build(with(&read, true))?;
    first.demand_miss().context("a refused upload")?;
    let wrong = project.build(with(tokens::UNKNOWN, true))?;
    wrong.demand_miss().context("a wrong token")?;
    wrong.demand_same(&first)?;
    ensure!(
        wrong.text.contains("status 401"),
        "a wrong token goes unseen: {}",
        wrong.text
    );

    let pushed = project.build(with(&write, true))?;
    pushed.demand_miss().context("nothing was stored before")?;
    pushed.demand_quiet()?;
    project.build(with(&write, true))?.demand_hit(&first)?;
    let reader = project.build(with(&read, false))?;
    reader.demand_hit(&first).context("read-only")?;
    server.stop()?;
    say("gradle: read-only with and without push, wrong token");
    Ok(())
}

#[test]
fn gradle_hits_through_both_gateways_of_a_cluster_while_a_node_is_killed_and_replaced() -> Result<()>
{
    let _turn = Turn::shared()?;
    let project = Project::new()?;
    let build = |url: &str| {
        project.build(Cache {
            url,
            token: "",
            push: true,
        })
    };
    let first = |url: &str| {
        let first = build(url)?;
        first.demand_miss().map(|()| first)
    };
    while_a_node_is_replaced(first, |url, first| build(url)?.demand_hit(first))
}
