//! `zim-operator`: looks after the ZimCaches of a Kubernetes cluster.
//!
//! `run` does so, `crd` prints the definition of the resource, `check` says what a ZimCache in a file would become.
//! Exit codes: 0 done, 1 it failed.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool answers on its standard output"
)]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use zimcache_operator::{check, crd, run};
use zimcache_telemetry::log;

/// Looks after the ZimCaches of a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "zim-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks after ZimCaches until it is stopped.
    Run(RunArgs),
    /// Prints the definition of ZimCache, for kubectl apply.
    Crd,
    /// Prints the objects that a ZimCache would become, as JSON; tells every problem of it.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Image of gateways and nodes of a ZimCache that names none.
    #[arg(long, value_name = "IMAGE", env = "ZIM_OPERATOR_DEFAULT_IMAGE")]
    default_image: String,
    /// Where health, readiness and metrics are served.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8081")]
    listen: SocketAddr,
    /// Namespaces to look after, separated by commas; absent, all.
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Keep the definition of ZimCache up to date; the default.
    #[arg(long, overrides_with = "no_manage_crds", alias = "manage-crd")]
    manage_crds: bool,
    /// Leave the definition of ZimCache to somebody else.
    #[arg(long)]
    no_manage_crds: bool,
    /// The lease by which one of several operators works.
    #[arg(long, value_name = "NAME", default_value = "zim-operator")]
    lease: String,
    /// Name of this pod.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAME",
        default_value = "zim-operator"
    )]
    pod_name: String,
    /// Namespace of this pod, where the lease is.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "POD_NAMESPACE",
        default_value = "default"
    )]
    pod_namespace: String,
    /// The least important events that are logged, or target=level pairs.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Lines for people, or one JSON object per line.
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// A ZimCache as JSON, as kubectl get -o json writes it.
    file: PathBuf,
    /// Image of gateways and nodes if the ZimCache names none.
    #[arg(long, value_name = "IMAGE", default_value = "zimcache")]
    default_image: String,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => start(args),
        Command::Crd => {
            print!("{}", crd::definition_yaml());
            Ok(())
        }
        Command::Check(args) => check::file(&args.file, &args.default_image)
            .map(|text| println!("{text}"))
            .map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zim-operator: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn start(args: RunArgs) -> Result<(), Box<dyn std::error::Error>> {
    let format = match args.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    log::init(format, &args.log_level)?;
    // Without it two TLS libraries in one program would each wait for the other to be chosen.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a TLS library is installed already")?;
    let settings = run::Settings {
        listen: args.listen,
        default_image: args.default_image,
        namespaces: args.watch_namespaces,
        manages_definition: !args.no_manage_crds,
        lease: args.lease,
        namespace: args.pod_namespace,
        identity: format!("{}-{:08x}", args.pod_name, getrandom::u32()?),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run::run(settings))?;
    Ok(())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
