//! What clients did and saw, as it happens.

use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use zimcache_history::{Event, History, Limits, Op, Outcome, Window};

/// How long after a fault an older version of an entry may still be read.
pub(crate) const CONVERGENCE_MICROS: u64 = 60_000_000;

/// Virtual time since the beginning, in microseconds.
pub(crate) fn now() -> u64 {
    let elapsed = turmoil::sim_elapsed().expect("hosts alone ask for the time");
    u64::try_from(elapsed.as_micros()).unwrap()
}

/// The record of a run. A call without an end has an unknown outcome.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<History>);

/// A call that was begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun(usize);

impl Journal {
    pub(crate) fn new(gateways: u32, clocks_apart: u64) -> Journal {
        let limits = Limits {
            convergence: CONVERGENCE_MICROS,
            may_evict: false,
            gateways,
            clocks_apart,
        };
        Journal(Mutex::new(History::new(limits)))
    }

    pub(crate) fn begin(&self, event: Event) -> Begun {
        let history = &mut *self.0.lock();
        history.events.push(event);
        Begun(history.events.len() - 1)
    }

    /// Ends a call; `value` is what was read.
    pub(crate) fn end(&self, begun: Begun, outcome: Outcome, value: Option<String>) {
        let event = &mut self.0.lock().events[begun.0];
        event.completed = now();
        event.outcome = outcome;
        if event.op == Op::Get {
            event.value = value;
        }
    }

    /// Whether a call has ended with an answer.
    pub(crate) fn was_answered(&self, begun: Begun) -> bool {
        let outcome = self.0.lock().events[begun.0].outcome;
        matches!(outcome, Outcome::Ok | Outcome::Absent)
    }

    /// Marks a call as one of the sweep.
    pub(crate) fn belongs_to_the_sweep(&self, begun: Begun) {
        self.0.lock().events[begun.0].sweep = true;
    }

    /// Something breaks, and a node may lose what it held; its number.
    pub(crate) fn fault_begins(&self, what: &str, loses_disk: bool, at: u64) -> usize {
        let history = &mut *self.0.lock();
        history.faults.push(Window {
            what: what.to_owned(),
            from: at,
            until: u64::MAX,
            loses_disk,
        });
        history.faults.len() - 1
    }

    /// It is whole again.
    pub(crate) fn fault_ends(&self, number: usize, at: u64) {
        self.0.lock().faults[number].until = at;
    }

    pub(crate) fn history(&self) -> History {
        self.0.lock().clone()
    }
}

/// A number that differs when anything in a history does.
pub(crate) fn trace(history: &History) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut lines = Vec::new();
    history
        .write(&mut lines)
        .expect("memory takes everything that is written");
    lines.hash(&mut hasher);
    hasher.finish()
}
