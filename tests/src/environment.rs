//! The few environment variables a tester may set. Nothing else in this package reads the environment.
//!
//! `ZIM_BIN` names the binary under test, `ZIMCACHE_TEST_SCALE` multiplies volumes (1 in CI), `ZIMCACHE_TEST_SEED`
//! replays a seeded run; `ZIMCACHE_CHAOS_SEED` and `ZIMCACHE_CHAOS_SECONDS` are the seed and the length of the chaos
//! that a cluster lives through.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

#[allow(
    clippy::disallowed_methods,
    reason = "testers choose binary, volume and seed through the environment; this is the one reader"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The folder for what is worth keeping between runs: C sources, built tools.
///
/// # Errors
/// When the user has no home folder.
pub fn cache_folder() -> Result<PathBuf> {
    let home = std::env::home_dir().context("no home folder to keep downloads in")?;
    Ok(home.join(".cache/zimcache"))
}

/// A temporary folder that goes with its guard, under a name that tells whose it was.
///
/// # Errors
/// Those of the file system.
pub fn scratch(name: &str) -> Result<TempDir> {
    let prefix = format!("zimcache-{name}-");
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    folder.context("a temporary folder")
}

/// The binary under test: `ZIM_BIN`, else the one built into the same profile folder as this test.
///
/// # Errors
/// When neither exists; the text says how to build it.
pub fn zim_binary() -> Result<PathBuf> {
    if let Some(path) = variable("ZIM_BIN") {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        bail!("ZIM_BIN is {}, which is not a file", path.display());
    }
    let test = std::env::current_exe().context("this test's own path")?;
    let folder = test.parent().and_then(|deps| deps.parent());
    let path = folder.context("the profile folder")?.join("zim");
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "{} does not exist: run `cargo build --bin zim` in the same profile first, or set ZIM_BIN",
        path.display()
    )
}

/// `volume` multiplied by `ZIMCACHE_TEST_SCALE` (1 unless set).
pub fn scaled(volume: u64) -> u64 {
    let factor = variable("ZIMCACHE_TEST_SCALE").and_then(|text| text.parse::<u64>().ok());
    volume.saturating_mul(factor.unwrap_or(1).max(1))
}

/// The seed of a run: `ZIMCACHE_TEST_SEED`, else a fresh one.
///
/// # Errors
/// When the system has no randomness.
pub fn seed() -> Result<u64> {
    number("ZIMCACHE_TEST_SEED")?.map_or_else(fresh_seed, Ok)
}

/// The seed of the chaos: `ZIMCACHE_CHAOS_SEED`, else as [`seed`].
///
/// # Errors
/// As [`seed`].
pub fn chaos_seed() -> Result<u64> {
    number("ZIMCACHE_CHAOS_SEED")?.map_or_else(seed, Ok)
}

/// How long the chaos is to last, where the tester says it.
///
/// # Errors
/// When it is not a number.
pub fn chaos_length() -> Result<Option<Duration>> {
    Ok(number("ZIMCACHE_CHAOS_SECONDS")?.map(Duration::from_secs))
}

fn number(name: &str) -> Result<Option<u64>> {
    let text = variable(name);
    let number = text.map(|text| {
        text.parse()
            .with_context(|| format!("{name} is not a number"))
    });
    number.transpose()
}

fn fresh_seed() -> Result<u64> {
    let mut bytes = [0_u8; 8];
    let mut random = std::fs::File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut random, &mut bytes)?;
    // Short seeds are easier to copy by hand.
    Ok(u64::from_le_bytes(bytes) >> 32)
}
