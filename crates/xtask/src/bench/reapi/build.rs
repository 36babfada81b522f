//! A real Bazel building a workspace of small targets with everything cached: wall time of the whole command.
//!
//! Bazel runs on the generator's core, warm, with one output base for all servers; before each build everything it
//! made is removed. Most of the time is Bazel's own, so that a difference between servers is small: that is the point
//! of showing it. Its system rc stays (it names the install base); its server is shut down with the workspace.

use std::{
    fmt::Write,
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{
    super::{
        Bench, peers,
        result::Sample,
        rows::{Row, Unit},
        server::Server,
    },
    rows, servers,
};

const BAZEL: &str = "bazel-4";
/// Targets of the workspace, each one action.
const TARGETS: usize = 300;
/// Targets of a package.
const PACKAGE: usize = 30;

/// Builds with every server in turn.
pub(super) fn run(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    if peers::on_path(BAZEL).is_none() {
        println!("  {BAZEL} is not installed (package bazel-bootstrap): left out");
        return Ok(Vec::new());
    }
    let workspace = Workspace::create(bench.data.join(&row.id).join("workspace"))?;
    let mut servers = Vec::new();
    for subject in bench.chosen(row) {
        let server = servers::start(&bench.tools, subject, &bench.folder(&row.id, subject))?;
        workspace.clean()?;
        workspace.build(&server)?;
        servers.push(server);
    }
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        for server in &servers {
            workspace.clean()?;
            let start = Instant::now();
            let said = workspace.build(server)?;
            let seconds = start.elapsed().as_secs_f64();
            ensure!(
                said.contains(&format!(" {TARGETS} remote cache hit")),
                "not everything came from {}: {said}",
                server.subject.name()
            );
            let sample = Sample::new(server.subject, round, seconds);
            bench.say(rows::BUILD, Unit::Seconds, &sample);
            samples.push((rows::BUILD.to_owned(), sample));
        }
    }
    Ok(samples)
}

/// A folder of targets, and the Bazel server that builds them.
struct Workspace {
    folder: PathBuf,
}

impl Workspace {
    fn create(folder: PathBuf) -> Result<Workspace> {
        let source = folder.join("source");
        for first in (0..TARGETS).step_by(PACKAGE) {
            let package = source.join(format!("package{}", first / PACKAGE));
            fs::create_dir_all(&package)?;
            let mut rules = String::new();
            for number in first..TARGETS.min(first + PACKAGE) {
                // Every output differs and is between 1 and 30 KB large.
                let lines = 40 * (1 + number % PACKAGE);
                write!(
                    rules,
                    "genrule(\n    name = \"target{number}\",\n    outs = [\"target{number}.txt\"],\n    \
                     cmd = \"seq {number}000 $$(({number}000 + {lines})) > $@\",\n)\n"
                )?;
            }
            fs::write(package.join("BUILD.bazel"), rules)?;
        }
        fs::write(source.join("WORKSPACE"), "")?;
        Ok(Workspace { folder })
    }

    fn bazel(&self, words: &[&str]) -> Result<Output> {
        Command::new(BAZEL)
            .args(["--noworkspace_rc", "--nohome_rc", "--max_idle_secs=300"])
            .arg(format!(
                "--output_base={}",
                self.folder.join("output").display()
            ))
            .args(words)
            .current_dir(self.folder.join("source"))
            .env("HOME", &self.folder)
            .output()
            .with_context(|| format!("cannot run {BAZEL}"))
    }

    fn must(&self, words: &[&str]) -> Result<String> {
        let output = self.bazel(words)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{BAZEL} {words:?} failed: {said}");
        Ok(said)
    }

    fn clean(&self) -> Result<String> {
        self.must(&["clean"])
    }

    fn build(&self, server: &Server) -> Result<String> {
        let cache = format!("--remote_cache=grpc://{}", server.address);
        let said = self.must(&[
            "build",
            "--color=no",
            "--curses=no",
            "--jobs=64",
            "--spawn_strategy=local",
            &cache,
            "//...",
        ])?;
        ensure!(
            !said.contains("WARNING: "),
            "trouble with the cache: {said}"
        );
        Ok(said)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = self.must(&["shutdown"]) {
            println!("    {error:#}");
        }
    }
}
