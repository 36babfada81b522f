//! The cluster keeps the contract of every store.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use zimcache_store::{
    BlobInfo, GcOptions, GcReport, Result, Retention, StoreAdmin, StoreStats, Usage, VerifyReport,
    admin::OnProgress,
    testing::conformance::{self, Stores},
};
use zimcache_types::{Digest, Namespace};

use super::{
    fake::Net,
    harness::{Rig, plain},
};
use crate::Config;

/// Figures that count every value once, however many copies there are.
#[derive(Debug)]
struct Distinct(Net, Arc<dyn StoreAdmin>);

#[async_trait]
impl StoreAdmin for Distinct {
    fn stats(&self) -> StoreStats {
        let nodes = self.0.lock();
        let states = nodes.values().map(|node| node.state.lock());
        let keys = states.flat_map(|state| state.records.held.keys().cloned().collect::<Vec<_>>());
        StoreStats {
            blobs: keys.collect::<BTreeSet<_>>().len() as u64,
            ..StoreStats::default()
        }
    }

    async fn gc(&self, options: GcOptions) -> Result<GcReport> {
        self.1.gc(options).await
    }

    fn set_retention(&self, retention: Retention) {
        self.1.set_retention(retention);
    }

    async fn usage(&self) -> Result<Vec<Usage>> {
        self.1.usage().await
    }

    async fn list_blobs(
        &self,
        namespace: &Namespace,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<BlobInfo>> {
        self.1.list_blobs(namespace, after, limit).await
    }

    async fn verify(&self, on_progress: OnProgress) -> Result<VerifyReport> {
        self.1.verify(on_progress).await
    }
}

fn stores(config: Config) -> Stores {
    let rig = Rig::new(2, &["a", "b", "c", "d"]);
    let gateway = rig.gateway_with(1, config);
    Stores {
        blobs: gateway.blobs,
        entries: gateway.entries,
        admin: Arc::new(Distinct(Arc::clone(&rig.net), gateway.cluster.admin())),
        clock: rig.clock,
        keep: Some(Box::new((gateway.cluster, rig.net, rig.rings))),
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_keeps_the_contract() {
    conformance::run_data(&|| stores(plain())).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_with_ram_keeps_the_contract() {
    conformance::run_data(&|| stores(Config::default())).await;
}
