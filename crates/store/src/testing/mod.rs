//! What tests of any store need: the contract suite.

pub mod conformance;
