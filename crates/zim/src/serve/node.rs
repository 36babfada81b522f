//! `zim node`: one disk of a cluster, offered to its gateways and to the other nodes.
//!
//! Order of the start: settings, log, ring, addresses, store, answers. Order of the stop: calls, what has to be handed
//! over, store. A node answers "absent" only when it has heard from the others what it missed.

use std::{
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
};

use tokio::sync::watch;
use zimcache_config::ServeConfig;
use zimcache_gateway::register_store;
use zimcache_link::{self as link, Peer, Remote, Settings};
use zimcache_member::Peers;
use zimcache_node::Node;
use zimcache_telemetry::metrics::Registry;

use super::{
    announce,
    calls::{Calls, Direction},
    keeper, links, listen, logs,
    member::Seat,
    pid_file::PidFile,
    predecessor::outlive,
    prepare,
    ring::RingSource,
    start_runtime, stop,
};
use crate::{
    args::{NodeArgs, SettingArgs as _},
    error::{Error, Result},
    local::{self, open_node},
    output,
};

/// Serves until a signal; or only checks or prints the settings.
pub(crate) fn run(args: &NodeArgs) -> Result<ExitCode> {
    let Some((config, _)) = prepare(args.settings(), &args.common)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let storage = config.storage.as_deref().ok_or(Error::NoStorage)?;
    let source = RingSource::of(&config.cluster)?;
    let settings = links::settings(&config.cluster)?;
    let runtime = start_runtime()?;
    let traces = logs::start(&config, "node", &runtime)?;
    let id = config.cluster.member.as_deref();
    let id = id.ok_or(Error::NodeSetting("no id is known: give --member"))?;
    let ring = source.read()?;
    if !ring.members().any(|member| member.id == id) {
        output::tell(&format!(
            "warning: {id} is not in the ring yet, so it keeps nothing; zim cluster ring join takes it in"
        ));
    }
    let listen = config.cluster.listen;
    let listen = listen.ok_or(Error::NodeSetting("no address is known: give --listen"))?;
    let bound = Bound {
        peers: outlive(|| listen::listen(listen, true))?,
        keeper: listen::keeper(&config)?,
    };
    let is_new = !local::holds_store(storage);
    let node = outlive(|| open_node(storage, &config.store))?;
    let _pid_file = PidFile::write(config.pid_file.as_deref())?;
    output::print(&announce::found(storage, &config, &node.report(), is_new))?;
    let served = runtime.block_on(async {
        links::watch(&config.cluster, &settings);
        let registry = Registry::new();
        registry.process("node", env!("CARGO_PKG_VERSION"));
        let (connect, calls) = (settings.clone(), Calls::new(&registry, Direction::Out));
        let peers: Peers = Arc::new(move |address: &str| -> Arc<dyn Peer> {
            calls.count(Arc::new(Remote::new(address, &connect)))
        });
        let me = (id, source.follow(ring));
        let seat = Seat::take(&config, storage, &node, me, peers).await?;
        serve(&config, bound, settings, seat, (&node, registry)).await
    });
    node.close();
    traces.finish();
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// What is listened on.
#[derive(Debug)]
struct Bound {
    peers: TcpListener,
    keeper: Option<TcpListener>,
}

/// Answers until a signal, then hands over what only this node has.
async fn serve(
    config: &ServeConfig,
    bound: Bound,
    settings: Settings,
    seat: Seat,
    (node, registry): (&Node, Registry),
) -> Result<()> {
    let calls = Calls::new(&registry, Direction::In);
    let stopped = stop::on_signal()?;
    let (ending, ended) = watch::channel(false);
    let listener = tokio::net::TcpListener::from_std(bound.peers).map_err(Error::Runtime)?;
    let address = listener.local_addr().map_err(Error::Runtime)?;
    if let Some(listener) = bound.keeper {
        let at = listener.local_addr().map_err(Error::Runtime)?;
        register_store(&registry, node.admin());
        seat.show(&registry);
        keeper::of_node(listener, seat.member.clone(), registry, ended)?;
        output::print(&format!("health and metrics on http://{at}\n"))?;
    }
    output::print(&listening(config, &settings, address))?;
    let peer = calls.count(Arc::new(seat.member.clone()));
    link::serve(listener, peer, settings.tls, stopped).await;
    seat.leave(config.gateway.drain_timeout).await;
    ending.send_replace(true);
    Ok(())
}

/// Where and as whom, for people.
fn listening(config: &ServeConfig, settings: &Settings, address: SocketAddr) -> String {
    let scheme = if settings.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let id = config.cluster.member.as_deref().unwrap_or_default();
    format!("listening on {scheme}://{address} as {id}\n")
}
