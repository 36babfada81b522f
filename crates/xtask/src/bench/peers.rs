//! The programs under test: where they are, and how bazel-remote is built when it is absent.
//!
//! bazel-remote is built from a throw-away module outside the checkout, into the folder of test tools. bb-storage and
//! NativeLink are not built here: rows are measured without them until somebody puts them into that folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::subject::Subject;

/// The version compared with.
pub(super) const BAZEL_REMOTE_VERSION: &str = "2.6.2";
/// The snapshot compared with.
pub(super) const BB_STORAGE_VERSION: &str = "of 2026-07-11 (bdd785e)";
/// The version compared with.
pub(super) const NATIVELINK_VERSION: &str = "1.6.6";
const BAZEL_REMOTE_MODULE: &str = "github.com/buchgr/bazel-remote/v2";

/// The programs.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    /// Our binary.
    pub(super) zimcache: PathBuf,
    /// bazel-remote.
    pub(super) bazel_remote: PathBuf,
    /// nginx.
    pub(super) nginx: PathBuf,
    /// bb-storage; need not exist.
    pub(super) bb_storage: PathBuf,
    /// NativeLink; need not exist.
    pub(super) nativelink: PathBuf,
    /// The S3 server of a cluster.
    pub(super) s3: PathBuf,
}

impl Tools {
    /// Finds the programs below the folder of test tools.
    pub(super) fn find(zimcache: PathBuf, cache: Option<PathBuf>) -> Result<Tools> {
        let cache = match cache {
            Some(cache) => cache,
            None => std::env::home_dir()
                .context("there is no home folder; give --cache")?
                .join(".cache/zimcache"),
        };
        let bin = cache.join("bin");
        Ok(Tools {
            zimcache,
            bazel_remote: bin.join(format!("bazel-remote-{BAZEL_REMOTE_VERSION}")),
            nginx: on_path("nginx").unwrap_or_else(|| PathBuf::from("/usr/sbin/nginx")),
            bb_storage: bin.join("bb-storage"),
            nativelink: bin.join("nativelink"),
            s3: bin.join(crate::cluster::S3_PROGRAM),
        })
    }

    /// Whether a subject can be measured: all but the optional ones are required elsewhere.
    pub(super) fn has(&self, subject: Subject) -> bool {
        match subject {
            Subject::BbStorage | Subject::BbStorageSecond => self.bb_storage.is_file(),
            Subject::NativeLink => self.nativelink.is_file(),
            _ => true,
        }
    }

    /// Makes sure that bazel-remote exists.
    pub(super) fn ensure_bazel_remote(&self) -> Result<()> {
        if self.bazel_remote.exists() {
            return Ok(());
        }
        let bin = self.bazel_remote.parent().context("no folder for peers")?;
        fs::create_dir_all(bin)?;
        let module = bin.join("bazel-remote-build");
        build_bazel_remote(&module, &self.bazel_remote)
            .with_context(|| format!("cannot build bazel-remote {BAZEL_REMOTE_VERSION}"))?;
        fs::remove_dir_all(module)?;
        Ok(())
    }

    /// The version line of nginx.
    pub(super) fn nginx_version(&self) -> String {
        Command::new(&self.nginx)
            .arg("-v")
            .output()
            .map(|output| {
                String::from_utf8_lossy(&output.stderr)
                    .trim()
                    .replace("nginx version: nginx/", "")
            })
            .unwrap_or_default()
    }
}

fn build_bazel_remote(module: &Path, binary: &Path) -> Result<()> {
    fs::create_dir_all(module)?;
    fs::write(
        module.join("go.mod"),
        format!(
            "module peer\n\ngo 1.26\n\nrequire {BAZEL_REMOTE_MODULE} v{BAZEL_REMOTE_VERSION}\n"
        ),
    )?;
    let partial = binary.with_extension("partial");
    let status = Command::new("go")
        .current_dir(module)
        .envs([
            ("GOTOOLCHAIN", "local"),
            ("GOTELEMETRY", "off"),
            ("GOFLAGS", "-mod=mod -buildvcs=false"),
        ])
        .args(["build", "-o"])
        .arg(&partial)
        .arg(BAZEL_REMOTE_MODULE)
        .status()
        .context("Go is needed (package golang, 1.26 or newer)")?;
    ensure!(status.success(), "go build ended with {status}");
    fs::rename(partial, binary)?;
    Ok(())
}

/// The first program of this name in the usual folders.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Checks that a program exists.
pub(super) fn require(program: &Path, hint: &str) -> Result<()> {
    if program.is_file() {
        return Ok(());
    }
    bail!("{} is missing: {hint}", program.display())
}
