//! A gateway over the store in RAM, for measuring the gateway alone. Prints the address it listens on, and keeps one
//! blob of 1 KiB and one of 64 KiB whose paths it prints as well.
//!
//! Not a product: nothing survives, nothing is evicted.

use std::sync::Arc;

use tokio::net::TcpListener;
use zimcache_config::GatewayConfig;
use zimcache_gateway::{Gateway, Stores};
use zimcache_store::{BlobStore, CreateOptions, memory::MemoryStore};
use zimcache_types::{Digest, Function, Namespace};

#[allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring tool that has nobody to report to"
)]
fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = MemoryStore::default();
        for size in [1 << 10, 64 << 10, 64 << 20] {
            let body = vec![7; size];
            let digest = Digest::of(Function::Sha256, &body);
            let namespace = Namespace::default();
            let create = store.create(&namespace, &digest, CreateOptions::default());
            let mut writer = create.await.unwrap();
            writer.write(body.into()).await.unwrap();
            writer.commit().await.unwrap();
            println!("{size} /cas/{}", digest.hash);
        }
        let stores = Stores {
            blobs: Arc::new(store.clone()),
            entries: Arc::new(store.clone()),
            admin: Arc::new(store),
        };
        let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
        let listener = TcpListener::bind(address).await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        let gateway = Gateway::new(GatewayConfig::default(), stores);
        gateway
            .serve(vec![listener.into()], std::future::pending())
            .await;
    });
}
