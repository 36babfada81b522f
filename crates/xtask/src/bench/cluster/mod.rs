//! Rows of a cluster: gateways and nodes beside `zim cache serve` and the S3 server behind them.
//!
//! Everything that serves is on the server core, so that a ratio to the one process says what the way through a gateway
//! costs. What a cluster is made of comes from `cargo xtask cluster`; here its processes belong to the benchmark and end
//! with it.

mod cold;
mod held;
mod hop;
mod long_way;
mod moved;
mod readers;
mod rows;
mod s3;
mod system;

use std::time::Duration;

use anyhow::Result;

use super::{
    Bench,
    result::Sample,
    rows::{Load, Row},
};

pub(super) use rows::all;

/// How a row's figure is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Experiment {
    /// Reads through a gateway.
    Hop(Hop),
    /// Many readers of an object that only the S3 server has, to which a byte takes so long.
    Cold(Duration),
    /// Many small blobs held: look-ups and misses; gives several rows.
    Held,
    /// Keys that change their owners when a node joins.
    Moved,
}

/// Reads through a gateway.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hop {
    /// What is read, and how.
    pub(super) load: Load,
    /// Whether the gateway keeps small blobs in memory.
    pub(super) has_ram: bool,
    /// Whether the figure is divided by the cores that were used.
    pub(super) is_per_core: bool,
}

/// Runs an experiment.
pub(super) fn run(
    bench: &Bench,
    row: &Row,
    experiment: Experiment,
) -> Result<Vec<(String, Sample)>> {
    match experiment {
        Experiment::Hop(hop) => hop::run(bench, row, hop),
        Experiment::Cold(s3_delay) => cold::run(bench, row, s3_delay),
        Experiment::Held => held::run(bench, row),
        Experiment::Moved => moved::run(bench, row),
    }
}
