//! The operator of ZimCache on Kubernetes: `ZimCache` resources become gateways, nodes and a ring.
//!
//! A round for one cache ([`reconcile`]) is a pipeline: what is there ([`dereference`]), what the spec means
//! ([`validate`]), what comes next ([`ring`], [`drain`], [`rollout`]), what it is made of ([`build`]), writing it down
//! ([`apply`]), and what people are told ([`status`], [`events`]). Deciding is pure; only `dereference`, `apply`,
//! [`certificates`], [`storage`] and [`controller`] speak to the API server.
//!
//! - [`crd`] is what people write and read; [`names`] is what other programs rely on.
//! - [`run`] is start and stop, with [`leader`] and [`server`]; [`plugin`] is `kubectl zim`.
//!
//! Invariants: the ring is changed only by `zimcache_ring::next`; a node goes only when it has handed over, unless people
//! said otherwise; pods are not restarted because the operator is another version; data is deleted only on request.

pub mod apply;
pub mod build;
pub mod certificates;
pub mod check;
pub mod conditions;
pub mod controller;
pub mod crd;
pub mod dereference;
pub mod drain;
pub mod events;
pub mod finalize;
mod hex;
pub mod leader;
pub mod names;
pub mod node_client;
pub mod plugin;
pub mod pods;
pub mod reconcile;
mod repair;
pub mod ring;
pub mod rollout;
pub mod run;
pub mod server;
pub mod status;
pub mod storage;
pub mod validate;
mod volumes;
