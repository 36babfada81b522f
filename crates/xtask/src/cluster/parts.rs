//! What a cluster consists of, and with which commands its parts run.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::process::{installed, program};

/// Nodes, and copies of everything.
const NODES: usize = 3;
const REPLICAS: usize = 2;
const GATEWAYS: usize = 2;
/// What each node may take on disk, on demand.
const NODE_BYTES: &str = "8GiB";
/// Credentials of the S3 server.
const S3_USER: &str = "zimcache";
const S3_SECRET: &str = "zimcache-secret";
const BUCKET: &str = "zimcache";

/// How a part tells that it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// A GET of this path at this address is answered with 200.
    Http(SocketAddr, &'static str),
    /// The gateway at this address reaches every node.
    Gateway(SocketAddr),
    /// It answers `PING`.
    Redis(SocketAddr),
}

/// A process to be.
#[derive(Debug)]
pub(super) struct Part {
    /// `gateway`, `node`, `s3` or `redis`.
    pub(super) role: &'static str,
    pub(super) name: String,
    pub(super) url: String,
    pub(super) health: Health,
    pub(super) command: Vec<String>,
}

/// Everything that is to be started, in this order.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    folder: PathBuf,
    program: PathBuf,
    ring: serde_json::Value,
}

/// An address of this machine that nobody listens on. Somebody may before we do: then the start fails and says so.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Plan {
    /// Chooses ports and commands; nothing is started.
    pub(super) fn new(root: &Path, folder: &Path) -> Result<Plan> {
        let target = std::env::var_os("CARGO_TARGET_DIR");
        let target = target.map_or_else(|| root.join("target"), PathBuf::from);
        let program = target.join("release/zim");
        ensure!(
            program.is_file(),
            "there is no {}; make build makes it",
            program.display()
        );
        let s3 = s3(folder)?;
        let redis = redis(folder)?;
        let mut members = Vec::new();
        let mut parts = Vec::new();
        for number in 0..NODES {
            let (node, member) = node(folder, number, &s3)?;
            members.push(member);
            parts.push(node);
        }
        for number in 0..GATEWAYS {
            parts.push(gateway(folder, number, &redis)?);
        }
        parts.splice(0..0, [s3, redis]);
        let ring = json!({
            "epoch": 1, "hash": "v1", "replicas": REPLICAS, "current": { "members": members },
        });
        Ok(Plan {
            parts,
            folder: folder.to_owned(),
            program,
            ring,
        })
    }

    /// Puts programs, ring and empty disks in their places.
    pub(super) fn prepare(&self) -> Result<()> {
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
    let path = folder.join(below);
    let text = path.to_str().context("the path of this tree is no text")?;
    Ok(text.to_owned())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn s3(folder: &Path) -> Result<Part> {
    let address = free_address()?;
    let program = program("versitygw-1.8.0")?;
    let (user, secret) = (
        format!("ROOT_ACCESS_KEY={S3_USER}"),
        format!("ROOT_SECRET_KEY={S3_SECRET}"),
    );
    let command = [
        &installed("env")?,
        &user,
        &secret,
        &program,
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
        url: format!("http://{admin}"),
        health: Health::Http(admin, "/ready"),
        command: words(&command),
        name,
    };
    Ok((part, member))
}

fn gateway(folder: &Path, number: usize, redis: &Part) -> Result<Part> {
    let name = format!("gateway-{number}");
    let address = free_address()?;
    let command = [
        &path(folder, "bin/zim-gateway")?,
        "--ring",
        &path(folder, "config/ring.json")?,
        "--bind",
        "127.0.0.1",
        "--port",
        &address.port().to_string(),
        "--anonymous",
        "read-write",
        "--redis-url",
        &redis.url,
        "--pid-file",
        &path(folder, &format!("run/{name}.pid"))?,
    ];
    Ok(Part {
        role: "gateway",
        url: format!("http://{address}"),
        health: Health::Gateway(address),
        command: words(&command),
        name,
    })
}
