//! A small monorepo built by Turborepo with a cache of the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::json;
use zimcache_tests::monorepo::{Monorepo, PACKAGES, npm_tool};
use zimcache_tests::process::said;

pub(crate) use zimcache_tests::monorepo::TASKS;

/// The namespace of its builds.
pub(crate) const TEAM: &str = "turbo";
const BUILD_SECONDS: u32 = 120;

/// The monorepo and the program.
#[derive(Debug)]
pub(crate) struct Workspace {
    repo: Monorepo,
    program: PathBuf,
}

/// What one build did.
#[derive(Debug)]
pub(crate) struct Build {
    pub(crate) cached: u64,
    pub(crate) outputs: BTreeMap<PathBuf, String>,
    pub(crate) text: String,
}

impl Workspace {
    pub(crate) fn new() -> Result<Workspace> {
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
        let tasks = json!({
            "tasks": {"build": {"dependsOn": ["^build"], "outputs": ["dist/**"]}},
        });
        repo.write("turbo.json", &tasks.to_string())?;
        std::fs::write(repo.home().join(".npmrc"), "update-notifier=false\n")?;
        repo.commit()?;
        let program = npm_tool("turbo", "2.11.11", "@turbo/linux-64/bin/turbo")?;
        Ok(Workspace { repo, program })
    }

    /// Wipes everything local and builds.
    pub(crate) fn build(&self, gateway: SocketAddr, token: &str) -> Result<Build> {
        self.repo.wipe(&[".turbo", "node_modules"])?;
        let turbo = self.repo.tool(&self.program, BUILD_SECONDS);
        let turbo = turbo
            .env("NO_PROXY", gateway.ip().to_string())
            .env("TURBO_API", format!("http://{gateway}"))
            .env("TURBO_TOKEN", token)
            .env("TURBO_TEAM", TEAM)
            .env("TURBO_TELEMETRY_DISABLED", "1")
            .env("DO_NOT_TRACK", "1");
        let text = said(&turbo.args(["run", "build", "--concurrency=1"]).run_ok()?);
        let line = text.lines().find(|line| line.starts_with("Cached:"));
        let cached = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        Ok(Build {
            cached: cached.with_context(|| format!("no count of hits: {text}"))?,
            outputs: self.repo.outputs()?,
            text,
        })
    }
}
