//! Helm as a user types it, version 3 or 4.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use zimcache_tests::process::Tool;

use crate::kube::Kube;

/// The name of the installation.
pub(crate) const RELEASE: &str = "zim";
/// Longest time of one command.
const CALL_SECONDS: u32 = 300;

/// Which Helm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// With client-side changes.
    Three,
    /// With server-side apply.
    Four,
}

/// Helm, the chart, and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Helm {
    chart: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Helm {
    pub(crate) fn new(chart: &Path, kube: &Kube) -> Helm {
        Helm {
            chart: chart.to_owned(),
            kubeconfig: kube.config().to_owned(),
            namespace: kube.namespace().to_owned(),
        }
    }

    /// Runs one command and returns what it printed.
    pub(crate) fn run(&self, version: Version, words: &[&str]) -> Result<String> {
        let program = match version {
            Version::Three => "helm3",
            Version::Four => "helm4",
        };
        let tool = Tool::new(program, CALL_SECONDS)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(words);
        let output = tool.run_ok();
        let output = output.with_context(|| format!("{program} {}", words.join(" ")))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `install` or `upgrade` of the chart with the values of these tests, and `more` of them.
    pub(crate) fn apply(&self, version: Version, verb: &str, more: &[&str]) -> Result<String> {
        let values = self.values();
        let chart = self.chart();
        let words = [verb, RELEASE, &chart, "--values", &values];
        self.run(version, &[&words, more].concat())
    }

    pub(crate) fn chart(&self) -> String {
        self.chart.display().to_string()
    }

    pub(crate) fn values(&self) -> String {
        self.chart.join("ci/e2e-values.yaml").display().to_string()
    }
}
