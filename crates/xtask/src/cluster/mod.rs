//! `cargo xtask cluster up|down`: a whole cluster as plain processes of this machine, for trying out and for experiments.
//!
//! Two gateways, three nodes, an S3 server and Redis, each on a free port of 127.0.0.1 and detached from whoever started
//! it. Everything is under `target/cluster`: `data/NAME` is what would be on a disk and nothing else, `log/NAME.log` what
//! the process says, `run/NAME.pid` who it is, `config` the ring, `bin` the programs, `processes.json` all of it for
//! programs. Killing a process and running its command again is an experiment that `down` knows of, too: it finds
//! processes by their command. Not here: what a cluster does.

mod parts;
mod process;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

use self::process::{Process, Record};
pub(crate) use self::{
    parts::{BUCKET, Part, Plan, S3_SECRET, S3_USER, Wanted},
    process::{installed, is_healthy, tool},
};

/// The S3 server: its program among the test tools.
pub(crate) const S3_PROGRAM: &str = "versitygw-1.8.0";
const GATEWAYS: usize = 2;

/// What is to be done.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Action {
    /// Starts a cluster with empty disks and returns when it is healthy; one that runs already is stopped first.
    Up {
        /// Where everything of it is [default: target/cluster]
        #[arg(long)]
        folder: Option<PathBuf>,
        /// Our binary [default: target/release/zim]
        #[arg(long, env = "ZIM_BIN")]
        zim: Option<PathBuf>,
    },
    /// Stops every process of it, also those started again by hand.
    Down {
        /// Where everything of it is [default: target/cluster]
        #[arg(long)]
        folder: Option<PathBuf>,
    },
}

/// Below the root: everything of the cluster.
const FOLDER: &str = "target/cluster";
const RECORDS: &str = "processes.json";

/// Does it.
pub(crate) fn run(root: &Path, action: &Action) -> Result<ExitCode> {
    let (Action::Up { folder, .. } | Action::Down { folder }) = action;
    let folder = folder.clone().unwrap_or_else(|| root.join(FOLDER));
    let stopped = down(&folder)?;
    match action {
        Action::Down { .. } => println!("stopped {stopped} processes"),
        Action::Up { zim, .. } => {
            let built = || target(root).join("release/zim");
            up(root, &folder, &zim.clone().unwrap_or_else(built))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder that cargo builds into.
pub(crate) fn target(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| root.join("target"), PathBuf::from)
}

fn up(root: &Path, folder: &Path, program: &Path) -> Result<()> {
    ensure!(
        program.is_file(),
        "there is no {}; make build makes it",
        program.display()
    );
    let plan = Plan::new(
        folder,
        &Wanted {
            zimcache: program,
            versitygw: &process::tool(S3_PROGRAM)?,
            gateways: GATEWAYS,
            with_redis: true,
        },
    )?;
    plan.prepare()?;
    let mut started = Vec::new();
    for part in &plan.parts {
        let process = Process::start(root, folder, part);
        let process = process.with_context(|| format!("cannot start {}", part.name));
        started.push(process.inspect_err(|_| {
            down(folder).ok();
        })?);
        // Also when the start fails later, `down` finds those that run.
        let records: Vec<Record> = started.iter().map(Process::record).collect();
        fs::write(folder.join(RECORDS), serde_json::to_vec_pretty(&records)?)?;
    }
    for process in &mut started {
        process.wait_until_healthy().inspect_err(|_| {
            down(folder).ok();
        })?;
        let record = process.record();
        println!("{:<10} {:>8}  {}", record.name, record.pid, record.url);
    }
    println!("{}", folder.join(RECORDS).display());
    Ok(())
}

/// Stops what an earlier start left, and says how many processes that were.
fn down(folder: &Path) -> Result<usize> {
    let path = folder.join(RECORDS);
    if !path.exists() {
        return Ok(0);
    }
    let records: Vec<Record> = serde_json::from_slice(&fs::read(&path)?)
        .with_context(|| format!("{} is not understood", path.display()))?;
    let mut stopped = 0;
    for record in records.iter().rev() {
        stopped += process::stop(record, folder)?;
    }
    fs::remove_file(&path)?;
    Ok(stopped)
}
