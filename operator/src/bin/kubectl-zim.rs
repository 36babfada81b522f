//! `kubectl zim`: caches on Kubernetes as people want to see and change them.
//!
//! kubectl finds this program by its name on the path.

use std::process::ExitCode;

use clap::Parser as _;
use zimcache_operator::plugin::{self, Cli};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    plugin::run(Cli::parse()).await
}
