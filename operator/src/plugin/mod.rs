//! `kubectl zim`: how a cache stands, taking a node out, the ring, and all that somebody who helps wants to see.
//!
//! It reads with the rights of whoever calls it, and changes one thing: `drain` lowers `spec.nodes.replicas`, the rest is
//! the operator's. Not here: what `kubectl` does as well.

mod drain;
mod output;
mod redact;
mod report;
mod ring;
mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls::crypto::aws_lc_rs;

use crate::crd::ZimCache;

/// Caches on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "kubectl-zim", bin_name = "kubectl zim", version)]
pub struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Which API server, and where there.
#[derive(Debug, Args)]
struct Place {
    /// Namespace of the cache [default: that of the context]
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true)]
    context: Option<String>,
    /// Path of the kubeconfig
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How a cache and its nodes stand; without a name, all caches of the namespace
    Status(status::Arguments),
    /// Takes the node with the highest number out, after it has handed over what it has
    Drain(drain::Arguments),
    /// Who is in the ring, and what changes
    Ring(ring::Arguments),
    /// Writes down all that somebody who helps wants to see, without secrets
    Report(report::Arguments),
}

/// What went wrong, for people.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no kubeconfig can be used: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("{}", refused(.0))]
    Api(#[from] kube::Error),
    #[error("namespace {0} has no ZimCache")]
    NoCache(String),
    #[error("namespace {namespace} has several: {}; say which", .names.join(", "))]
    WhichCache {
        namespace: String,
        names: Vec<String>,
    },
    #[error("{0} has no ring yet; see kubectl zim status {0}")]
    NoRing(String),
    #[error("the ring of {name} cannot be read: {source}")]
    Ring {
        name: String,
        source: zimcache_ring::Error,
    },
    #[error("{0}")]
    Refused(String),
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

type Result<T> = std::result::Result<T, Error>;

/// What the API server said, without what is around it.
fn refused(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Runs a command line.
pub async fn run(cli: Cli) -> ExitCode {
    // Refused when there is one already, which is then the same.
    aws_lc_rs::default_provider().install_default().ok();
    match obey(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn obey(cli: Cli) -> Result<()> {
    let (client, namespace) = connect(&cli.place).await?;
    let cluster = Cluster { client, namespace };
    match &cli.command {
        Command::Status(args) => status::run(&cluster, args).await,
        Command::Drain(args) => drain::run(&cluster, args).await,
        Command::Ring(args) => ring::run(&cluster, args).await,
        Command::Report(args) => report::run(&cluster, args).await,
    }
}

async fn connect(place: &Place) -> Result<(Client, String)> {
    let options = KubeConfigOptions {
        context: place.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &place.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(file, &options).await?
        }
        None => Config::from_kubeconfig(&options).await?,
    };
    let default = config.default_namespace.clone();
    let namespace = place.namespace.clone().unwrap_or(default);
    Ok((Client::try_from(config)?, namespace))
}

/// A namespace of an API server.
#[derive(Clone)]
struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    fn caches(&self) -> Api<ZimCache> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The cache of this name, or the only one.
    async fn cache(&self, name: Option<&str>) -> Result<ZimCache> {
        if let Some(name) = name {
            return Ok(self.caches().get(name).await?);
        }
        let mut caches = self.caches().list(&ListParams::default()).await?.items;
        let names = || caches.iter().map(ResourceExt::name_any).collect();
        if caches.len() > 1 {
            return Err(Error::WhichCache {
                names: names(),
                namespace: self.namespace.clone(),
            });
        }
        let only = caches.pop();
        only.ok_or_else(|| Error::NoCache(self.namespace.clone()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_flags_may_stand_anywhere() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["kubectl-zim", "status", "main", "-n", "zim", "--json"]);
        assert_eq!(cli.unwrap().place.namespace.as_deref(), Some("zim"));
        let cli = Cli::try_parse_from(["kubectl-zim", "-n", "zim", "ring"]);
        assert!(matches!(cli.unwrap().command, Command::Ring(_)));
    }
}
