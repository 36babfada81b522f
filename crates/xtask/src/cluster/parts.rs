//! What a cluster consists of, and with which commands its parts run.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::process::installed;

/// Nodes, and copies of everything.
const NODES: usize = 3;
const REPLICAS: usize = 2;
/// What each node may take on disk, on demand.
const NODE_BYTES: &str = "9GiB";
/// Credentials of the S3 server.
pub(crate) const S3_USER: &str = "zimcache";
pub(crate) const S3_SECRET: &str = "zimcache-secret";
pub(crate) const BUCKET: &str = "zimcache";

/// How a part tells that it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// A GET of this path at this address is answered with 200.
    Http(SocketAddr, &'static str),
    /// The gateway at this address reaches every node.
    Gateway(SocketAddr),
    /// It answers `PING`.
    Redis(SocketAddr),
}

/// A process to be.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// `gateway`, `node`, `s3` or `redis`.
    pub(crate) role: &'static str,
    pub(crate) name: String,
    /// Where it is asked: of a node the page for those who run it.
    pub(crate) address: SocketAddr,
    pub(crate) url: String,
    pub(crate) health: Health,
    pub(crate) command: Vec<String>,
}

/// The programs that parts are made of, and how many gateways there are.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) zimcache: &'a Path,
    pub(crate) versitygw: &'a Path,
    pub(crate) gateways: usize,
    pub(crate) with_redis: bool,
}

/// Everything that is to be started, in this order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    folder: PathBuf,
    program: PathBuf,
    ring: serde_json::Value,
}

/// Ports that no outgoing connection takes, whose range begins at 32768: a process that is started again finds its own
/// one free.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// An address of this machine that nobody listens on. Somebody may before we do: then the start fails and says so.
fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let many = u32::from(PORTS.end - PORTS.start);
    for _ in 0..many {
        let next = std::process::id().wrapping_mul(31) + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + u16::try_from(next % many)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port of 127.0.0.1 from {PORTS:?} is free")
}

impl Plan {
    /// Chooses ports and commands; nothing is started.
    pub(crate) fn new(folder: &Path, wanted: &Wanted<'_>) -> Result<Plan> {
        let mut parts = vec![s3(folder, wanted.versitygw)?];
        if wanted.with_redis {
            parts.push(redis(folder)?);
        }
        let redis = parts.iter().find(|part| part.role == "redis").cloned();
        let mut members = Vec::new();
        for number in 0..NODES {
            let (node, member) = node(folder, number, &parts[0])?;
            members.push(member);
            parts.push(node);
        }
        for number in 0..wanted.gateways {
            parts.push(gateway(folder, number, redis.as_ref())?);
        }
        let ring = json!({
            "epoch": 1, "hash": "v1", "replicas": REPLICAS, "current": { "members": members },
        });
        Ok(Plan {
            parts,
            folder: folder.to_owned(),
            program: wanted.zimcache.to_owned(),
            ring,
        })
    }

    /// Puts programs, ring and empty disks in their places.
    pub(crate) fn prepare(&self) -> Result<()> {
        for name in ["data", "log", "run", "config", "bin"] {
            let path = self.folder.join(name);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            fs::create_dir_all(&path)?;
        }
        for name in ["zim", "zim-gateway", "zim-node"] {
            symlink(&self.program, self.folder.join("bin").join(name))?;
        }
        let ring = serde_json::to_vec_pretty(&self.ring)?;
        fs::write(self.folder.join("config/ring.json"), ring)?;
        for part in &self.parts {
            fs::create_dir_all(self.folder.join("data").join(&part.name))?;
        }
        Ok(())
    }
}

/// A path in the cluster's folder, as an argument.
fn path(folder: &Path, below: &str) -> Result<String> {
    Ok(text(&folder.join(below))?.to_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("the path {} is no text", path.display()))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn s3(folder: &Path, program: &Path) -> Result<Part> {
    let address = free_address()?;
    let (user, secret) = (
        format!("ROOT_ACCESS_KEY={S3_USER}"),
        format!("ROOT_SECRET_KEY={S3_SECRET}"),
    );
    let command = [
        &installed("env")?,
        &user,
        &secret,
        text(program)?,
        "--port",
        &address.to_string(),
        "--health",
        "/health",
        "--quiet",
        "posix",
        &path(folder, "data/s3")?,
    ];
    Ok(Part {
        role: "s3",
        name: "s3".to_owned(),
        address,
        url: format!("http://{address}"),
        health: Health::Http(address, "/health"),
        command: words(&command),
    })
}

fn redis(folder: &Path) -> Result<Part> {
    let address = free_address()?;
    let command = [
        &installed("redis-server")?,
        "--bind",
        "127.0.0.1",
        "--port",
        &address.port().to_string(),
        "--dir",
        &path(folder, "data/redis")?,
        "--pidfile",
        &path(folder, "run/redis.pid")?,
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    Ok(Part {
        role: "redis",
        name: "redis".to_owned(),
        address,
        url: format!("redis://{address}"),
        health: Health::Redis(address),
        command: words(&command),
    })
}

/// A node, and what the ring says of it.
fn node(folder: &Path, number: usize, s3: &Part) -> Result<(Part, serde_json::Value)> {
    let name = format!("node-{number}");
    let (listen, admin) = (free_address()?, free_address()?);
    let (user, secret) = (
        format!("AWS_ACCESS_KEY_ID={S3_USER}"),
        format!("AWS_SECRET_ACCESS_KEY={S3_SECRET}"),
    );
    let command = [
        &installed("env")?,
        &user,
        &secret,
        &path(folder, "bin/zim-node")?,
        "--ring",
        &path(folder, "config/ring.json")?,
        "--member",
        &name,
        "--listen",
        &listen.to_string(),
        "--admin",
        &admin.to_string(),
        "--storage",
        &path(folder, &format!("data/{name}"))?,
        "--max-size",
        NODE_BYTES,
        "--pid-file",
        &path(folder, &format!("run/{name}.pid"))?,
        "--s3-bucket",
        BUCKET,
        "--s3-endpoint",
        &s3.url,
        "--s3-create-bucket",
    ];
    let member = json!({ "id": name, "address": format!("http://{listen}"), "state": "ready" });
    let part = Part {
        role: "node",
        address: admin,
        url: format!("http://{admin}"),
        health: Health::Http(admin, "/ready"),
        command: words(&command),
        name,
    };
    Ok((part, member))
}

fn gateway(folder: &Path, number: usize, redis: Option<&Part>) -> Result<Part> {
    let name = format!("gateway-{number}");
    let address = free_address()?;
    let mut command = words(&[
        &path(folder, "bin/zim-gateway")?,
        "--ring",
        &path(folder, "config/ring.json")?,
        "--bind",
        "127.0.0.1",
        "--port",
        &address.port().to_string(),
        "--anonymous",
        "read-write",
        "--pid-file",
        &path(folder, &format!("run/{name}.pid"))?,
    ]);
    if let Some(redis) = redis {
        command.extend(words(&["--redis-url", &redis.url]));
    }
    Ok(Part {
        role: "gateway",
        address,
        url: format!("http://{address}"),
        health: Health::Gateway(address),
        command,
        name,
    })
}
