//! `zim cache serve`: one process that is a node and a gateway, joined by trait objects.
//!
//! Order of the start: settings, log, addresses, store, listeners answer. Order of the stop: listeners, requests,
//! store. A store that failed to close cleanly is recovered at the next start.

mod access;
mod announce;
mod files;
mod listen;
mod reload;
mod stop;

use std::{num::NonZero, process::ExitCode, thread};

use tokio::runtime::{self, Runtime};
use zimcache_config::{Environment, LogConfig, LogFormat, ServeConfig};
use zimcache_gateway::{Gateway, Stores, Tls};
use zimcache_node::Node;
use zimcache_telemetry::log;

use crate::{
    args::ServeArgs,
    error::{Error, Result},
    local::{self, open_node},
    output,
};

/// Serves until a signal; or only checks or prints the settings.
pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode> {
    let origin = reload::Origin {
        file: args.config.clone(),
        environment: Environment::of_process(),
        flags: args.settings(),
    };
    let config = origin.load()?;
    if args.print_config {
        output::print(&config.to_toml().map_err(Error::PrintConfig)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let storage = config.storage.as_deref().ok_or(Error::NoStorage)?;
    let tls = access::tls(&config.tls)?;
    if args.check {
        access::policy(&config, &origin.environment, true)?;
        access::signing_key(&config.auth)?;
        output::print("the configuration is fine\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    start_log(&config.log)?;
    if let Some(warning) = files::raise_limit(config.gateway.max_connections) {
        output::tell(&warning);
    }
    let bound = listen::bind(&config)?;
    let is_new = !local::holds_store(storage);
    let node = open_node(storage, &config.store)?;
    let runtime = start_runtime()?;
    let served = runtime.block_on(serve(&config, origin, tls, is_new, bound, &node));
    // The runtime still runs, so that a second signal ends a close that takes too long.
    node.close();
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

fn start_log(config: &LogConfig) -> Result<()> {
    let format = match config.format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let level = config.level.as_str();
    // Other people's crates are only heard when something is wrong; the access log has a switch of its own.
    let filter = format!("warn,zim={level},zimcache={level},zimcache::access=info");
    log::init(format, &filter)?;
    Ok(())
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

/// Answers until a signal, then drains.
async fn serve(
    config: &ServeConfig,
    origin: reload::Origin,
    tls: Option<Tls>,
    is_new: bool,
    bound: listen::Bound,
    node: &Node,
) -> Result<()> {
    let stopped = stop::on_signal()?;
    let gateway = Gateway::new(
        config.gateway.clone(),
        Stores {
            blobs: node.blobs(),
            entries: node.entries(),
            admin: node.admin(),
        },
    );
    let local_only = bound.is_local();
    let reload = reload::Reload {
        origin,
        gateway: gateway.clone(),
        admin: node.admin(),
        tls: tls.clone(),
        local_only,
    };
    let configured = reload.begin(config)?;
    let addresses = bound.addresses.clone();
    let start = announce::Start {
        addresses: &addresses,
        unix_socket: config.unix_socket.as_deref(),
        storage: config.storage.as_deref().ok_or(Error::NoStorage)?,
        asked_bytes: config.store.max_size.as_u64(),
        found: &node.report(),
        is_new,
        access: announce::Access {
            tls: tls.is_some(),
            configured,
            anonymous: access::anonymous(&config.auth, local_only),
            local_only,
        },
    };
    let (listeners, socket_file) = bound.into_listeners(tls)?;
    output::print(&start.text())?;
    for warning in start.access.warnings() {
        output::tell(&warning);
    }
    reload.watch(config.clone())?;
    gateway.serve(listeners, stopped).await;
    drop(socket_file);
    Ok(())
}
