//! The Remote Execution API as its clients speak it: tonic with messages that are not ours, and raw bytes for what tonic
//! cannot send.
//!
//! Every rule that clients rest on has a test whose name says it. The gateway runs over the store in RAM, on a port of
//! its own; what needs a disk or a restart is in `tests/`.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "sizes of test data are small, and messages have signed ones"
)]

#[cfg(test)]
mod action_cache;
#[cfg(test)]
mod asset;
#[cfg(test)]
mod bytestream;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod capabilities;
#[cfg(test)]
mod cas;
#[cfg(test)]
mod chunks;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod crowds;
#[cfg(test)]
mod fetching;
#[cfg(test)]
mod health;
#[cfg(test)]
mod origin;
#[cfg(test)]
mod reflection;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tree;
#[cfg(test)]
#[path = "../wire/support.rs"]
#[allow(dead_code, reason = "the wire tests use all of it")]
mod wire;
