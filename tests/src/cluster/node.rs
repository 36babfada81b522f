//! A node of the cluster under test: its disk, its process, and what it says of itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::program::{Program, Running};
use super::wire::Wires;
use crate::http::Connection;

/// Longest wait for an answer of a node's own page.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A node. Dropping it kills its process.
#[derive(Debug)]
pub struct Node {
    name: String,
    storage: PathBuf,
    program: Program,
    wires: Wires,
    running: Option<Running>,
    admin: Option<SocketAddr>,
}

impl Node {
    pub(super) fn new(name: &str, storage: &Path, program: Program, wires: &Wires) -> Node {
        Node {
            name: name.to_owned(),
            storage: storage.to_owned(),
            program,
            wires: wires.clone(),
            running: None,
            admin: None,
        }
    }

    /// Its name in the ring and on the wires.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it keeps what it keeps.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self) -> Result<&Running> {
        let running = self.running.as_ref();
        running.with_context(|| format!("{} does not run", self.name))
    }

    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it on what it has on its disk; returns once it listens.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} runs already", self.name);
        let mut running = self.program.start()?;
        self.wires.is_process(&self.name, running.id());
        self.admin = Some(running.address_after("health and metrics on ")?);
        let address = running.address_after("listening on ")?;
        self.wires.is_at(&self.name, running.id(), address);
        self.running = Some(running);
        Ok(())
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_9(&mut self) -> Result<()> {
        self.taken()?.kill_9()
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not stop in time, or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        self.taken()?.stop()
    }

    fn taken(&mut self) -> Result<Running> {
        self.admin = None;
        let running = self.running.take();
        running.with_context(|| format!("{} does not run", self.name))
    }

    /// Removes everything from its disk, as a new disk would have it. It must not run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn wipe(&self) -> Result<()> {
        ensure!(self.running.is_none(), "{} still runs", self.name);
        for item in std::fs::read_dir(&self.storage)? {
            let path = item?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(path)?;
            } else {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// How it stands, in its own words.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Standing> {
        let (status, body) = self.ask("/admin/v1/status")?;
        if status != 200 {
            bail!("{} says {status} when asked how it stands", self.name);
        }
        Standing::of(&serde_json::from_slice(&body)?)
    }

    /// Whether it knows all that it missed.
    pub fn is_ready(&self) -> bool {
        self.ask("/ready").is_ok_and(|(status, _)| status == 200)
    }

    /// What it would tell those who watch it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        let (_, body) = self.ask("/metrics")?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn ask(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let at = self
            .admin
            .with_context(|| format!("{} does not run", self.name))?;
        let mut connection = Connection::open_patiently(at, ANSWER_LIMIT)?;
        let response = connection.request("GET", path, &["Connection: close"], None)?;
        Ok((response.status, response.body))
    }

    /// Waits until it knows all that it missed.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_ready(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.is_ready() {
            if begun.elapsed() > limit {
                let status = self.status();
                let said = self.process().map(Running::log_tail).unwrap_or_default();
                bail!(
                    "{} is not ready after {limit:?}: {status:?}\n{said}",
                    self.name
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Epoch of the ring that it follows.
    pub epoch: u64,
    /// Epoch of the placement for which it handed everything over.
    pub synced_epoch: u64,
    /// Whether it has not heard yet what it missed.
    pub catching_up: bool,
    /// Records that another owner may lack.
    pub hints: u64,
    /// Records that are not in the bucket.
    pub dirty: u64,
    /// Blobs held.
    pub blobs: u64,
    /// Entries held.
    pub entries: u64,
}

impl Standing {
    fn of(document: &Value) -> Result<Standing> {
        let number = |place: &Value, name: &str| {
            let number = place[name].as_u64();
            number.with_context(|| format!("{name} in {document}"))
        };
        let stats = &document["stats"];
        Ok(Standing {
            epoch: number(document, "epoch")?,
            synced_epoch: number(document, "syncedEpoch")?,
            catching_up: document["catchingUp"].as_bool().context("catchingUp")?,
            hints: number(document, "hints")?,
            dirty: number(document, "dirty")?,
            blobs: number(stats, "blobs")?,
            entries: number(stats, "entries")?,
        })
    }
}
