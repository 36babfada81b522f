//! The dashboards and alerts of the chart, asked of a real Prometheus that scrapes a real cluster under load: no query
//! fails, and none is empty that may not be. Not here: what they look like (`make dashboards`).

use std::path::Path;

use anyhow::{Context as _, Result};
use zimcache_tests::cluster::backing;
use zimcache_tests::environment::zim_binary;
use zimcache_tests::process::{Tool, has_program, said};
use zimcache_tests::report::{say, skip};

#[test]
fn every_query_of_dashboards_and_alerts_has_an_answer() -> Result<()> {
    if let Some(reason) = backing::unavailable() {
        return skip("observability", &reason);
    }
    if !has_program("prometheus") {
        return skip("observability", "prometheus is not installed");
    }
    let zim = zim_binary()?;
    let programs = zim.parent().context("the profile folder")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("observability/run.py");
    let output = Tool::new("python3", 240)
        .args([&script])
        .args(["check", "--programs"])
        .args([programs])
        .run_ok()?;
    say(&said(&output));
    Ok(())
}
