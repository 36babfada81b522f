//! What can be typed to commands of a client: settings, log-in, objects, setting up build tools.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) const CONFIG_EXAMPLES: &str = "\
Keys: cache.remote (URL), cache.token, cache.namespace, cache.ca (file of certificates). A token may name its place \
instead: env:NAME or file:PATH. Variables win over the file: ZIMCACHE_URL, ZIMCACHE_TOKEN or ZIM_CLOUD_TOKEN, \
ZIMCACHE_NAMESPACE; ZIMCACHE_CONFIG names another file.

Examples:
  zim config set cache.remote https://cache.example
  zim config set cache.token env:CI_CACHE_TOKEN
  zim config list
  zim config unset cache.namespace";

pub(crate) const LOGIN_EXAMPLES: &str = "\
The token is checked with the server before it is kept. Without --token it is read from standard input; a terminal \
does not show it.

Examples:
  zim login --url https://cache.example
  zim login --token zim_...
  zim login --token env:CI_CACHE_TOKEN        (keeps the name, not the token)
  vault read -field=token secret/cache | zim login";

pub(crate) const HEALTH_EXAMPLES: &str = "\
Examples:
  zim health
  zim health --url https://cache.example --timeout 2";

pub(crate) const PUT_EXAMPLES: &str = "\
Prints each SHA-256, which is the name to get it by.

Examples:
  zim cache put libfoo.a
  tar c out | zim cache put -";

pub(crate) const GET_EXAMPLES: &str = "\
The content is checked against its SHA-256. A file appears only when it is whole and right; an interrupted download \
goes on where it stopped when the command is repeated.

Examples:
  zim cache get 9f86d081... -o libfoo.a
  zim cache get 9f86d081... | tar x";

pub(crate) const LS_EXAMPLES: &str = "\
Examples:
  zim cache ls
  zim cache ls --tool gradle --limit 20
  zim cache ls --tool ccache --prefix ab --json";

pub(crate) const RM_EXAMPLES: &str = "\
Examples:
  zim cache rm 9f86d081...                       an object by its SHA-256
  zim cache rm 0123456789abcdef --tool turborepo one poisoned entry, by the key that ls shows
  zim cache rm --namespace pr-17 --all --yes     everything in a namespace";

pub(crate) const SETUP_EXAMPLES: &str = "\
Without --token the lines name the variable ZIMCACHE_TOKEN where a token is needed.

Examples:
  zim setup bazel
  zim setup gradle --url https://cache.example --namespace ios
  zim setup turbo --format env >> $GITHUB_ENV
  zim setup ccache --write
  zim setup nx --check";

/// Where the server is, and how to introduce oneself.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArgs {
    /// Where the server is [default: $ZIMCACHE_URL, else cache.remote of zim config, else http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The token, or env:NAME or file:PATH [default: $ZIMCACHE_TOKEN, else cache.token of zim config]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The namespace [default: $ZIMCACHE_NAMESPACE, else cache.namespace of zim config, else the token's]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Trust the certificates in this PEM file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// What `zim config` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Keep a setting in the user's file
    Set { key: String, value: String },
    /// Print the value in force
    Get { key: String },
    /// Print all settings in force, and where each comes from
    List,
    /// Take a setting out of the user's file
    Unset { key: String },
}

/// Flags of `zim login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Flags of `zim health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Longest wait in seconds
    #[arg(long = "timeout", value_name = "SECONDS", default_value = "5")]
    pub(crate) timeout_seconds: u64,
}

/// Flags of `zim cache put`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Files to store; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Flags of `zim cache get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// SHA-256 of the content
    #[arg(value_name = "HASH")]
    pub(crate) hash: String,
    /// Write to this file; - is standard output [default: standard output, unless that is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Flags of `zim cache ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only what this tool stored
    #[arg(long, value_name = "TOOL")]
    pub(crate) tool: Option<String>,
    /// Only keys that start so
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
    /// Most rows
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) limit: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Flags of `zim cache rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// SHA-256 of an object, or with --tool the key of an entry
    #[arg(
        value_name = "KEY",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub(crate) key: Option<String>,
    /// The key is one of this tool's
    #[arg(long, value_name = "TOOL", conflicts_with = "all")]
    pub(crate) tool: Option<String>,
    /// Everything in the namespace that --namespace names
    #[arg(long, requires = "namespace")]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// How `zim setup` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Files and variables, for people
    #[default]
    Text,
    /// NAME=value lines alone, with the token in force
    Env,
    /// The same as text, for programs
    Json,
}

/// Flags of `zim setup`.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Which tool; list names them all
    #[arg(value_name = "TOOL", value_parser = crate::setup::names())]
    pub(crate) tool: String,
    /// How to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Write into the tool's usual file, with a backup
    #[arg(long, conflicts_with_all = ["check", "format"])]
    pub(crate) write: bool,
    /// With --write: also where the file has other settings for a remote cache, which are commented out
    #[arg(long, requires = "write")]
    pub(crate) force: bool,
    /// Prove that a value goes to the server and comes back, over the routes of this tool
    #[arg(long, conflicts_with = "format")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
