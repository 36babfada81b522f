//! A whole cluster of real processes: nodes, gateways, an S3 server and Redis, with a fault proxy between all of them.
//!
//! Every process listens on a port that the kernel chooses, and keeps its address for the others when it is started
//! again: that is the proxy's. Everything lies in one temporary folder and ends with the guard. Not here: what is
//! asked of a cluster (`client`, `load`), and what is done to it (`chaos`).

pub mod backing;
pub mod chaos;
pub mod client;
pub mod gateway;
pub mod load;
pub mod node;
pub mod program;
mod source;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use self::backing::{Backing, S3_SECRET, S3_USER};
use self::gateway::{Doors, Gateway};
use self::node::{Node, Standing};
use self::program::Program;
use self::wire::{Rule, Wires};
use crate::environment::{scratch, zim_binary};
use crate::http;
use crate::process::{Tool, said};

/// Longest time until a cluster that starts is healthy.
const START_LIMIT: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(50);
/// Names on the wires.
pub const S3: &str = "s3";
/// See [`S3`].
pub const REDIS: &str = "redis";

/// What a cluster is to consist of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// How many gateways.
    pub gateways: usize,
    /// How many copies of everything.
    pub replicas: u32,
    /// Whether there is an S3 bucket behind the nodes.
    pub bucket: bool,
    /// Whether gateways share rate limits in Redis.
    pub redis: bool,
    /// What each node may take on its disk.
    pub max_size: String,
    /// More flags of each gateway.
    pub gateway_flags: Vec<String>,
    /// More flags of each node.
    pub node_flags: Vec<String>,
    /// Where some node keeps what it keeps, instead of in the cluster's folder.
    pub disks: Vec<(usize, PathBuf)>,
    /// Decides what the fault proxy decides.
    pub seed: u64,
}

impl Default for Plan {
    /// Three nodes, two copies, two gateways; no bucket and no Redis.
    fn default() -> Plan {
        Plan {
            nodes: 3,
            gateways: 2,
            replicas: 2,
            bucket: false,
            redis: false,
            max_size: "4GiB".to_owned(),
            gateway_flags: Vec::new(),
            node_flags: Vec::new(),
            disks: Vec::new(),
            seed: 1,
        }
    }
}

/// A running cluster. Dropping it kills every process of it.
#[derive(Debug)]
pub struct Cluster {
    // Processes end before their folder goes.
    /// Its gateways.
    pub gateways: Vec<Gateway>,
    /// Its nodes, also those that left the ring.
    pub nodes: Vec<Node>,
    /// The S3 server.
    pub s3: Option<Backing>,
    /// The Redis.
    pub redis: Option<Backing>,
    /// The network.
    pub wires: Wires,
    plan: Plan,
    doors: Doors,
    s3_url: Option<String>,
    folder: TempDir,
}

impl Cluster {
    /// Starts one and waits until all of it is well.
    ///
    /// # Errors
    /// When a program is missing or something does not get well in time.
    pub fn start(plan: &Plan) -> Result<Cluster> {
        let folder = scratch("cluster")?;
        let wires = Wires::new(plan.seed);
        let mut cluster = Cluster {
            gateways: Vec::new(),
            nodes: Vec::new(),
            s3: None,
            redis: None,
            wires,
            plan: plan.clone(),
            doors: Doors::default(),
            s3_url: None,
            folder,
        };
        cluster.start_backing()?;
        let mut members = Vec::new();
        for _ in 0..plan.nodes {
            members.push(cluster.add_node()?);
        }
        let replicas = plan.replicas.to_string();
        let mut words = vec!["ring", "init", "--replicas", &replicas];
        words.extend(members.iter().map(String::as_str));
        cluster.zim_cluster_ring(&words)?;
        for node in &mut cluster.nodes {
            node.start()?;
        }
        let redis = cluster.redis_url()?;
        for number in 0..plan.gateways {
            let program = cluster.gateway_program(number, redis.as_deref())?;
            let gateway = Gateway::new(number, program, &cluster.wires, &cluster.doors);
            cluster.gateways.push(gateway);
            cluster.gateways[number].start()?;
        }
        cluster.wait_until_converged(START_LIMIT)?;
        Ok(cluster)
    }

    fn start_backing(&mut self) -> Result<()> {
        if self.plan.bucket {
            let s3 = Backing::s3(&self.folder.path().join("s3"), &self.log(S3))?;
            self.wires.is_at(S3, s3.id(), s3.address());
            self.s3_url = Some(format!("http://{}", self.wires.address_of(S3)?));
            self.s3 = Some(s3);
        }
        if self.plan.redis {
            let redis = Backing::redis(&self.folder.path().join("redis"), &self.log(REDIS))?;
            self.wires.is_at(REDIS, redis.id(), redis.address());
            self.redis = Some(redis);
        }
        Ok(())
    }

    fn redis_url(&self) -> Result<Option<String>> {
        if self.redis.is_none() {
            return Ok(None);
        }
        Ok(Some(format!("redis://{}", self.wires.address_of(REDIS)?)))
    }

    /// Adds a node that does not run yet and is in no ring; what to call it in one is `ID=ADDRESS`.
    ///
    /// # Errors
    /// Those of the file system or the socket.
    pub fn add_node(&mut self) -> Result<String> {
        let number = self.nodes.len();
        let name = format!("node-{number}");
        let address = self.wires.address_of(&name)?;
        let given = self.plan.disks.iter().find(|(node, _)| *node == number);
        let storage = given.map_or_else(
            || self.folder.path().join(&name),
            |(_, path)| path.to_owned(),
        );
        std::fs::create_dir_all(&storage)?;
        let program = self.node_program(&name, &storage)?;
        self.nodes
            .push(Node::new(&name, &storage, program, &self.wires));
        Ok(format!("{name}=http://{address}"))
    }

    fn node_program(&self, name: &str, storage: &Path) -> Result<Program> {
        let mut program = Program::new(name, &self.log(name), &[&zim_binary()?, &"node"])
            .args(&["--member", name, "--max-size", &self.plan.max_size])
            .args(&["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(&[
                Path::new("--ring"),
                &self.ring(),
                Path::new("--storage"),
                storage,
            ])
            .args(&self.plan.node_flags);
        if let Some(url) = &self.s3_url {
            program = program
                .args(&["--s3-bucket", "zimcache", "--s3-endpoint", url])
                .args(&["--s3-create-bucket"])
                .env("AWS_ACCESS_KEY_ID", S3_USER)
                .env("AWS_SECRET_ACCESS_KEY", S3_SECRET);
        }
        Ok(program)
    }

    fn gateway_program(&self, number: usize, redis: Option<&str>) -> Result<Program> {
        let name = format!("gateway-{number}");
        let mut program = Program::new(&name, &self.log(&name), &[&zim_binary()?, &"gateway"])
            .args(&["--bind", "127.0.0.1", "--port", "0"])
            .args(&["--anonymous", "read-write"])
            .args(&[Path::new("--ring"), &self.ring()])
            .args(&self.plan.gateway_flags);
        if let Some(url) = redis {
            // Nobody here has a token. A limit in use may refuse requests when its gateway gets no processor for longer
            // than a lease lasts, which says nothing about a cluster.
            program = program.args(&["--redis-url", url, "--limit-per-token", "1000/s"]);
        }
        Ok(program)
    }

    fn ring(&self) -> PathBuf {
        self.folder.path().join("ring.json")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Where the gateways are.
    pub fn doors(&self) -> Doors {
        self.doors.clone()
    }

    /// Runs `zim cluster ring …` or another command that changes the ring, and returns what it said.
    ///
    /// # Errors
    /// When it fails.
    pub fn zim_cluster_ring(&self, words: &[&str]) -> Result<String> {
        let mut tool = Tool::new(zim_binary()?, 300).clear_env();
        tool = tool.args(["cluster"]).args(words);
        tool = tool.args([Path::new("--ring"), &self.ring()]);
        if let Some(gateway) = self.gateways.first() {
            tool = tool.args(["--url", &format!("http://{}", gateway.address()?)]);
        }
        // What a person has configured must not decide where a test looks.
        let home = self.folder.path();
        let output = tool.env("HOME", home).run_ok()?;
        Ok(said(&output))
    }

    /// Takes every fault away: rules of the network, and processes that do not run.
    ///
    /// # Errors
    /// When something does not start.
    pub fn heal(&mut self) -> Result<()> {
        self.wires.heal();
        for (name, backing) in [(S3, &mut self.s3), (REDIS, &mut self.redis)] {
            if let Some(backing) = backing.as_mut().filter(|backing| backing.id() == 0) {
                backing.begin()?;
                self.wires.is_at(name, backing.id(), backing.address());
            }
        }
        for node in &mut self.nodes {
            match node.process() {
                Ok(process) => process.go_on()?,
                Err(_) => node.start()?,
            }
        }
        for gateway in &mut self.gateways {
            match gateway.process() {
                Ok(process) => process.go_on()?,
                Err(_) => gateway.start()?,
            }
        }
        Ok(())
    }

    /// Cuts a node off from everybody else, in this way, both when it is called and when it calls.
    pub fn isolate(&self, node: &str, rule: Rule) {
        let others = self
            .nodes
            .iter()
            .map(Node::name)
            .filter(|other| *other != node);
        for other in others.chain([S3]) {
            self.wires.put(node, other, rule);
            self.wires.put(other, node, rule);
        }
        for gateway in &self.gateways {
            self.wires.put(gateway.name(), node, rule);
        }
    }

    /// Waits until every node that runs has caught up and no record waits for another owner, and every gateway reaches
    /// every member; returns how long that took.
    ///
    /// # Errors
    /// When it takes longer than that; the text says what is still open.
    pub fn wait_until_converged(&self, limit: Duration) -> Result<Duration> {
        self.wait_until(limit, |standing| {
            !standing.catching_up && standing.hints == 0
        })
    }

    /// The same, and the bucket has everything.
    ///
    /// # Errors
    /// When it takes longer than that; the text says what is still open.
    pub fn wait_until_uploaded(&self, limit: Duration) -> Result<Duration> {
        self.wait_until(limit, |standing| {
            !standing.catching_up && standing.hints == 0 && standing.dirty == 0
        })
    }

    fn wait_until(&self, limit: Duration, is_well: fn(&Standing) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let open = self.what_is_open(is_well);
            if open.is_empty() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > limit {
                bail!("after {limit:?}: {}\n{}", open.join("; "), self.log_tails());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn what_is_open(&self, is_well: fn(&Standing) -> bool) -> Vec<String> {
        let mut open = Vec::new();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            match node.status() {
                Ok(standing) if is_well(&standing) => {}
                Ok(standing) => open.push(format!("{}: {standing:?}", node.name())),
                Err(error) => open.push(format!("{}: {error:#}", node.name())),
            }
        }
        for gateway in self.gateways.iter().filter(|gateway| gateway.is_running()) {
            match members(gateway) {
                Ok(unreachable) if unreachable.is_empty() => {}
                Ok(unreachable) => {
                    open.push(format!("{} reaches no {unreachable:?}", gateway.name()));
                }
                Err(error) => open.push(format!("{}: {error:#}", gateway.name())),
            }
        }
        open
    }

    /// How every node that runs stands.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn standings(&self) -> Result<Vec<Standing>> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        running.map(Node::status).collect()
    }

    /// The last words of all processes, for failure texts.
    pub fn log_tails(&self) -> String {
        let names = self.nodes.iter().map(Node::name);
        let names = names.chain(self.gateways.iter().map(Gateway::name));
        let tails = names.map(|name| format!("--- {name}\n{}", program::tail_of(&self.log(name))));
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Leaves the folder with logs and disks where it is, for whoever looks for the cause of a failure.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

/// Members that a gateway does not reach.
fn members(gateway: &Gateway) -> Result<Vec<String>> {
    let response = http::once(gateway.address()?, "GET", "/api/v1/cluster", &[], None)?;
    let report: serde_json::Value = serde_json::from_slice(&response.body)
        .with_context(|| format!("{} {}", response.status, response.text()))?;
    let members = report["members"].as_array().context("members")?;
    let lacking = members.iter().filter(|member| member["reachable"] != true);
    Ok(lacking.map(|member| member["id"].to_string()).collect())
}
