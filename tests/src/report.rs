//! What a suite tells the person who runs it: rows done with their volume, rows skipped with the reason.
//!
//! Lines go straight to standard error, so that they show even where the test runner captures output.
//! A row may only be skipped if `tests/allowed-skips.txt` lists it; any other skip fails the test.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result, bail};

const ALLOWED_SKIPS: &str = include_str!("../allowed-skips.txt");

/// Prints one line of a suite's report.
pub fn say(line: &str) {
    // A closed standard error must not fail a test.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints that a row was skipped.
///
/// # Errors
/// When the committed list does not allow this row to be skipped.
pub fn skip(row: &str, reason: &str) -> Result<()> {
    say(&format!("SKIPPED row {row}: {reason}"));
    let allowed = |line: &str| line.split_whitespace().next() == Some(row);
    if ALLOWED_SKIPS.lines().any(allowed) {
        return Ok(());
    }
    bail!("row {row} may not be skipped here: {reason}")
}

/// Prints a run's seed, the commit and how to run it again.
pub fn say_seed(test: &str, seed: u64) {
    let commit = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    say(&format!(
        "SEED={seed} COMMIT={commit} replay: ZIMCACHE_TEST_SEED={seed} \
         cargo test -p zimcache-tests --test real {test}"
    ));
}

/// A turn on the machine, held until dropped; works across threads and processes.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits until no other test of this package runs: for rows that need disk and processors alone.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn alone() -> Result<Turn> {
        let lock = Turn::file()?;
        lock.lock().context("waiting for a turn alone")?;
        Ok(Turn { _lock: lock })
    }

    /// Waits until no test runs that needs the machine alone.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn shared() -> Result<Turn> {
        let lock = Turn::file()?;
        lock.lock_shared().context("waiting for a shared turn")?;
        Ok(Turn { _lock: lock })
    }

    fn file() -> Result<File> {
        let path = std::env::temp_dir().join("zimcache-tests.lock");
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))
    }
}
