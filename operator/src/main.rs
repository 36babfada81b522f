//! `zim-operator`: looks after the ZimCaches of a Kubernetes cluster.
//!
//! `crd` prints the definition of the resource.
#![allow(
    clippy::print_stdout,
    reason = "a command line tool answers on its standard output"
)]

use clap::{Parser, Subcommand};
use zimcache_operator::crd;

/// Looks after the ZimCaches of a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "zim-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the definition of ZimCache, for kubectl apply.
    Crd,
}

fn main() {
    match Cli::parse().command {
        Command::Crd => print!("{}", crd::definition_yaml()),
    }
}
