//! Dashboards and alerts, asked of a Prometheus that watched the whole run.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use zimcache_tests::report::say;

use super::install::NODES;
use crate::world::{CACHE, World};

/// What asks and draws.
const PANELS: &str = "tests/observability/panels.py";
/// Of `$__rate_interval`: four times what `e2e/prometheus.py` lets pass between two scrapes.
const INTERVAL_SECONDS: u64 = 20;
/// Of load, for the rates.
const LOAD: Duration = Duration::from_secs(2 * INTERVAL_SECONDS);

pub(super) fn have_data(world: &mut World) -> Result<()> {
    // Far more than anybody asks for: so that gateways and Redis have something to do.
    let limits = json!({"spec": {"rateLimits": {"global": "1000000/s"}}});
    world.kube.patch("zimcache", CACHE, &limits)?;
    world.wait_until_ready(NODES)?;
    let watched = world.watching(|_| {
        std::thread::sleep(LOAD);
        Ok(())
    })?;
    watched.demand_no_errors()?;
    say(&format!(
        "       {}",
        panels(world, "check", &["--operator"])?
    ));
    let Some(pictures) = &world.pictures else {
        return Ok(());
    };
    let pictures = pictures.to_str().context("the folder's name")?;
    panels(world, "draw", &["--out", pictures]).map(drop)
}

/// The last line of what it says.
fn panels(world: &World, verb: &str, more: &[&str]) -> Result<String> {
    let prometheus = world.prometheus.as_deref().context("no Prometheus")?;
    let said = Command::new("python3")
        .args([PANELS, verb, "--prometheus", prometheus])
        .args(["--interval", &INTERVAL_SECONDS.to_string()])
        .args(more)
        .output()
        .context("cannot run python3")?;
    let text = String::from_utf8_lossy(&said.stdout);
    let complaints = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{text}{complaints}");
    Ok(text.lines().last().unwrap_or_default().to_owned())
}
