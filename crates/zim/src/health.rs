//! `zim health`: whether a server answers, as an exit code. Containers and supervisors call it.

use std::{process::ExitCode, time::Duration};

use serde::Deserialize;
use zimcache_config::Environment;

use crate::{
    args::HealthArgs,
    error::{Error, Result},
    output,
    remote::Server,
    settings::Settings,
};

/// What is needed of the answer; there is more in it.
#[derive(Debug, Deserialize)]
struct Health {
    status: String,
    version: Option<String>,
}

/// Runs it: 0 when the server answers, even one that is read-only; else 1.
pub(crate) fn run(args: &HealthArgs) -> Result<ExitCode> {
    let settings = Settings::load(Environment::of_process())?;
    let server = Server::at(&settings.endpoint(&args.server)?)?;
    let limit = Duration::from_secs(args.timeout_seconds);
    let answer = server.get_within("/health", limit)?;
    let health: Health =
        serde_json::from_slice(&answer).map_err(|error| Error::Answer(error.to_string()))?;
    let version = health.version.unwrap_or_default();
    output::print(format!("{} {version}", health.status).trim_end())?;
    output::print("\n")?;
    Ok(ExitCode::SUCCESS)
}
