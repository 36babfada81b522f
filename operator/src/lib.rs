//! The operator of ZimCache on Kubernetes: `ZimCache` resources become gateways, nodes and a ring.
//!
//! - [`crd`] is what people write, and the status that they read.

pub mod crd;
