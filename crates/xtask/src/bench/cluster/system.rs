//! A cluster that belongs to the benchmark: every process on the server core, told to stop when the benchmark dies.
//!
//! Invariants: processes end in the reverse order of their start, so that nodes can still hand over to S3 what is dirty;
//! a disk is emptied only while nobody uses it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    super::{
        client,
        peers::Tools,
        server::{Server, pinned},
        subject::Subject,
    },
    long_way,
    s3::Requests,
};
use crate::cluster::{BUCKET, Part, Plan, Wanted, is_healthy};

/// How long the number of dirty records may stand still.
const STANDSTILL: Duration = Duration::from_mins(2);
/// How long nodes may take to list a million objects.
const LISTING: Duration = Duration::from_mins(20);
const PAUSE: Duration = Duration::from_millis(50);
/// What nodes are told of the bucket begins with this.
const BUCKET_FLAG: &str = "--s3-bucket";
/// What a node's page of figures says when it knows what the bucket has.
const LISTED: &str = "\nzimcache_s3_listed 1\n";

/// A running cluster.
#[derive(Debug)]
pub(super) struct System {
    plan: Plan,
    folder: PathBuf,
    gateway_flags: Vec<String>,
    /// Whether the nodes are told of the bucket.
    has_bucket: bool,
    /// Where they are told that the S3 server is; `None` for where it is.
    way_to_s3: Option<SocketAddr>,
    /// In the order of the plan.
    running: Vec<Server>,
}

impl System {
    /// Starts an S3 server, three nodes and a gateway with these flags, and waits until all are well.
    pub(super) fn start(tools: &Tools, folder: &Path, gateway_flags: &[&str]) -> Result<System> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let zimcache = tools.zimcache.canonicalize()?;
        let wanted = Wanted {
            zimcache: &zimcache,
            versitygw: &tools.s3,
            gateways: 1,
            with_redis: false,
        };
        let plan = Plan::new(&folder, &wanted)?;
        plan.prepare()?;
        let mut system = System {
            plan,
            folder,
            gateway_flags: gateway_flags.iter().map(ToString::to_string).collect(),
            has_bucket: true,
            way_to_s3: None,
            running: Vec::new(),
        };
        system.run_all()?;
        Ok(system)
    }

    /// Starts what does not run.
    fn run_all(&mut self) -> Result<()> {
        // A part is asked for by those behind it: each kind is well before the next one begins.
        for role in ["s3", "node", "gateway"] {
            let numbers = self.numbers(role);
            for number in numbers.clone() {
                if number >= self.running.len() {
                    let server = self.spawn(&self.plan.parts[number])?;
                    self.running.push(server);
                }
            }
            for number in numbers {
                let part = &self.plan.parts[number];
                self.running[number]
                    .wait_for(|_| Ok(is_healthy(part.health)))
                    .with_context(|| part.name.clone())?;
            }
        }
        let nodes = self
            .numbers("node")
            .map(|number| self.running[number].pid());
        let nodes = nodes.collect();
        if let Some(gateway) = self.running.last_mut() {
            gateway.is_served_by(nodes);
        }
        Ok(())
    }

    fn numbers(&self, role: &str) -> std::ops::Range<usize> {
        let roles = || self.plan.parts.iter().map(|part| part.role);
        let first = roles().take_while(|other| *other != role).count();
        first..first + roles().filter(|other| *other == role).count()
    }

    fn spawn(&self, part: &Part) -> Result<Server> {
        let log = self.folder.join("log").join(&part.name);
        fs::create_dir_all(&log)?;
        let (program, words) = part.command.split_first().context("no command")?;
        let mut command = pinned(Path::new(program), &log)?;
        let is_told = |word: &&String| self.has_bucket || *word != BUCKET_FLAG;
        let words = words.iter().take_while(is_told);
        let s3 = &self.plan.parts[0].url;
        let way_to_s3 = format!("http://{}", self.way_to_s3());
        command.args(words.map(|word| if word == s3 { &way_to_s3 } else { word }));
        match part.role {
            "gateway" => {
                command.args(&self.gateway_flags);
            }
            "s3" => {
                command.env("VGW_ACCESS_LOG", self.s3_log());
            }
            _ => {}
        }
        let child = command.spawn()?;
        Ok(Server::of(Subject::Cluster, part.address, child))
    }

    /// The gateway, which the nodes serve with.
    pub(super) fn gateway(&self) -> Result<&Server> {
        self.running.last().context("no gateway runs")
    }

    /// Where nodes started from now on find the S3 server: at the end of a way on which a byte takes so long.
    pub(super) fn move_s3_away(&mut self, delay: Duration) -> Result<()> {
        self.way_to_s3 = Some(long_way::to(self.s3_address(), delay)?);
        Ok(())
    }

    /// Where nodes find the S3 server.
    pub(super) fn way_to_s3(&self) -> SocketAddr {
        self.way_to_s3.unwrap_or_else(|| self.s3_address())
    }

    /// Where the S3 server listens.
    fn s3_address(&self) -> SocketAddr {
        self.plan.parts[0].address
    }

    /// What the S3 server was asked.
    pub(super) fn s3_requests(&self) -> Requests {
        Requests::new(self.s3_log(), self.s3_address())
    }

    fn s3_log(&self) -> PathBuf {
        self.folder.join("log/s3-requests")
    }

    /// The folder of the bucket's objects.
    pub(super) fn bucket(&self) -> PathBuf {
        self.folder.join("data/s3").join(BUCKET)
    }

    /// Waits until nothing is dirty on any node: the bucket has everything.
    pub(super) fn wait_until_clean(&self) -> Result<()> {
        let (mut least, mut since) = (u64::MAX, Instant::now());
        loop {
            let dirty = self.dirty()?;
            if dirty == 0 {
                return Ok(());
            }
            if dirty < least {
                (least, since) = (dirty, Instant::now());
            }
            ensure!(
                since.elapsed() < STANDSTILL,
                "{dirty} records do not get into the bucket"
            );
            thread::sleep(PAUSE);
        }
    }

    fn dirty(&self) -> Result<u64> {
        let mut dirty = 0;
        for number in self.numbers("node") {
            let address = self.plan.parts[number].address;
            let (_, status) = client::get(address, "/admin/v1/status")?;
            let status: serde_json::Value = serde_json::from_slice(&status)?;
            dirty += status["dirty"].as_u64().context("a node tells nothing")?;
        }
        Ok(dirty)
    }

    /// Waits until every node knows what the bucket has.
    pub(super) fn wait_until_listed(&self) -> Result<()> {
        let start = Instant::now();
        for number in self.numbers("node") {
            let address = self.plan.parts[number].address;
            while !String::from_utf8_lossy(&client::get(address, "/metrics")?.1).contains(LISTED) {
                ensure!(start.elapsed() < LISTING, "the bucket is not listed");
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Every process but the S3 server starts again, the nodes with or without the bucket.
    pub(super) fn restart(&mut self, has_bucket: bool) -> Result<()> {
        self.stop();
        self.has_bucket = has_bucket;
        self.run_all()
    }

    fn stop(&mut self) {
        while self.running.len() > self.numbers("node").start {
            self.running.pop();
        }
    }

    /// Every node gets a new disk, and every process but the S3 server starts again.
    pub(super) fn lose_disks(&mut self) -> Result<()> {
        self.stop();
        for number in self.numbers("node") {
            let disk = self.folder.join("data").join(&self.plan.parts[number].name);
            fs::remove_dir_all(&disk)?;
            fs::create_dir(&disk)?;
        }
        self.run_all()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        while self.running.pop().is_some() {}
    }
}
