//! A line for each check as it ends, and the count at the end.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// What came of the checks until now.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    failed: Vec<&'static str>,
    skipped: usize,
}

impl Report {
    /// Runs a check and says how it ended.
    pub(crate) fn run(&mut self, says: &'static str, check: impl FnOnce() -> Result<()>) -> bool {
        println!("----   {says}");
        let begun = Instant::now();
        let result = check();
        let seconds = begun.elapsed().as_secs_f64();
        match &result {
            Ok(()) => {
                self.passed += 1;
                println!("ok     {says} ({seconds:.1} s)");
            }
            Err(error) => {
                self.failed.push(says);
                println!("FAILED {says} ({seconds:.1} s): {error:#}");
            }
        }
        result.is_ok()
    }

    /// Says that a check cannot be done here.
    pub(crate) fn skip(&mut self, says: &str, reason: &str) {
        self.skipped += 1;
        println!("skip   {says}: {reason}");
    }

    /// The last lines, and the exit code that goes with them.
    pub(crate) fn end(self) -> ExitCode {
        for says in &self.failed {
            println!("failed: {says}");
        }
        if self.skipped > 0 {
            println!("{} skipped", self.skipped);
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        ExitCode::from(u8::from(!self.failed.is_empty() || self.passed == 0))
    }
}
