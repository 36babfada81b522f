//! One store with a durable tier behind it, in one process: a cluster of a single member.
//!
//! Not here: a store without a durable tier, which is served as it is. Figures are the store's own.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;
use zimcache_cluster::Cluster;
use zimcache_config::ServeConfig;
use zimcache_gateway::Stores;
use zimcache_link::Peer;
use zimcache_member::Peers;
use zimcache_node::Node;
use zimcache_ring::{Document, Member};
use zimcache_store::{
    BlobInfo, Error as StoreError, GcOptions, GcReport, Result as StoreResult, Retention,
    StoreAdmin, StoreStats, Usage, VerifyReport, admin::OnProgress,
};
use zimcache_types::{Digest, Namespace, SystemClock};

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
        admin: Arc::new(Alone {
            store: node.admin(),
            member: seat.member.clone(),
        }),
    };
    Ok((stores, seat))
}

/// The store's keeper side, whose garbage collection sweeps the bucket too.
#[derive(Debug)]
struct Alone {
    store: Arc<dyn StoreAdmin>,
    member: zimcache_member::Member,
}

#[async_trait]
impl StoreAdmin for Alone {
    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    async fn gc(&self, options: GcOptions) -> StoreResult<GcReport> {
        let collected = self.member.collect(options).await;
        collected.map_err(|error| StoreError::Remote {
            code: error.code(),
            message: error.to_string().into(),
        })
    }

    fn set_retention(&self, retention: Retention) {
        self.store.set_retention(retention);
    }

    async fn usage(&self) -> StoreResult<Vec<Usage>> {
        self.store.usage().await
    }

    async fn list_blobs(
        &self,
        namespace: &Namespace,
        after: Option<&Digest>,
        limit: usize,
    ) -> StoreResult<Vec<BlobInfo>> {
        self.store.list_blobs(namespace, after, limit).await
    }

    async fn verify(&self, on_progress: OnProgress) -> StoreResult<VerifyReport> {
        self.store.verify(on_progress).await
    }
}
