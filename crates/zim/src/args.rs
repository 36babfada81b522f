//! What can be typed. The text, the default and the accepted values of a flag that sets a setting come from
//! `zimcache_config`, their one home; such flags stay text here and are checked there with all other sources.

mod client;
mod token;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use zimcache_config::{
    ServeConfig,
    human::{DurationError, parse_duration},
};
use zimcache_types::ByteSize;

pub(crate) use self::client::{
    ConfigCommand, Format, GetArgs, HealthArgs, LoginArgs, LsArgs, PutArgs, RmArgs, ServerArgs,
    SetupArgs,
};
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
}

/// What `zim cache` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Serve a cache from this machine's disk, on one port
    #[command(after_help = SERVE_EXAMPLES)]
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

const SERVE_EXAMPLES: &str = "\
Settings come from defaults, then the file of --config, then variables such as \
ZIMCACHE_SERVE__STORE__MAX_SIZE, then flags; later ones win. docs/config.md has all of them.

Examples:
  zim cache serve --port 8080 --storage /var/lib/zimcache --max-size 100GB
  zim cache serve --bind 0.0.0.0 --max-size 500GiB --access-log
  zim cache serve --config zim.toml --check
  zim cache serve --max-size 50GB --print-config > zim.toml";

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

/// Flags of `zim cache serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[arg(long, value_name = "PORT", help = about("--port"))]
    port: Option<String>,
    #[arg(long, value_name = "ADDR", help = about("--bind"))]
    bind: Vec<String>,
    #[arg(long, value_name = "DIR", help = about("--storage"))]
    storage: Option<String>,
    #[arg(long, value_name = "SIZE", help = about("--max-size"))]
    max_size: Option<String>,
    #[arg(long, value_name = "CODEC", help = about("--compression"))]
    compression: Option<String>,
    #[arg(long, value_name = "DURATION", help = about("--retention"))]
    retention: Option<String>,
    #[arg(long, value_name = "PATH", help = about("--unix-socket"))]
    unix_socket: Option<String>,
    #[arg(long, value_name = "SIZE", help = about("--max-blob-size"))]
    max_blob_size: Option<String>,
    #[arg(long, value_name = "N", help = about("--max-connections"))]
    max_connections: Option<String>,
    #[arg(long, value_name = "DURATION", help = about("--drain-timeout"))]
    drain_timeout: Option<String>,
    #[arg(long, help = about("--title-case-headers"))]
    title_case_headers: bool,
    #[arg(long, help = about("--access-log"))]
    access_log: bool,
    #[arg(long, value_name = "NETWORK", help = about("--trusted-proxy"))]
    trusted_proxy: Vec<String>,
    #[arg(long, value_name = "URL", help = about("--public-url"))]
    public_url: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--tokens"))]
    tokens: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--htpasswd"))]
    htpasswd: Option<String>,
    #[arg(long, value_name = "POLICY", help = about("--anonymous"))]
    anonymous: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--tls-cert"))]
    tls_cert: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--tls-key"))]
    tls_key: Option<String>,
    #[arg(long, value_name = "RATE", help = about("--limit-global"))]
    limit_global: Option<String>,
    #[arg(long, value_name = "RATE", help = about("--limit-per-address"))]
    limit_per_address: Option<String>,
    #[arg(long, value_name = "RATE", help = about("--limit-per-token"))]
    limit_per_token: Option<String>,
    #[arg(long, value_name = "URL", help = about("--redis-url"))]
    redis_url: Option<String>,
    #[arg(long, value_name = "URL", help = about("--fetch-from"))]
    fetch_from: Vec<String>,
    #[arg(long, value_name = "LEVEL", help = about("--log-level"))]
    log_level: Option<String>,
    #[arg(long, value_name = "FORMAT", help = about("--log-format"))]
    log_format: Option<String>,
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check all settings, tell every problem, and start nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the settings in force as a TOML file, and start nothing
    #[arg(long)]
    pub(crate) print_config: bool,
}

impl ServeArgs {
    /// The flags given that set a setting, with their texts; several addresses become one list.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let list = |texts: &[String]| (!texts.is_empty()).then(|| texts.join(","));
        let given = [
            ("--port", self.port.clone()),
            ("--bind", list(&self.bind)),
            ("--storage", self.storage.clone()),
            ("--max-size", self.max_size.clone()),
            ("--compression", self.compression.clone()),
            ("--retention", self.retention.clone()),
            ("--unix-socket", self.unix_socket.clone()),
            ("--max-blob-size", self.max_blob_size.clone()),
            ("--max-connections", self.max_connections.clone()),
            ("--drain-timeout", self.drain_timeout.clone()),
            ("--title-case-headers", switch(self.title_case_headers)),
            ("--access-log", switch(self.access_log)),
            ("--trusted-proxy", list(&self.trusted_proxy)),
            ("--public-url", self.public_url.clone()),
            ("--tokens", self.tokens.clone()),
            ("--htpasswd", self.htpasswd.clone()),
            ("--anonymous", self.anonymous.clone()),
            ("--tls-cert", self.tls_cert.clone()),
            ("--tls-key", self.tls_key.clone()),
            ("--limit-global", self.limit_global.clone()),
            ("--limit-per-address", self.limit_per_address.clone()),
            ("--limit-per-token", self.limit_per_token.clone()),
            ("--redis-url", self.redis_url.clone()),
            ("--fetch-from", list(&self.fetch_from)),
            ("--log-level", self.log_level.clone()),
            ("--log-format", self.log_format.clone()),
        ];
        let set = given.into_iter();
        set.filter_map(|(flag, text)| Some((flag, text?))).collect()
    }
}

/// A flag without a value says yes; its absence says nothing.
fn switch(given: bool) -> Option<String> {
    given.then(|| "true".to_owned())
}

/// Help text of a flag that sets a setting.
fn about(flag: &str) -> String {
    let field = ServeConfig::all_fields().find(|field| field.flag == Some(flag));
    let Some(field) = field else {
        return String::new();
    };
    match ServeConfig::default_text(field) {
        Some(default) if default != "false" => format!("{} [default: {default}]", field.text()),
        _ => field.text(),
    }
}

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

    fn serve_args(words: &[&str]) -> ServeArgs {
        let words = ["zim", "cache", "serve"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Cache(CacheCommand::Serve(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_with_a_flag_is_set_by_that_flag_and_has_its_text() {
        let command = Cli::command();
        let serve = command.find_subcommand("cache").unwrap();
        let serve = serve.find_subcommand("serve").unwrap();
        for field in ServeConfig::all_fields() {
            let Some(flag) = field.flag else { continue };
            let arg = serve
                .get_arguments()
                .find(|arg| arg.get_long() == Some(flag.trim_start_matches("--")))
                .unwrap_or_else(|| panic!("{flag} is not defined"));
            assert!(
                arg.get_help()
                    .unwrap()
                    .to_string()
                    .starts_with(&field.text()),
                "{flag}"
            );
            let args = if arg.get_action().takes_values() {
                serve_args(&[flag, "value"])
            } else {
                serve_args(&[flag])
            };
            let set = args.settings();
            assert_eq!(set.len(), 1, "{flag}");
            assert_eq!(set[0].0, flag);
        }
    }

    #[test]
    fn several_addresses_become_one_list() {
        let args = serve_args(&["--bind", "127.0.0.1", "--bind", "::1"]);
        assert_eq!(args.settings(), [("--bind", "127.0.0.1,::1".to_owned())]);
    }

    #[test]
    fn a_server_and_a_folder_cannot_both_be_meant() {
        let words = ["zim", "cache", "gc", "--url", "http://a", "--storage", "b"];
        assert!(Cli::try_parse_from(words).is_err());
    }
}
