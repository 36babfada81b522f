//! What every binary tells about itself: logs ([`log`]), figures ([`metrics`]), named tasks
//! ([`task`]) and the way of single requests ([`trace`]).
//!
//! Not here: any figure's meaning (each component registers its own), reading the environment (`crates/config`), and
//! process globals other than the logger that a binary installs once at start-up.

pub mod log;
pub mod metrics;
mod process;
pub mod task;
pub mod trace;
