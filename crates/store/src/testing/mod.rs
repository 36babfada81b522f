//! What tests of any store need: the contract suite.
//!
//! Always compiled, so that stores and layers of other crates can run it. A broken contract panics with a sentence.

pub mod conformance;
