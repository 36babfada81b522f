//! Shows that the dependency rule bites: for every forbidden edge a copy of the manifests gets that edge, and
//! `cargo deny check bans` must refuse it.
//!
//! Only manifests, the lock file and empty sources are copied, so nothing is compiled and the network is not used.
//! The rule itself is `[bans] deny` in `deny.toml`; the picture is `docs/adr/0001-dependency-direction.md`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};

use crate::tree::Tree;

/// Crates that must never use the other: (user, used). Only sideways edges: cargo itself refuses the upward ones,
/// each of which closes a cycle.
const FORBIDDEN: &[(&str, &str)] = &[
    ("gateway", "node"),
    ("node", "gateway"),
    ("node", "crates/proto"),
    ("node", "crates/auth"),
    ("crates/auth", "crates/config"),
    ("crates/store", "crates/config"),
    ("crates/ring", "crates/store"),
    ("crates/config", "crates/ring"),
    ("crates/config", "crates/telemetry"),
    ("crates/telemetry", "crates/store"),
    ("crates/proto", "crates/store"),
    ("node", "crates/link"),
    ("gateway", "crates/link"),
    ("crates/link", "crates/config"),
    ("crates/link", "crates/auth"),
    ("crates/link", "crates/ring"),
    ("crates/member", "node"),
    ("node", "crates/member"),
    ("gateway", "crates/member"),
    ("gateway", "crates/cluster"),
    ("node", "crates/cluster"),
    ("crates/cluster", "node"),
    ("crates/cluster", "crates/config"),
    ("crates/cluster", "crates/history"),
    ("crates/zim", "crates/sim"),
];

/// Tries every forbidden edge whose two ends exist.
pub(crate) fn run(tree: &Tree) -> Result<ExitCode> {
    let copy = Copy::new(tree)?;
    let untouched = copy.check()?;
    ensure!(
        untouched.passed,
        "the tree itself is refused:\n{}",
        untouched.text
    );
    let mut tried = 0;
    for (user, used) in FORBIDDEN {
        let exists = |folder: &str| tree.get(&format!("{folder}/Cargo.toml")).is_some();
        if !exists(user) || !exists(used) {
            continue;
        }
        let verdict = copy.with_edge(user, used)?;
        let name = package(used);
        let refused =
            !verdict.passed && verdict.text.contains("banned") && verdict.text.contains(&name);
        ensure!(
            refused,
            "the edge {user} -> {used} was not refused as banned:\n{}",
            verdict.text
        );
        println!("refused: {user} -> {used}");
        tried += 1;
    }
    ensure!(tried > 0, "no forbidden edge could be tried");
    println!("edges: {tried} forbidden edges tried, {tried} refused");
    Ok(ExitCode::SUCCESS)
}

fn package(folder: &str) -> String {
    let last = folder.rsplit('/').next().unwrap_or(folder);
    format!("zimcache-{last}")
}

/// What `cargo deny` said.
struct Verdict {
    passed: bool,
    text: String,
}

/// The manifests of the workspace in a folder of their own, removed at the end.
struct Copy {
    root: PathBuf,
}

impl Copy {
    fn new(tree: &Tree) -> Result<Self> {
        let name = format!("zimcache-edges-{}", std::process::id());
        let copy = Self {
            root: std::env::temp_dir().join(name),
        };
        for file in &tree.files {
            let is_manifest = file.path.ends_with("Cargo.toml");
            if is_manifest || matches!(file.path.as_str(), "Cargo.lock" | "deny.toml") {
                write(&copy.root.join(&file.path), file.text())?;
            } else if file.is_rust() {
                write(&copy.root.join(&file.path), "")?;
            }
        }
        Ok(copy)
    }

    /// Adds one dependency, asks, and takes it back.
    fn with_edge(&self, user: &str, used: &str) -> Result<Verdict> {
        let manifest = self.root.join(user).join("Cargo.toml");
        let text = fs::read_to_string(&manifest)?;
        let lock = fs::read_to_string(self.root.join("Cargo.lock"))?;
        let edge = format!(
            "[dependencies]\n{} = {{ path = \"{}\" }}",
            package(used),
            self.root.join(used).display()
        );
        ensure!(
            text.contains("[dependencies]"),
            "{user} has no dependencies"
        );
        write(&manifest, &text.replacen("[dependencies]", &edge, 1))?;
        let verdict = self.check();
        write(&manifest, &text)?;
        write(&self.root.join("Cargo.lock"), &lock)?;
        verdict
    }

    fn check(&self) -> Result<Verdict> {
        let output = Command::new("cargo")
            .args([
                "deny",
                "--offline",
                "--color",
                "never",
                "--log-level",
                "error",
            ])
            .args(["check", "--allow", "unused-wrapper", "bans"])
            .current_dir(&self.root)
            .output()
            .context("cannot start cargo deny")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if text.contains("no such command") {
            bail!("cargo-deny is not installed; `make test` installs it");
        }
        Ok(Verdict {
            passed: output.status.success(),
            text,
        })
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A folder left behind in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
