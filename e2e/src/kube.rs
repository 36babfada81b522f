//! The cluster as `kubectl` shows it: objects as JSON, changes as a user would type them, waiting with a deadline.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use zimcache_tests::process::{Tool, said};

/// Longest time of one call.
const CALL_SECONDS: u32 = 120;
const PAUSE: Duration = Duration::from_millis(300);

/// One namespace of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Kube {
    config: PathBuf,
    namespace: String,
}

impl Kube {
    pub(crate) fn new(config: &Path, namespace: &str) -> Kube {
        Kube {
            config: config.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    fn tool(&self) -> Tool {
        Tool::new("kubectl", CALL_SECONDS)
            .env("KUBECONFIG", &self.config)
            .args(["--namespace", &self.namespace])
    }

    /// Runs kubectl and returns what it printed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.tool().args(words).run_ok();
        let output = output.with_context(|| format!("kubectl {}", words.join(" ")))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs kubectl, which has to fail, and returns what it complained.
    pub(crate) fn refused(&self, words: &[&str]) -> Result<String> {
        let output = self.tool().args(words).run()?;
        let said = said(&output);
        ensure!(
            !output.status.success(),
            "kubectl {} passed: {said}",
            words.join(" ")
        );
        Ok(said)
    }

    /// An object, or a list of them, as JSON.
    pub(crate) fn get(&self, words: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "--output=json"], words].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The items of a list.
    pub(crate) fn list(&self, words: &[&str]) -> Result<Vec<Value>> {
        let list = self.get(words)?;
        let items = list["items"].as_array().context("items of a list")?;
        Ok(items.clone())
    }

    /// Whether an object is there.
    pub(crate) fn has(&self, kind: &str, name: &str) -> Result<bool> {
        let found = self.run(&["get", kind, name, "--ignore-not-found", "--output=name"])?;
        Ok(!found.trim().is_empty())
    }

    /// Changes an object as `kubectl patch --type=merge`.
    pub(crate) fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        self.run(&["patch", kind, name, "--type=merge", "--patch", &patch])
            .map(drop)
    }

    /// Makes or changes an object.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let mut child = Command::new("kubectl")
            .env("KUBECONFIG", &self.config)
            .args(["--namespace", &self.namespace, "apply", "--filename=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("the input of kubectl")?;
        input.write_all(object.to_string().as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "kubectl apply: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// The pods with a label, also those that are on their way out.
    pub(crate) fn pods(&self, label: &str) -> Result<Vec<Pod>> {
        let pods = self.list(&["pods", "--selector", label])?;
        Ok(pods.iter().map(Pod::of).collect())
    }
}

/// What the checks ask of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The node of the cluster.
    pub(crate) machine: String,
    pub(crate) is_ready: bool,
    pub(crate) is_leaving: bool,
    pub(crate) restarts: u64,
}

impl Pod {
    fn of(pod: &Value) -> Pod {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let containers = pod["status"]["containerStatuses"].as_array();
        let restarts = |status: &Value| status["restartCount"].as_u64().unwrap_or(0);
        Pod {
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            machine: text(&pod["spec"]["nodeName"]),
            is_ready: is_true(pod, "Ready"),
            is_leaving: !pod["metadata"]["deletionTimestamp"].is_null(),
            restarts: containers.into_iter().flatten().map(restarts).sum(),
        }
    }
}

/// A condition in the status of an object.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Whether an object says that a condition is so.
pub(crate) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Asks again and again until the answer is `None`; what it says is missing shows in the failure.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    mut missing: impl FnMut() -> Result<Option<String>>,
) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        // A server that is busy may fail a call; only the last one counts.
        let missing = match missing() {
            Ok(None) => return Ok(begun.elapsed()),
            Ok(Some(missing)) => missing,
            Err(error) => format!("{error:#}"),
        };
        if begun.elapsed() > limit {
            bail!("not after {} s: {what}: {missing}", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}
