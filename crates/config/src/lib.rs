//! Typed settings of every binary. `Default` is the only home of a default; `validate` reports every problem at once.
//!
//! Not here: flags of the command line (each binary has its own), clients, clocks, stores: those are components that
//! builders take. Layering is defaults < file < environment < flags; no other crate reads the environment.

pub mod gateway;
pub mod store;

pub use gateway::GatewayConfig;
pub use store::StoreConfig;
