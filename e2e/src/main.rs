//! `e2e`: installs the product with Helm on a real Kubernetes, uses it, changes it and breaks it under load, and says
//! what held.
//!
//! Not here: making the cluster and the images (`e2e/run`, `e2e/cluster`). The cluster is reached with `kubectl` and
//! `helm3`, `helm4` of the search path, the gateways through their Service alone, as build machines reach them.
//! Invariants: checks run one after the other on one cluster; each can fail, and a skipped one says why; the last line is
//! `N passed, N failed`.
#![allow(
    clippy::print_stdout,
    reason = "a command line tool answers on its standard output"
)]

mod checks;
mod helm;
mod kube;
mod load;
mod machine;
mod report;
mod turbo;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::report::Report;
use crate::world::World;

/// How much to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Volume {
    /// What fits into continuous integration.
    Short,
    /// Everything but what takes long.
    Usual,
    /// Everything.
    Full,
}

/// What to check, and where.
#[derive(Debug, Parser)]
#[command(name = "e2e", about = "Checks ZimCache on a real Kubernetes")]
pub(crate) struct Args {
    /// How much
    #[arg(long, value_enum, default_value = "usual")]
    volume: Volume,
    /// The kubeconfig of the cluster
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The run folder of a cluster of `e2e/cluster/up`; without it, nothing is done to machines
    #[arg(long)]
    machines: Option<PathBuf>,
    /// A Prometheus that asks all pods, as `e2e/prometheus.py` starts one; without it, dashboards are not looked at
    #[arg(long)]
    prometheus: Option<String>,
    /// Where to draw the dashboards of this run
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// The chart
    #[arg(long, default_value = "charts/zimcache")]
    chart: PathBuf,
    /// Only checks whose sentence has this text; the installation is always one of them
    #[arg(long)]
    only: Option<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut report = Report::default();
    let mut world = World::new(&args)?;
    for check in checks::ALL {
        if !check.is_wanted(&args) {
            continue;
        }
        if let Some(reason) = check.obstacle(&world) {
            report.skip(check.says, reason);
            continue;
        }
        let passed = report.run(check.says, || (check.run)(&mut world));
        if !passed {
            world.describe();
        }
        if !passed && check.is_basis {
            break;
        }
    }
    Ok(report.end())
}
