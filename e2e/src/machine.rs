//! What only some clusters offer: machines that can be switched off and on, and a way in where there is none.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use zimcache_tests::process::Tool;

use crate::kube::Kube;

/// The machines of a cluster of `e2e/cluster/up`.
#[derive(Debug)]
pub(crate) struct Machines {
    run: PathBuf,
}

impl Machines {
    pub(crate) fn new(run: PathBuf) -> Machines {
        Machines { run }
    }

    /// Cuts the power: everything that runs on it is gone at once.
    pub(crate) fn cut_power(&self, name: &str) -> Result<()> {
        let file = self.run.join(name).join("init.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let init = text.split(' ').next().context("a process id")?;
        Tool::new("kill", 10).args(["-9", init]).run_ok().map(drop)
    }

    /// Switches it on again, with the disk it had.
    pub(crate) fn switch_on(&self, name: &str) -> Result<()> {
        let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/up");
        let tool = Tool::new(up, 120).env("RESTART", name);
        tool.env("ZIMCACHE_E2E_RUN", &self.run).run_ok().map(drop)
    }
}

/// `kubectl port-forward`, for a cluster whose network is not ours. It leads to one pod for as long as that lives.
#[derive(Debug)]
pub(crate) struct Forward {
    child: Child,
    address: SocketAddr,
}

impl Forward {
    pub(crate) fn start(kube: &Kube, service: &str, port: u16) -> Result<Forward> {
        let mut child = Command::new("kubectl")
            .env("KUBECONFIG", kube.config())
            .args(["--namespace", kube.namespace(), "port-forward"])
            .args([format!("service/{service}"), format!(":{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("the output of kubectl")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            let address = line.strip_prefix("Forwarding from ");
            let address = address.and_then(|rest| rest.split(' ').next()?.parse().ok());
            if let Some(address) = address {
                return Ok(Forward { child, address });
            }
        }
        child.kill().ok();
        child.wait().ok();
        bail!("kubectl port-forward ended")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
