//! `zim-operator run`: the order of start and stop.
//!
//! Pages first, then the lease, then the definition of ZimCache, then the caches. Whoever loses the lease ends at once;
//! whoever is asked to stop gives it back.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, CustomResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        conditions::is_crd_established,
        wait::{self, await_condition},
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use zimcache_telemetry::task;
use zimcache_types::SystemClock;

use crate::{
    controller::{self, Context},
    crd::ZimCache,
    leader::{self, Elector, Ended},
    names::MANAGER,
    server::{self, Health, Metrics},
};

/// Between two looks whether the definition is there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How the operator runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where health, readiness and metrics are served.
    pub listen: SocketAddr,
    /// The image of pods whose cache names none.
    pub default_image: String,
    /// The namespaces that are looked after; none means all.
    pub namespaces: Vec<String>,
    /// Whether the definition of ZimCache is kept up to date.
    pub manages_definition: bool,
    /// The lease by which one of several operators works.
    pub lease: String,
    /// Where the lease is.
    pub namespace: String,
    /// Who this is.
    pub identity: String,
}

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither in a cluster nor is there a kubeconfig.
    #[error("no cluster is known")]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be made, or the API server refuses.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The port for the pages.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// Another operator leads.
    #[error("the lease is lost; another operator leads")]
    LeaseLost,
}

/// Runs until a signal, or until the lease is lost.
///
/// # Errors
/// [`Error`].
pub async fn run(settings: Settings) -> Result<(), Error> {
    let (stopping, stopped) = watch::channel(false);
    stop_on_signal(stopping.clone())?;
    let health = Health::default();
    let metrics = Metrics::new(&health);
    let failed = |source| Error::Listen {
        address: settings.listen,
        source,
    };
    let listener = std::net::TcpListener::bind(settings.listen).map_err(failed)?;
    server::start(listener, health.clone(), metrics.clone(), stopped.clone()).map_err(failed)?;
    health.waits("zimcache", ZimCache::crd_name());
    let config = Config::infer().await?;
    let mut elector = elector(config.clone(), &settings, &health)?;
    let client = Client::try_from(config)?;
    tokio::select! {
        () = elector.acquire() => {}
        () = stand_by(&client, &health) => {}
        () = ended(stopped.clone()) => return Ok(()),
    }
    tracing::info!(identity = settings.identity, "this operator leads");
    let leading = task::spawn("lease", elector.keep(ended(stopped.clone())));
    let caches = look_after(client, settings, health, metrics, stopped);
    tokio::select! {
        done = caches => {
            stopping.send_replace(true);
            done
        }
        kept = leading => match kept {
            Ok(Ended::Released) => Ok(()),
            Ok(Ended::Lost) | Err(_) => Err(Error::LeaseLost),
        },
    }
}

/// Is ready to take over, as soon as there is a definition; never ends.
async fn stand_by(client: &Client, health: &Health) {
    established(client).await;
    health.works("zimcache");
    std::future::pending::<()>().await;
}

fn elector(config: Config, settings: &Settings, health: &Health) -> Result<Elector, Error> {
    let client = leader::client_without_retries(config)?;
    let lease = leader::Settings::new(&settings.namespace, &settings.lease, &settings.identity);
    Ok(Elector::new(
        client,
        lease,
        Arc::new(SystemClock),
        health.clone(),
    ))
}

async fn look_after(
    client: Client,
    settings: Settings,
    health: Health,
    metrics: Metrics,
    stopped: watch::Receiver<bool>,
) -> Result<(), Error> {
    if settings.manages_definition {
        define(&client).await?;
    }
    tokio::select! {
        () = established(&client) => health.works("zimcache"),
        () = ended(stopped.clone()) => return Ok(()),
    }
    let context = Context::new(
        client,
        settings.default_image,
        Arc::new(SystemClock),
        metrics,
        Some(settings.identity),
    );
    let context = Arc::new(context);
    let run = |namespace: Option<String>| {
        let (context, stop) = (Arc::clone(&context), ended(stopped.clone()).shared());
        async move { controller::run(context, namespace.as_deref(), stop).await }
    };
    if settings.namespaces.is_empty() {
        run(None).await;
    } else {
        join_all(
            settings
                .namespaces
                .into_iter()
                .map(|namespace| run(Some(namespace))),
        )
        .await;
    }
    Ok(())
}

/// Applies the definition of ZimCache: Helm makes it once and never changes it.
async fn define(client: &Client) -> Result<(), kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply(MANAGER).force();
    api.patch(
        ZimCache::crd_name(),
        &params,
        &Patch::Apply(ZimCache::crd()),
    )
    .await
    .map(drop)
}

/// Waits until the API server serves ZimCaches, however long it takes.
async fn established(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    loop {
        let there = await_condition(api.clone(), ZimCache::crd_name(), is_crd_established());
        match tokio::time::timeout(LOOK_AGAIN, there).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => tracing::warn!(
                error = describe(&error),
                "waiting for the definition of ZimCache"
            ),
            Err(_) => tracing::info!("waiting for the definition of ZimCache"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn describe(error: &wait::Error) -> String {
    error.to_string()
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    stopped.wait_for(|stopped| *stopped).await.ok();
}

fn stop_on_signal(stopping: watch::Sender<bool>) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    task::spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopping.send_replace(true);
    });
    Ok(())
}
