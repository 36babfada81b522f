//! Simulated parts for tests: a disk that tears, lies and rots on demand, and the random numbers that drive it.
//!
//! Always compiled, so that it cannot rot; unreachable from configuration. Not for production: a [`SimDisk`] keeps
//! everything in RAM.

mod blocks;
pub mod codec;
mod crafted;
pub mod decoders;
mod fault;
#[cfg(test)]
mod hostile;
mod rng;
mod sim_disk;
mod sim_file;
#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultKind, OpKind, Operation};
pub use rng::SimRng;
pub use sim_disk::{DiskCounts, SimDisk};
