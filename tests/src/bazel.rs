//! Real Bazel in a workspace of its own: build, wipe, build again, and what each build did.
//!
//! Both releases work without a network: the samples use no rules that Bazel would have to fetch. A workspace has its own
//! output base, hence its own Bazel server; the server is shut down when the workspace goes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::content;
use crate::environment::{cache_folder, scratch};
use crate::folders;
use crate::process::{Tool, has_program, said};
use crate::report::say;
use crate::sources;

const BUILD_SECONDS: u32 = 180;
const REMOTE_HIT: &str = "remote cache hit";
/// Seed of the input of the steps.
const INPUT_SEED: u64 = 37;

/// A Bazel that can be installed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 4.2.3, Debian's `bazel-bootstrap`.
    Debian4,
    /// 2.1.0, the upstream program as npm carries it.
    Upstream2,
}

impl Release {
    /// The program with the options that come before the command.
    fn tool(self, limit_seconds: u32) -> Result<Tool> {
        let tool = match self {
            Release::Debian4 => {
                let program = "bazel-4";
                ensure!(
                    has_program(program),
                    "{program} is missing: install bazel-bootstrap"
                );
                // Its system rc stays: it names the install base.
                Tool::new(program, limit_seconds)
            }
            Release::Upstream2 => {
                let folder = cache_folder()?.join("tools/npm/bazel-2.1.0");
                let program =
                    folder.join("node_modules/@bazel/bazel-linux_x64/bazel-2.1.0-linux-x86_64");
                ensure!(
                    program.exists(),
                    "Bazel 2.1.0 is missing: run `.ci/needs test`"
                );
                // Unpacked once for all workspaces.
                let base = format!("--install_base={}", folder.join("unpacked").display());
                Tool::new(program, limit_seconds).args(["--nosystem_rc", &base])
            }
        };
        Ok(tool.args(["--noworkspace_rc", "--nohome_rc", "--max_idle_secs=120"]))
    }
}

/// A workspace with its sources.
#[derive(Debug)]
pub struct Workspace {
    folder: TempDir,
    release: Release,
}

/// What one build did.
#[derive(Debug)]
pub struct Build {
    /// Actions whose results came from the cache.
    pub remote_hits: u64,
    /// Actions that ran.
    pub executed: u64,
    /// SHA-256 of every output.
    pub outputs: BTreeMap<PathBuf, String>,
    /// What Bazel said.
    pub text: String,
}

impl Workspace {
    /// zlib, compiled by a rule of its own, with large, empty, loud and folder outputs: [`Workspace::C_ACTIONS`].
    ///
    /// # Errors
    /// When Bazel or the sources are missing.
    pub fn of_c(release: Release) -> Result<Workspace> {
        let workspace = Workspace::of(release, "bazel")?;
        sources::ZLIB.copy_to(&workspace.source().join("zlib"))?;
        Ok(workspace)
    }

    /// 15 compilations, 1 archive, 3 genrules, 1 folder.
    pub const C_ACTIONS: u64 = 20;

    /// A few steps around an incompressible input of some size: [`Workspace::STEPS`].
    ///
    /// # Errors
    /// When Bazel is missing.
    pub fn of_steps(release: Release, input_bytes: usize) -> Result<Workspace> {
        let workspace = Workspace::of(release, "bazel-steps")?;
        let input = content::body(INPUT_SEED, input_bytes);
        std::fs::write(workspace.source().join("input"), input)?;
        Ok(workspace)
    }

    /// Actions of [`Workspace::of_steps`].
    pub const STEPS: u64 = 4;

    /// Files of the caller's, by their paths.
    ///
    /// # Errors
    /// When Bazel is missing.
    pub fn of_files(release: Release, files: &[(&str, &str)]) -> Result<Workspace> {
        release.tool(1)?;
        let folder = scratch("bazel")?;
        let workspace = Workspace { folder, release };
        std::fs::create_dir(workspace.source())?;
        for (path, text) in files {
            std::fs::write(workspace.source().join(path), text)?;
        }
        Ok(workspace)
    }

    fn of(release: Release, sample: &str) -> Result<Workspace> {
        release.tool(1)?;
        let folder = scratch("bazel")?;
        let source = folder.path().join("source");
        folders::copy(&folders::fixture(sample), &source)?;
        std::fs::write(source.join("WORKSPACE"), "")?;
        Ok(Workspace { folder, release })
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn bazel(&self, limit_seconds: u32) -> Result<Tool> {
        let base = self.folder.path().join("output");
        let tool = self.release.tool(limit_seconds)?;
        Ok(tool
            .args([format!("--output_base={}", base.display())])
            .current_dir(&self.source())
            .env("HOME", self.folder.path()))
    }

    fn clean(&self) -> Result<()> {
        self.bazel(60)?.args(["clean"]).run_ok().map(drop)
    }

    /// Builds everything from nothing; it has to succeed.
    ///
    /// # Errors
    /// When it fails; the text holds what Bazel said.
    pub fn build<A: AsRef<str>>(&self, flags: &[A]) -> Result<Build> {
        let (code, text) = self.attempt(flags)?;
        ensure!(code == Some(0), "bazel ended with {code:?}:\n{text}");
        let processes = processes_in(&text).with_context(|| text.clone())?;
        Ok(Build {
            remote_hits: processes.get(REMOTE_HIT).copied().unwrap_or(0),
            executed: processes
                .iter()
                .filter(|(kind, _)| *kind != REMOTE_HIT && *kind != "internal")
                .map(|(_, count)| count)
                .sum(),
            outputs: self.outputs()?,
            text,
        })
    }

    /// The same, however it ends: its exit code and what it said.
    ///
    /// # Errors
    /// When Bazel cannot be run.
    pub fn attempt<A: AsRef<str>>(&self, flags: &[A]) -> Result<(Option<i32>, String)> {
        self.clean()?;
        let output = self
            .bazel(BUILD_SECONDS)?
            .args([
                "build",
                "--color=no",
                "--curses=no",
                "--spawn_strategy=local",
            ])
            .args(flags.iter().map(AsRef::as_ref))
            .args(["//..."])
            .run()?;
        Ok((output.status.code(), said(&output)))
    }

    fn outputs(&self) -> Result<BTreeMap<PathBuf, String>> {
        let root = self.source().join("bazel-bin").canonicalize()?;
        folders::digests(&root, |_| true)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let shutdown = |tool: Tool| tool.args(["shutdown"]).run();
        if let Err(error) = self.bazel(60).and_then(shutdown) {
            say(&format!("bazel shutdown: {error:#}"));
        }
    }
}

impl Build {
    /// Demands that so many actions ran and no other one did anything but hit, without a word about the cache.
    ///
    /// # Errors
    /// When it is otherwise.
    pub fn demand(&self, actions: u64, executed: u64) -> Result<()> {
        self.demand_counts(actions, executed)?;
        ensure!(
            !self.text.contains("Remote Cache:"),
            "trouble with the cache: {}",
            self.text
        );
        Ok(())
    }

    /// The same, whatever Bazel says about the cache.
    ///
    /// # Errors
    /// When other numbers of actions ran or hit.
    pub fn demand_counts(&self, actions: u64, executed: u64) -> Result<()> {
        ensure!(
            self.executed == executed && self.remote_hits == actions - executed,
            "{} actions ran and {} hit, instead of {executed} and {}: {}",
            self.executed,
            self.remote_hits,
            actions - executed,
            self.text
        );
        Ok(())
    }

    /// Demands that nothing ran and every byte is as it was.
    ///
    /// # Errors
    /// When it is otherwise.
    pub fn demand_all_of(&self, first: &Build, actions: u64) -> Result<()> {
        self.demand(actions, 0)?;
        ensure!(first.outputs == self.outputs, "the outputs differ");
        Ok(())
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

/// The SHA-256 of `copy.bin` of [`Workspace::of_steps`].
pub fn digest_of_input(input_bytes: usize) -> String {
    content::sha256(&content::body(INPUT_SEED, input_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_counts_of_a_build_are_read() {
        let line = "INFO: 22 processes: 15 remote cache hit, 7 internal.";
        let counts = processes_in(line).expect("counts");
        assert_eq!(counts["remote cache hit"], 15);
        assert_eq!(counts["internal"], 7);
    }
}
