//! The gateway: every client dialect on one port, in front of stores given as trait objects.
//!
//! The way of a request: [`server`] accepts and admits a connection, `connection` tells HTTP/1.1 from HTTP/2 and drives
//! it, `service` hands each request to the dialect that `protocol` finds for its path, the dialect asks its `call` for a
//! `room` (who calls, in which namespace) and acts through it on [`cache`], and `respond` turns the answer into bytes. `watch` and `connections` close what takes too long.
//! Not here: how bytes are stored (`store`, `node`), flags and files (`config`, `zim`). Invariants: a dialect sees only
//! [`cache`]; every queue, body and wait is bounded; no process globals, so tests can start many gateways.

mod action;
pub mod action_results;
mod admin;
mod assets;
mod base_url;
mod body;
pub mod cache;
mod call;
mod chunks;
mod client_address;
mod completeness;
mod connection;
mod connections;
mod cors;
pub mod error;
mod fetching;
mod files;
mod frames;
mod functions;
mod grpc;
mod history;
mod limits;
mod metrics;
mod multistatus;
mod page;
#[doc(hidden)]
pub mod parsers;
pub mod policy;
mod protocol;
mod request;
mod respond;
mod room;
pub mod server;
mod service;
pub mod signing;
mod socket;
mod status;
pub mod tls;
mod unread;
pub mod uploads;
mod watch;

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;
use zimcache_config::GatewayConfig;
use zimcache_store::{BlobStore, EntryStore, StoreAdmin};
use zimcache_telemetry::metrics::Registry;

pub use error::Error;
pub use metrics::register_store;
pub use policy::{Policy, retention_of};
pub use server::{DrainReport, Listener};
pub use signing::SigningKey;
pub use tls::{Tls, TlsError};

use crate::{
    cache::Cache,
    connection::Protocols,
    connections::Connections,
    fetching::Fetching,
    history::History,
    metrics::Metrics,
    policy::InForce,
    protocol::{
        actions_cache,
        reapi::{self, bytestream},
    },
};

/// Values that are decompressed at once, each with a window of up to 8 MiB.
const UNPACKINGS: usize = 32;
/// Blobs of batches that are written at once: enough to share the syncs of disks that are slow.
const BATCH_WRITES: usize = 1024;
/// Checks of passwords that run at once.
const PASSWORD_CHECKS: usize = 2;

/// The stores behind a gateway.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Blobs.
    pub blobs: Arc<dyn BlobStore>,
    /// Entries.
    pub entries: Arc<dyn EntryStore>,
    /// Figures, garbage collection, verification.
    pub admin: Arc<dyn StoreAdmin>,
}

/// A gateway, ready to serve. Clones are the same gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Shared>);

/// What every connection and request of one gateway shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) cache: Arc<Cache>,
    pub(crate) admin: Arc<dyn StoreAdmin>,
    pub(crate) metrics: Metrics,
    pub(crate) history: History,
    pub(crate) connections: Arc<Connections>,
    pub(crate) protocols: Protocols,
    pub(crate) policy: ArcSwap<InForce>,
    /// Passwords are slow to check on purpose; this many at once.
    pub(crate) password_checks: Semaphore,
    /// A decoder holds a window in memory; this many at once.
    pub(crate) unpackings: Arc<Semaphore>,
    pub(crate) actions: actions_cache::State,
    /// Blobs of batches that are written, over all calls.
    pub(crate) batch_writes: Semaphore,
    /// Downloads for the Remote Asset API.
    pub(crate) fetching: Arc<Fetching>,
    /// Messages of calls that are in memory whole.
    pub(crate) messages: grpc::Budget,
    /// Memory for walks through trees.
    pub(crate) trees: reapi::Trees,
    /// Writes that can be taken up again.
    pub(crate) writes: bytestream::Writes,
    pub(crate) started: Instant,
    /// Requests in the access log so far.
    pub(crate) logged: AtomicU64,
}

impl Gateway {
    /// A gateway over these stores. Everybody may do everything until [`Gateway::set_policy`].
    pub fn new(config: GatewayConfig, stores: Stores) -> Gateway {
        Gateway::with_registry(config, stores, Registry::new())
    }

    /// The same; its metrics page shows what is in this registry, too.
    pub fn with_registry(config: GatewayConfig, stores: Stores, registry: Registry) -> Gateway {
        let metrics = Metrics::new(registry, Arc::clone(&stores.admin));
        let cache = Cache::new(
            stores.blobs,
            Arc::clone(&stores.entries),
            config.max_blob_size,
        );
        let cache = Arc::new(cache);
        let connections = Arc::new(Connections::new(&config, metrics.connections.clone()));
        Gateway(Arc::new(Shared {
            history: History::new(stores.entries),
            fetching: Arc::new(Fetching::new(Arc::clone(&cache))),
            cache,
            admin: stores.admin,
            metrics,
            connections,
            protocols: Protocols::new(&config),
            policy: ArcSwap::default(),
            password_checks: Semaphore::new(PASSWORD_CHECKS),
            unpackings: Arc::new(Semaphore::new(UNPACKINGS)),
            batch_writes: Semaphore::new(BATCH_WRITES),
            actions: actions_cache::State::default(),
            messages: grpc::Budget::default(),
            trees: reapi::Trees::default(),
            writes: bytestream::Writes::default(),
            started: Instant::now(),
            logged: AtomicU64::new(1),
            config,
        }))
    }

    /// Puts another policy in force, at once and whole; requests under way keep the one they began with, and callers
    /// what they have used up of their limits.
    ///
    /// Limits that are shared through Redis start a task: then call it on a runtime.
    pub fn set_policy(&self, policy: Policy) {
        let before = self.0.policy.load();
        let next = before.followed_by(policy, &self.0.metrics);
        self.0.policy.store(Arc::new(next));
    }

    /// Where figures are registered that the metrics page is to show too.
    pub fn registry(&self) -> &Registry {
        self.0.metrics.registry()
    }

    /// The metrics page, for another port than that of the clients: its type, and its text. It is in `OpenMetrics` for
    /// a reader whose headers ask for that.
    pub fn metrics(&self, headers: &HeaderMap) -> (HeaderValue, String) {
        self.0.metrics.page_for(headers)
    }

    /// The store's keeper side.
    pub fn admin(&self) -> &Arc<dyn StoreAdmin> {
        &self.0.admin
    }

    /// Whether it is stopping and takes nothing new.
    pub fn is_draining(&self) -> bool {
        self.0.connections.is_draining()
    }

    /// Signs the URLs that are handed out with this key from now on. Until then it is one that dies with the process,
    /// so gateways that share clients need one of their own.
    pub fn set_signing_key(&self, key: SigningKey) {
        self.0.actions.set_signing_key(key);
    }

    /// Serves these listeners until `shutdown` ends, then drains: requests under way may finish within the configured
    /// time, nothing new is accepted.
    pub async fn serve<F>(&self, listeners: Vec<Listener>, shutdown: F) -> DrainReport
    where
        F: Future<Output = ()> + Send,
    {
        server::serve(&self.0, listeners, shutdown).await
    }
}
