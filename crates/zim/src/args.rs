//! What can be typed. The text, the default and the accepted values of a flag that sets a setting come from
//! `zimcache_config`, their one home; such flags stay text here and are checked there with all other sources.

mod client;
mod cluster;
mod roles;
mod token;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use zimcache_config::human::{DurationError, parse_duration};
use zimcache_types::ByteSize;

pub(crate) use self::client::{
    ConfigCommand, Format, GetArgs, HealthArgs, LoginArgs, LsArgs, PutArgs, RmArgs, ServerArgs,
    SetupArgs,
};
pub(crate) use self::cluster::{
    ChangeArgs, ClusterCommand, ClusterStatusArgs, DrainArgs, InitArgs, RingCommand, ShowArgs,
    WaitArgs,
};
pub(crate) use self::roles::{CommonArgs, GatewayArgs, NodeArgs, ServeArgs, SettingArgs};
pub(crate) use self::token::{
    CreateTokenArgs, RevokeTokenArgs, RotateTokenArgs, TokenCommand, TokenFileArgs,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "zim",
    version,
    about = "One build cache for every build tool",
    after_help = "Start here:\n  zim cache serve --port 8080 --storage ~/zimcache --max-size 100GB",
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `zim` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cache, use one, or look after one
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Print, write or check the settings of a build tool
    #[command(after_help = client::SETUP_EXAMPLES)]
    Setup(SetupArgs),
    /// Show and change where this user's cache is
    #[command(subcommand, after_help = client::CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Check a token with the server, and keep it
    #[command(after_help = client::LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// Forget the token
    Logout,
    /// Tell whether the server answers, also as the exit code
    #[command(after_help = client::HEALTH_EXAMPLES)]
    Health(HealthArgs),
    /// Make, show, take away and renew tokens
    #[command(subcommand, after_help = token::TOKEN_EXAMPLES)]
    Token(TokenCommand),
    /// Print the completions of a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Show how a cluster stands, and change which nodes it has
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Run a gateway of a cluster; also as zim-gateway
    #[command(after_help = roles::GATEWAY_EXAMPLES)]
    Gateway(Box<GatewayArgs>),
    /// Run a node of a cluster; also as zim-node
    #[command(after_help = roles::NODE_EXAMPLES)]
    Node(Box<NodeArgs>),
}

/// What `zim cache` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Serve a cache from this machine's disk, on one port
    #[command(after_help = roles::SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Store files, named by their SHA-256
    #[command(after_help = client::PUT_EXAMPLES)]
    Put(PutArgs),
    /// Fetch a file by its SHA-256
    #[command(after_help = client::GET_EXAMPLES)]
    Get(GetArgs),
    /// List what is stored
    #[command(after_help = client::LS_EXAMPLES)]
    Ls(LsArgs),
    /// Remove an object, an entry of a tool, or everything in a namespace
    #[command(after_help = client::RM_EXAMPLES)]
    Rm(RmArgs),
    /// Show hit rates and storage figures
    #[command(after_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
    /// Give space back: compact, and evict down to a target
    #[command(after_help = GC_EXAMPLES)]
    Gc(GcArgs),
    /// Read and check everything stored, now; exit with 1 on damage
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
}

const STATS_EXAMPLES: &str = "\
Examples:
  zim cache stats
  zim cache stats --metric hit-rate --window 7d
  zim cache stats --metric top
  zim cache stats --url http://cache.example:8080 --json
  zim cache stats --storage /var/lib/zimcache        (while no server uses it)";

const GC_EXAMPLES: &str = "\
Examples:
  zim cache gc                      compact only
  zim cache gc --target 50GB        evict until at most 50 GB are live
  zim cache gc --older-than 30d --dry-run
  zim cache gc --namespace pr-17 --older-than 7d
  zim cache gc --storage /var/lib/zimcache --target 10GB   (while no server uses it)";

const VERIFY_EXAMPLES: &str = "\
Examples:
  zim cache verify
  zim cache verify --json
  zim cache verify --storage /var/lib/zimcache       (while no server uses it)";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  zim completions bash > ~/.local/share/bash-completion/completions/zim
  zim completions zsh > ~/.zfunc/_zim
  zim completions fish > ~/.config/fish/completions/zim.fish";

/// Reads a duration as settings have them.
fn duration(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text)
}

/// Which store a command is about.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Work on this folder directly, while no server uses it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["url", "token", "ca"])]
    pub(crate) storage: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which figures `zim cache stats` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Metric {
    /// How many look-ups were answered from the cache
    HitRate,
    /// What is stored, and how the disk is used
    Storage,
    /// Which tools and namespaces use the cache most
    Top,
}

/// Flags of `zim cache stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show only these figures
    #[arg(long, value_name = "METRIC")]
    pub(crate) metric: Option<Metric>,
    /// Count the last 7d, 24h and so on, instead of since the start of the server
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "storage")]
    pub(crate) window: Option<Duration>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Flags of `zim cache gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Evict until at most so many bytes are live, such as 50GB; without it, nothing is evicted
    #[arg(long = "target", value_name = "SIZE")]
    pub(crate) target_size: Option<ByteSize>,
    /// Remove what was put longer ago, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
    /// Change nothing, say what would be freed
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Flags of `zim cache verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Arguments of `zim completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_server_and_a_folder_cannot_both_be_meant() {
        let words = ["zim", "cache", "gc", "--url", "http://a", "--storage", "b"];
        assert!(Cli::try_parse_from(words).is_err());
    }
}
