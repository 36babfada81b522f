//! One store with a durable tier behind it, in one process: a cluster of a single member.
//!
//! Not here: a store without a durable tier, which is served as it is. Garbage collection and figures are the store's own.

use std::{path::Path, sync::Arc};

use tokio::sync::watch;
use zimcache_cluster::Cluster;
use zimcache_config::ServeConfig;
use zimcache_gateway::Stores;
use zimcache_link::Peer;
use zimcache_member::Peers;
use zimcache_node::Node;
use zimcache_ring::{Document, Member};
use zimcache_types::SystemClock;

use super::{gateway, member::Seat};
use crate::error::{Error, Result};

/// The only member.
const ID: &str = "local";

/// The store with the durable tier behind it. Call it on the runtime.
pub(super) async fn join(
    config: &ServeConfig,
    folder: &Path,
    node: &Node,
) -> Result<(Stores, Seat)> {
    let ring = Document::first(1, vec![Member::new(ID)]).map_err(|source| Error::Ring {
        place: "this process".to_owned(),
        source,
    })?;
    let (_, rings) = watch::channel(Arc::new(ring));
    let nobody: Peers = Arc::new(|address| {
        Arc::new(zimcache_link::Remote::new(
            address,
            &zimcache_link::Settings::default(),
        ))
    });
    let seat = Seat::take(config, folder, node, (ID, rings.clone()), nobody).await?;
    let member = seat.member.clone();
    let connect = move |_: &Member| -> Arc<dyn Peer> { Arc::new(member.clone()) };
    let seed = getrandom::u64().map_err(Error::NoRandomness)?;
    let settings = zimcache_cluster::Config {
        // The node has its own.
        ram_bytes: 0,
        ..gateway::of_settings(config)
    };
    let cluster = Cluster::new(settings, rings, connect, Arc::new(SystemClock), seed);
    let stores = Stores {
        blobs: cluster.blobs(),
        entries: cluster.entries(),
        admin: node.admin(),
    };
    Ok((stores, seat))
}
