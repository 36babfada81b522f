//! `zim`, the command line of ZimCache. This file is the table of contents: one file per command.
//!
//! `serve` joins a node to a gateway in one process; `gateway` and `node`, also as `zim-gateway` and `zim-node`, are the
//! parts of a cluster; the other commands talk to a running server, or open the store
//! themselves with `--storage`. This is the only crate that sees both node and gateway.
//! Exit codes: 0 done, 1 it failed or damage was found, 2 what was asked cannot be done as written.

mod args;
mod cluster;
mod completions;
mod config;
mod error;
mod gc;
mod get;
mod health;
mod local;
mod login;
mod ls;
mod output;
mod progress;
mod put;
mod remote;
mod rm;
mod serve;
mod settings;
mod setup;
mod stats;
mod target;
mod token;
mod verify;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use clap::Parser;

use crate::{
    args::{CacheCommand, Cli, Command},
    error::Result,
};

fn main() -> ExitCode {
    match run(Cli::parse_from(words(env::args_os()))) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// What was typed. Under the name `zim-gateway` or `zim-node` the program is that part alone.
fn words(typed: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = typed.collect();
    let name = words.first().map(Path::new).and_then(Path::file_name);
    let part = match name.and_then(OsStr::to_str) {
        Some("zim-gateway") => "gateway",
        Some("zim-node") => "node",
        _ => return words,
    };
    words.insert(1, part.into());
    words
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Cache(CacheCommand::Serve(args)) => serve::run(&args),
        Command::Cache(CacheCommand::Put(args)) => put::run(&args),
        Command::Cache(CacheCommand::Get(args)) => get::run(&args),
        Command::Cache(CacheCommand::Ls(args)) => ls::run(&args),
        Command::Cache(CacheCommand::Rm(args)) => rm::run(&args),
        Command::Cache(CacheCommand::Stats(args)) => stats::run(&args),
        Command::Cache(CacheCommand::Gc(args)) => gc::run(&args),
        Command::Cache(CacheCommand::Verify(args)) => verify::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Login(args) => login::run(&args),
        Command::Logout => login::log_out(),
        Command::Health(args) => health::run(&args),
        Command::Token(command) => token::run(&command),
        Command::Completions(args) => completions::run(args.shell),
        Command::Cluster(command) => cluster::run(&command),
        Command::Gateway(args) => serve::gateway::run(&args),
        Command::Node(args) => serve::node::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_may_say_which_part_of_a_cluster_it_is() {
        let of = |typed: &[&str]| words(typed.iter().map(OsString::from));
        assert_eq!(
            of(&["/usr/bin/zim-node", "--check"])[1..],
            ["node", "--check"]
        );
        assert_eq!(of(&["zim-gateway"])[1..], ["gateway"]);
        assert_eq!(of(&["zim", "health"])[1..], ["health"]);
    }
}
