//! What serves: `zim cache serve`, one process that is a node and a gateway, joined by trait objects; and both by
//! themselves, `gateway` and `node`, the parts of a cluster.
//!
//! Order of the start: settings, log, addresses, store, listeners answer. Order of the stop: listeners, requests,
//! store. A store that failed to close cleanly is recovered at the next start.

mod access;
mod alone;
mod announce;
mod calls;
mod durable;
mod figures;
mod files;
pub(crate) mod gateway;
mod keeper;
mod links;
mod listen;
mod logs;
mod member;
pub(crate) mod node;
mod pid_file;
mod predecessor;
mod reload;
pub(crate) mod ring;
mod stop;

use std::{net::TcpListener, num::NonZero, path::Path, process::ExitCode, thread};

use tokio::runtime::{self, Runtime};
use zimcache_config::{Environment, ServeConfig};
use zimcache_gateway::{Gateway, Stores, Tls};
use zimcache_node::Node;

use crate::{
    args::{CommonArgs, ServeArgs, SettingArgs as _},
    error::{Error, Result},
    local::{self, open_node},
    output,
    serve::{member::Seat, pid_file::PidFile, predecessor::outlive},
};

/// Serves until a signal; or only checks or prints the settings.
pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode> {
    let Some((config, origin)) = prepare(args.settings(), &args.common)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let storage = config.storage.as_deref().ok_or(Error::NoStorage)?;
    let tls = access::tls(&config.tls)?;
    let runtime = start_runtime()?;
    let traces = logs::start(&config, "server", &runtime)?;
    if let Some(warning) = files::raise_limit(config.gateway.max_connections) {
        output::tell(&warning);
    }
    let bound = outlive(|| listen::bind(&config))?;
    let is_new = !local::holds_store(storage);
    let node = outlive(|| open_node(storage, &config.store))?;
    let _pid_file = PidFile::write(config.pid_file.as_deref())?;
    let found = announce::found(storage, &config, &node.report(), is_new);
    let served = runtime.block_on(async {
        let (stores, seat) = stores(&config, storage, &node).await?;
        let gateway = Gateway::new(config.gateway.clone(), stores);
        gateway
            .registry()
            .process("server", env!("CARGO_PKG_VERSION"));
        if let Some(seat) = &seat {
            seat.show(gateway.registry());
        }
        let served = serve(&config, origin, tls, bound, gateway, &found).await;
        if let Some(seat) = seat {
            seat.leave(config.gateway.drain_timeout).await;
        }
        served
    });
    // The runtime still runs, so that a second signal ends a close that takes too long.
    node.close();
    traces.finish();
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// What is served: the node as it is, or with the durable tier that the settings name behind it.
async fn stores(
    config: &ServeConfig,
    folder: &Path,
    node: &Node,
) -> Result<(Stores, Option<Seat>)> {
    if config.s3.bucket.is_some() {
        let (stores, seat) = alone::join(config, folder, node).await?;
        return Ok((stores, Some(seat)));
    }
    let stores = Stores {
        blobs: node.blobs(),
        entries: node.entries(),
        admin: node.admin(),
    };
    Ok((stores, None))
}

/// Reads and checks the settings; `None` when that is all that was asked for.
fn prepare(
    flags: Vec<(&'static str, String)>,
    common: &CommonArgs,
) -> Result<Option<(ServeConfig, reload::Origin)>> {
    let origin = reload::Origin {
        file: common.config.clone(),
        environment: Environment::of_process(),
        flags,
    };
    let config = origin.load()?;
    if common.print_config {
        output::print(&config.to_toml().map_err(Error::PrintConfig)?)?;
        return Ok(None);
    }
    if common.check {
        access::tls(&config.tls)?;
        access::policy(&config, &origin.environment, true)?;
        access::signing_key(&config.auth)?;
        output::print("the configuration is fine\n")?;
        return Ok(None);
    }
    Ok(Some((config, origin)))
}

/// One worker per core that this process may use, which follows CPU affinity.
fn start_runtime() -> Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("zim-worker")
        .enable_all()
        .build()
        .map_err(Error::Runtime)
}

/// Answers until a signal, then drains. `found` says what is behind the gateway, for people.
async fn serve(
    config: &ServeConfig,
    origin: reload::Origin,
    tls: Option<Tls>,
    bound: listen::Bound,
    gateway: Gateway,
    found: &str,
) -> Result<()> {
    let stopped = stop::on_signal()?;
    let local_only = bound.is_local();
    let reload = reload::Reload {
        origin,
        gateway: gateway.clone(),
        tls: tls.clone(),
        local_only,
    };
    let configured = reload.begin(config)?;
    let addresses = bound.addresses.clone();
    let start = announce::Start {
        addresses: &addresses,
        unix_socket: config.unix_socket.as_deref(),
        found,
        access: announce::Access {
            tls: tls.is_some() && bound.tls.is_empty(),
            configured,
            anonymous: access::anonymous(&config.auth, local_only),
            local_only,
        },
    };
    let own_port = bound.tls.first().map(TcpListener::local_addr);
    let (listeners, socket_file) = bound.into_listeners(tls)?;
    output::print(&start.text())?;
    if let Some(at) = own_port.transpose().map_err(Error::Runtime)? {
        output::print(&format!("listening on https://{at}\n"))?;
    }
    for warning in start.access.warnings() {
        output::tell(&warning);
    }
    reload.watch(config.clone())?;
    gateway.serve(listeners, stopped).await;
    drop(socket_file);
    Ok(())
}
