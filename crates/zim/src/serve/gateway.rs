//! `zim gateway`: every dialect on one port, in front of the nodes of a ring.
//!
//! Order of the start: settings, log, ring, addresses, a look at the nodes, listeners answer. It answers also when no node
//! does: nodes come and go, and nothing has to be started in order. It keeps nothing.

use std::{process::ExitCode, sync::Arc};

use zimcache_cluster::{Cluster, Config};
use zimcache_config::{ClusterConfig, Durability, ServeConfig, namespaces::ANY};
use zimcache_gateway::{Gateway, Stores};
use zimcache_link::{Remote, Settings};
use zimcache_ring::{Document, Member};
use zimcache_telemetry::metrics::Registry;
use zimcache_types::{Namespace, SystemClock};

use super::{
    access,
    calls::{Calls, Direction},
    figures, files, keeper, links, listen, logs,
    pid_file::PidFile,
    predecessor::outlive,
    prepare,
    ring::RingSource,
    serve, start_runtime,
};
use crate::{
    args::{GatewayArgs, SettingArgs as _},
    error::{Error, Result},
    output,
};

/// Serves until a signal; or only checks or prints the settings.
pub(crate) fn run(args: &GatewayArgs) -> Result<ExitCode> {
    let Some((config, origin)) = prepare(args.settings(), &args.common)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let source = RingSource::of(&config.cluster)?;
    let settings = links::settings(&config.cluster)?;
    let tls = access::tls(&config.tls)?;
    let runtime = start_runtime()?;
    let traces = logs::start(&config, "gateway", &runtime)?;
    if let Some(warning) = files::raise_limit(config.gateway.max_connections) {
        output::tell(&warning);
    }
    let ring = source.read()?;
    let bound = outlive(|| listen::bind(&config))?;
    let keeper = listen::keeper(&config)?;
    let _pid_file = PidFile::write(config.pid_file.as_deref())?;
    let served = runtime.block_on(async {
        let found = describe(&ring, &source);
        links::watch(&config.cluster, &settings);
        let registry = Registry::new();
        registry.process("gateway", env!("CARGO_PKG_VERSION"));
        let calls = Calls::new(&registry, Direction::Out);
        let cluster = cluster(&config, (ring, source), settings, calls)?;
        let stores = Stores {
            blobs: cluster.blobs(),
            entries: cluster.entries(),
            admin: cluster.admin(),
        };
        // So that the first request knows who is there; a node that is away is waited for a second at most.
        cluster.status(true).await;
        figures::show_cluster(&registry, cluster);
        let gateway = Gateway::with_registry(config.gateway.clone(), stores, registry);
        if let Some(listener) = keeper {
            let at = listener.local_addr().map_err(Error::Runtime)?;
            keeper::of_gateway(listener, &gateway)?;
            output::print(&format!("health and metrics on http://{at}\n"))?;
        }
        serve(&config, origin, tls, bound, gateway, &found).await
    });
    traces.finish();
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// The nodes as one store, following the ring. Call it on the runtime.
fn cluster(
    config: &ServeConfig,
    (ring, source): (Document, RingSource),
    settings: Settings,
    calls: Calls,
) -> Result<Cluster> {
    let connect = move |member: &Member| -> Arc<dyn zimcache_link::Peer> {
        let address = member.address.as_deref().unwrap_or_default();
        calls.count(Arc::new(Remote::new(address, &settings)))
    };
    let (config, rings) = (of_settings(config), source.follow(ring));
    let seed = getrandom::u64().map_err(Error::NoRandomness)?;
    Ok(Cluster::new(
        config,
        rings,
        connect,
        Arc::new(SystemClock),
        seed,
    ))
}

/// What the settings say about a cluster, for a gateway.
pub(super) fn of_settings(config: &ServeConfig) -> Config {
    let ClusterConfig {
        durability,
        zone,
        ram_cache,
        ..
    } = &config.cluster;
    let others = config.namespaces.iter().filter(|(name, _)| *name != ANY);
    let namespaces = others.filter_map(|(name, namespace)| {
        let name = Namespace::new(name).ok()?;
        Some((name, class(namespace.durability?)))
    });
    let any = config.namespaces.get(ANY).and_then(|any| any.durability);
    Config {
        zone: zone.as_str().into(),
        durability: class(any.unwrap_or(*durability)),
        durable_tier: config.s3.bucket.is_some(),
        namespaces: namespaces.collect(),
        ram_bytes: ram_cache.as_u64(),
        ..Config::default()
    }
}

const fn class(durability: Durability) -> zimcache_cluster::Durability {
    match durability {
        Durability::Local => zimcache_cluster::Durability::Local,
        Durability::Quorum => zimcache_cluster::Durability::Quorum,
        Durability::Bucket => zimcache_cluster::Durability::Bucket,
    }
}

/// What the cache is kept in, for people.
fn describe(ring: &Document, source: &RingSource) -> String {
    let members = ring.current().members.len();
    format!(
        "ring {source}: epoch {}, {}, {} of everything\n",
        ring.epoch(),
        output::counted(members as u64, "node", "nodes"),
        output::counted(u64::from(ring.replicas()), "copy", "copies"),
    )
}

impl RingSource {
    /// Where the settings say that the ring is.
    pub(super) fn of(config: &ClusterConfig) -> Result<RingSource> {
        let text = config.ring.as_deref().ok_or(Error::NoRing)?;
        Ok(RingSource::new(text))
    }
}
