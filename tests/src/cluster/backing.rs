//! The S3 server and the Redis behind a cluster: real ones, on ports of their own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::program::{Program, Running};
use crate::environment::cache_folder;
use crate::process::has_program;

/// Credentials of the S3 server.
pub(super) const S3_USER: &str = "zimcache";
pub(super) const S3_SECRET: &str = "zimcache-secret";
const VERSITYGW: &str = "versitygw-1.8.0";
const START_LIMIT: Duration = Duration::from_secs(30);
/// Somebody may take the port that was free.
const ATTEMPTS: u32 = 5;

/// A program that the cluster needs, at a port chosen before it starts.
#[derive(Debug)]
pub struct Backing {
    program: Program,
    address: SocketAddr,
    running: Option<Running>,
}

impl Backing {
    /// An S3 server that keeps its objects as files in a folder.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn s3(folder: &Path, log: &Path) -> Result<Backing> {
        let program = versitygw()?;
        std::fs::create_dir_all(folder)?;
        Backing::start(|address| {
            let words = [&program as &dyn AsRef<std::ffi::OsStr>, &"--port"];
            Program::new("the S3 server", log, &words)
                .args(&[
                    &*address.to_string(),
                    "--health",
                    "/health",
                    "--quiet",
                    "posix",
                ])
                .args(&[folder])
                .env("ROOT_ACCESS_KEY", S3_USER)
                .env("ROOT_SECRET_KEY", S3_SECRET)
        })
    }

    /// A Redis that keeps nothing.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn redis(folder: &Path, log: &Path) -> Result<Backing> {
        ensure!(has_program("redis-server"), "redis-server is not installed");
        std::fs::create_dir_all(folder)?;
        Backing::start(|address| {
            let port = address.port().to_string();
            Program::new("Redis", log, &[&"redis-server"])
                .args(&["--bind", "127.0.0.1", "--port", &port, "--save", ""])
                .args(&["--appendonly", "no", "--dir"])
                .args(&[folder])
        })
    }

    fn start(at: impl Fn(SocketAddr) -> Program) -> Result<Backing> {
        let mut attempt = 0;
        loop {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut backing = Backing {
                program: at(address),
                address,
                running: None,
            };
            match backing.begin() {
                Ok(()) => return Ok(backing),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// Starts it at its port, and waits until it takes connections.
    ///
    /// # Errors
    /// When it ends instead.
    pub fn begin(&mut self) -> Result<()> {
        let mut running = self.program.start()?;
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let still = running.is_running() && begun.elapsed() < START_LIMIT;
            if !still {
                bail!("it takes no connections:\n{}", running.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.running = Some(running);
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.running.take().context("it does not run")?.kill_9()
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id; 0 while it does not run.
    pub fn id(&self) -> u32 {
        self.running.as_ref().map_or(0, Running::id)
    }
}

fn versitygw() -> Result<PathBuf> {
    let path = cache_folder()?.join("bin").join(VERSITYGW);
    ensure!(
        path.is_file(),
        "there is no {}; .ci/needs cluster makes it",
        path.display()
    );
    Ok(path)
}

/// Why no S3 server or no Redis can be had here, or `None` when they can.
pub fn unavailable() -> Option<String> {
    if !has_program("redis-server") {
        return Some("redis-server is not installed".to_owned());
    }
    versitygw().err().map(|error| error.to_string())
}
