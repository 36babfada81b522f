//! Clients that write, read and delete while something is done to the cluster, and what they have to say afterwards.
//!
//! A client here is as patient as an HTTP client of a build tool and no more: every answer but success, "not there" and
//! every broken call is an error of a client.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use zimcache_tests::cluster::client::Recorder;
use zimcache_tests::cluster::gateway::Doors;
use zimcache_tests::cluster::load::{self, Load, Mix, Tally};
use zimcache_tests::report::say;

/// Seed of the load; what the clients do is the same in every run.
const SEED: u64 = 7;
const MIX: Mix = Mix {
    clients: 6,
    pause: Duration::from_millis(20),
    deletes: 3,
    writes: 40,
    smaller: 2,
};
/// A deletion is refused while a node or the bucket stays away, since that one would bring back what it missed.
const WITHOUT_DELETIONS: Mix = Mix { deletes: 0, ..MIX };
/// Failed calls shown; the rest is counted only.
const SHOWN: usize = 8;
/// Calls in the time of a check below which it proves nothing.
const LEAST_CALLS: usize = 200;

/// What one check did with load on.
#[derive(Debug)]
pub(crate) struct Watched {
    tally: Tally,
}

/// What all clients of this run saw, and the load that goes on.
#[derive(Debug)]
pub(crate) struct Clients {
    doors: Doors,
    recorder: Arc<Recorder>,
}

impl Clients {
    /// Clients of the service at this address.
    pub(crate) fn of(doors: Doors) -> Clients {
        Clients {
            recorder: Recorder::new(doors.count()),
            doors,
        }
    }

    /// The service is at another address now.
    pub(crate) fn go_to(&mut self, doors: Doors) {
        self.doors = doors;
    }

    /// Does something while the clients work, and counts what they saw.
    pub(crate) fn watch(&self, action: impl FnOnce() -> Result<()>) -> Result<Watched> {
        self.watch_with(MIX, action)
    }

    /// The same, and nothing is deleted.
    pub(crate) fn watch_without_deletions(
        &self,
        action: impl FnOnce() -> Result<()>,
    ) -> Result<Watched> {
        self.watch_with(WITHOUT_DELETIONS, action)
    }

    /// The same while nodes are away: nothing is deleted, and until it is done an entry may go back to a version before.
    pub(crate) fn watch_fault(
        &self,
        what: &str,
        action: impl FnOnce() -> Result<()>,
    ) -> Result<Watched> {
        let from = self.recorder.now();
        let watched = self.watch_with(WITHOUT_DELETIONS, action);
        self.recorder.was_broken(what, from);
        watched
    }

    fn watch_with(&self, mix: Mix, action: impl FnOnce() -> Result<()>) -> Result<Watched> {
        let from = self.recorder.now();
        let load = Load::start(&self.doors, &self.recorder, SEED ^ from, mix);
        let done = action();
        load.finish()?;
        let tally = load::tally(&self.recorder, from, self.recorder.now());
        say(&format!(
            "       load: {} calls, {} hits, {} misses, {} acknowledged, {} errors",
            tally.calls,
            tally.hits,
            tally.misses,
            tally.acknowledged,
            errors(&tally)
        ));
        for trouble in self.recorder.troubles_since(from).iter().take(SHOWN) {
            say(&format!("       {trouble}"));
        }
        done?;
        Ok(Watched { tally })
    }

    /// Reads all that was ever acknowledged and not deleted, and judges everything that was seen.
    pub(crate) fn demand_everything(&self) -> Result<usize> {
        let keys = load::never_deleted(&self.recorder);
        ensure!(!keys.is_empty(), "nothing was ever stored");
        let from = self.recorder.now();
        load::read_all(&self.doors, &self.recorder, &keys, false)?;
        let tally = load::tally(&self.recorder, from, self.recorder.now());
        ensure!(
            tally.hits == keys.len(),
            "of {} records {} are missing and {} could not be read",
            keys.len(),
            tally.misses,
            tally.failed_reads
        );
        load::demand_clean(&self.recorder)?;
        say(&format!("       all {} records are there", keys.len()));
        Ok(keys.len())
    }
}

fn errors(tally: &Tally) -> usize {
    tally.not_acknowledged + tally.failed_reads
}

impl Watched {
    /// Demands that no client had an error, and that there was something to see.
    pub(crate) fn demand_no_errors(&self) -> Result<()> {
        ensure!(
            self.tally.calls >= LEAST_CALLS,
            "only {} calls: that proves nothing",
            self.tally.calls
        );
        ensure!(
            errors(&self.tally) == 0,
            "{} of {} calls failed: {} writes, {} reads",
            errors(&self.tally),
            self.tally.calls,
            self.tally.not_acknowledged,
            self.tally.failed_reads
        );
        Ok(())
    }
}
