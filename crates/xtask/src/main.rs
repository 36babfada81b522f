//! Chores of the workspace: `cargo xtask tidy | edges | numbers | gen | bench | cluster | images | policies`.
//!
//! Not part of the product: nothing here ships. Every chore reads the tree it is started in; none but `bench`
//! (when it lacks a peer) needs a network.
#![allow(
    clippy::print_stdout,
    reason = "a command line tool answers on its standard output"
)]

mod bench;
mod cluster;
mod edges;
mod features;
mod generate;
mod images;
mod numbers;
mod pages;
mod policies;
mod protos;
mod source;
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// One chore.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Chores of the workspace")]
enum Chore {
    /// Checks the house rules that no compiler checks.
    Tidy,
    /// Shows that the dependency rule bites: each forbidden edge must fail the check of `deny.toml`.
    Edges,
    /// Prints our row beside the codebases we compare ourselves with.
    Numbers,
    /// Writes the generated files.
    Gen {
        /// Only compares; fails when a file is out of date.
        #[arg(long)]
        check: bool,
    },
    /// Measures ours beside others on this machine and writes `docs/benchmarks.md`.
    Bench(bench::Args),
    /// Starts or stops a whole cluster as processes of this machine.
    #[command(subcommand)]
    Cluster(cluster::Action),
    /// Packs the product and what runs beside it as container images.
    Images(images::Args),
    /// Replays a trace of requests through eviction policies and prints how often each hits.
    Policies(policies::Args),
}

fn main() -> Result<ExitCode> {
    let chore = Chore::parse();
    let tree = tree::Tree::find()?;
    match chore {
        Chore::Tidy => Ok(tidy::run(&tree)),
        Chore::Edges => edges::run(&tree),
        Chore::Numbers => Ok(numbers::run(&tree)),
        Chore::Gen { check } => generate::run(&tree, check),
        Chore::Bench(args) => bench::run(&tree.root, &args),
        Chore::Cluster(action) => cluster::run(&tree.root, &action),
        Chore::Images(args) => images::run(&tree, &args),
        Chore::Policies(args) => policies::run(&args),
    }
}
