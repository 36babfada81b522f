//! A small monorepo for clients of the JavaScript world: packages whose task writes files with `sh`, nothing from a
//! registry. Each client adds its own configuration files.
//!
//! Every package copies inputs of several sizes, writes an empty file and one with a blank in its name; `report` depends
//! on all the others. Everything a build makes lies in `dist` folders, so that outputs can be wiped and compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::content;
use crate::environment::{cache_folder, scratch};
use crate::folders;
use crate::process::Tool;

/// The packages, in the order they can be built.
pub const PACKAGES: [&str; 5] = ["words", "large", "many", "alone", "report"];
/// How many tasks a build of everything runs.
pub const TASKS: u64 = PACKAGES.len() as u64;
/// How many files a build of everything makes: three in each package and the sums in `report`.
pub const FILES: usize = 3 * PACKAGES.len() + 1;
/// A value above a megabyte, which the store keeps in parts.
const LARGE_BYTES: usize = 2_500_000;
const SCRIPT: &str = "set -e
mkdir -p dist/deep 'dist/with blank'
cp input dist/deep/input
: >dist/empty
echo \"made by $1\" >'dist/with blank/note.txt'
echo \"$1: built\"
";
/// What `report` does more: it needs what the others made.
const SUMS: &str = "cksum ../[!r]*/dist/deep/input >dist/sums\n";

/// The monorepo in a temporary folder.
#[derive(Debug)]
pub struct Monorepo {
    folder: TempDir,
}

impl Monorepo {
    /// Packages without any client's configuration.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(client: &str) -> Result<Monorepo> {
        let repo = Monorepo {
            folder: scratch(client)?,
        };
        std::fs::create_dir(repo.home())?;
        for package in PACKAGES {
            std::fs::create_dir_all(repo.package(package))?;
            let more = if package == "report" { SUMS } else { "" };
            let script = format!("{SCRIPT}{more}");
            repo.write(&format!("packages/{package}/build.sh"), &script)?;
        }
        repo.set_inputs(0)?;
        repo.write(
            ".gitignore",
            "dist\nnode_modules\n.turbo\n.nx\n.moon/cache\n",
        )?;
        Ok(repo)
    }

    /// The root of the repository.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// The client's home folder, outside the repository.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A folder beside the repository, for what a client keeps.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of a package.
    pub fn package(&self, name: &str) -> PathBuf {
        self.root().join("packages").join(name)
    }

    /// Writes a file below the root.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().context("a file below the root")?)?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Makes a git repository of what is there: clients send its state along.
    ///
    /// # Errors
    /// When git fails.
    pub fn commit(&self) -> Result<()> {
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=acme", "-c", "user.email=acme@cache.test"];
            let tool = self.tool("git", 30).args(identity).args(arguments);
            tool.run_ok().map(drop)
        };
        git(&["init", "--quiet"])?;
        git(&["add", "--all"])?;
        git(&["commit", "--quiet", "--message", "sample"])
    }

    /// Gives every package the input of a round; a new repository has that of round 0.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_inputs(&self, round: u64) -> Result<()> {
        for (package, number) in PACKAGES.into_iter().zip(1..) {
            let length = if package == "large" {
                LARGE_BYTES
            } else {
                2_000
            };
            let input = content::body(round * 100 + number, length);
            std::fs::write(self.package(package).join("input"), input)?;
        }
        Ok(())
    }

    /// Removes everything that builds made, and these folders of the client, relative to the root.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn wipe(&self, local_caches: &[&str]) -> Result<()> {
        for package in PACKAGES {
            folders::wipe(&self.package(package).join("dist"))?;
            folders::wipe(&self.package(package).join(".turbo"))?;
        }
        let mut caches = local_caches.iter().map(|cache| self.root().join(cache));
        caches.try_for_each(|cache| folders::wipe(&cache))
    }

    /// The digests of what a build made.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn outputs(&self) -> Result<BTreeMap<PathBuf, String>> {
        let is_output = |path: &Path| path.components().any(|part| part.as_os_str() == "dist");
        folders::digests(&self.root().join("packages"), is_output)
    }

    /// A program with an empty environment but for the search path and a home of its own, run at the root. Whatever it
    /// says to other hosts than 127.0.0.1 goes to a closed port.
    pub fn tool(&self, program: impl AsRef<std::ffi::OsStr>, limit_seconds: u32) -> Tool {
        let nowhere = "http://127.0.0.1:9";
        Tool::new(program, limit_seconds)
            .clear_env()
            .env("PATH", search_path())
            .env("HOME", self.home())
            .env("HTTP_PROXY", nowhere)
            .env("HTTPS_PROXY", nowhere)
            .env("NO_PROXY", "127.0.0.1")
            .current_dir(&self.root())
    }
}

/// Where a tool of `.ci/needs` lies, below its folder.
///
/// # Errors
/// When it is not installed, or Node is not.
pub fn npm_tool(name: &str, version: &str, path: &str) -> Result<PathBuf> {
    let folder = cache_folder()?.join(format!("tools/npm/{name}-{version}"));
    let program = folder.join("node_modules").join(path);
    ensure!(
        program.exists(),
        "{name} {version} is missing: run `.ci/needs test`"
    );
    Ok(program)
}

/// The system's folders, and before them the one that `.ci/needs` fills where the system has no Node.
fn search_path() -> String {
    let system = "/usr/local/bin:/usr/bin:/bin";
    match cache_folder() {
        Ok(cache) => format!("{}:{system}", cache.join("tools/bin").display()),
        Err(_) => system.to_owned(),
    }
}
