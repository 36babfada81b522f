//! `zim cluster`: how a cluster stands, and which nodes it has.
//!
//! A gateway tells how the nodes are; the ring is a file, and nothing but these commands changes it. Where an operator
//! looks after the ring (Kubernetes), only `status` and `ring show` are for people.

mod change;
mod file;
mod member;
mod status;
mod wait;

use std::process::ExitCode;

use crate::{args::ClusterCommand, error::Result};

/// Runs it.
pub(crate) fn run(command: &ClusterCommand) -> Result<ExitCode> {
    match command {
        ClusterCommand::Status(args) => status::run(args)?,
        ClusterCommand::Drain(args) => change::drain(args)?,
        ClusterCommand::Ring(command) => change::run(command)?,
    }
    Ok(ExitCode::SUCCESS)
}
