//! The history checker: what clients did and saw, and whether a cache that keeps its promises may answer so.
//!
//! A test records a [`History`], clients' calls with their times and the windows in which something was broken, and
//! [`check()`] names every answer that breaks a promise. Pure: no clock, no network, no store; the simulation and the
//! tests with real processes use the same rules. Not linearizability: entries promise that the newest acknowledged
//! version is read, blobs that they stay, both that what is deleted is gone. Near-linear in the number of events.

mod blobs;
mod bound;
mod check;
mod entries;
mod faults;
mod history;
mod sweep;
#[cfg(test)]
mod tests;
mod timeline;
mod violation;

pub use check::check;
pub use faults::Window;
pub use history::{Event, History, Kind, Limits, Op, Outcome, ParseError};
pub use violation::{Rule, Violation};
