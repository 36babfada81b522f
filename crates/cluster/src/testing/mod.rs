//! The cluster against nodes in memory whose faults are switched by the tests.

mod conformance;
mod durability;
mod entries;
pub(crate) mod fake;
mod harness;
mod late;
mod look_ups;
mod property;
mod reads;
mod records;
mod slow;
mod writes;
