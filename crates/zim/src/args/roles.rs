//! Flags of what serves: the whole cache in one process, a gateway, a node. Every one of them sets a setting, whose text,
//! default and accepted values are in `zimcache_config`; it stays text here.

use std::path::PathBuf;

use clap::Args;
use zimcache_config::ServeConfig;

pub(super) const SERVE_EXAMPLES: &str = "\
Settings come from defaults, then the file of --config, then variables such as \
ZIMCACHE_SERVE__STORE__MAX_SIZE, then flags; later ones win. docs/config.md has all of them.

Examples:
  zim cache serve --port 8080 --storage /var/lib/zimcache --max-size 100GB
  zim cache serve --bind 0.0.0.0 --max-size 500GiB --access-log
  zim cache serve --config zim.toml --check
  zim cache serve --max-size 50GB --print-config > zim.toml";

pub(super) const GATEWAY_EXAMPLES: &str = "\
A gateway keeps nothing: it finds the nodes in the ring, and any number of gateways serve the same cache.

Examples:
  zim-gateway --ring ring.json --port 8080 --bind 0.0.0.0
  zim-gateway --ring ring.json --peer-ca ca.pem --peer-cert gateway.pem --peer-key gateway.key
  zim-gateway --ring ring.json --durability local --check";

pub(super) const NODE_EXAMPLES: &str = "\
A node keeps its share of the cache on its disk. --member names it in the ring, which has its address too.

Examples:
  zim-node --ring ring.json --member node-0 --listen 10.0.0.7:7400 --storage /var/lib/zimcache --max-size 500GiB
  zim-node --ring ring.json --member node-0 --storage /var/lib/zimcache --admin 127.0.0.1:9090 --check";

/// Flags that set settings.
pub(crate) trait SettingArgs {
    /// Those given, with their texts; several values of a list become one text.
    fn settings(&self) -> Vec<(&'static str, String)>;
}

/// Flags of `zim cache serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    front: FrontArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl SettingArgs for ServeArgs {
    fn settings(&self) -> Vec<(&'static str, String)> {
        all([self.front.given(), self.store.given(), self.common.given()])
    }
}

/// Flags of `zim gateway`.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    link: LinkArgs,
    #[arg(long, value_name = "CLASS", help = about("--durability"))]
    durability: Option<String>,
    #[arg(long, value_name = "ZONE", help = about("--zone"))]
    zone: Option<String>,
    #[arg(long, value_name = "SIZE", help = about("--ram-cache"))]
    ram_cache: Option<String>,
    #[command(flatten)]
    front: FrontArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl SettingArgs for GatewayArgs {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let own = vec![
            ("--durability", self.durability.clone()),
            ("--zone", self.zone.clone()),
            ("--ram-cache", self.ram_cache.clone()),
        ];
        all([
            self.link.given(),
            own,
            self.front.given(),
            self.common.given(),
        ])
    }
}

/// Flags of `zim node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    link: LinkArgs,
    #[arg(long, value_name = "ID", help = about("--member"))]
    member: Option<String>,
    #[arg(long, value_name = "ADDR", help = about("--listen"))]
    listen: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl SettingArgs for NodeArgs {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let own = vec![
            ("--member", self.member.clone()),
            ("--listen", self.listen.clone()),
        ];
        all([
            self.link.given(),
            own,
            self.store.given(),
            self.common.given(),
        ])
    }
}

/// A flag and its text, where it was given.
type Given = Vec<(&'static str, Option<String>)>;

fn all<const N: usize>(given: [Given; N]) -> Vec<(&'static str, String)> {
    let set = given.into_iter().flatten();
    set.filter_map(|(flag, text)| Some((flag, text?))).collect()
}

/// Of everything that serves clients.
#[derive(Debug, Args)]
struct FrontArgs {
    #[arg(long, value_name = "PORT", help = about("--port"))]
    port: Option<String>,
    #[arg(long, value_name = "ADDR", help = about("--bind"))]
    bind: Vec<String>,
    #[arg(long, value_name = "PATH", help = about("--unix-socket"))]
    unix_socket: Option<String>,
    #[arg(long, value_name = "SIZE", help = about("--max-blob-size"))]
    max_blob_size: Option<String>,
    #[arg(long, value_name = "N", help = about("--max-connections"))]
    max_connections: Option<String>,
    #[arg(long, value_name = "DURATION", help = about("--drain-timeout"))]
    drain_timeout: Option<String>,
    #[arg(long, value_name = "DURATION", help = about("--max-connection-age"))]
    max_connection_age: Option<String>,
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
    #[arg(long, value_name = "PORT", help = about("--tls-port"))]
    tls_port: Option<String>,
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
}

impl FrontArgs {
    fn given(&self) -> Given {
        vec![
            ("--port", self.port.clone()),
            ("--bind", list(&self.bind)),
            ("--unix-socket", self.unix_socket.clone()),
            ("--max-blob-size", self.max_blob_size.clone()),
            ("--max-connections", self.max_connections.clone()),
            ("--drain-timeout", self.drain_timeout.clone()),
            ("--max-connection-age", self.max_connection_age.clone()),
            ("--title-case-headers", switch(self.title_case_headers)),
            ("--access-log", switch(self.access_log)),
            ("--trusted-proxy", list(&self.trusted_proxy)),
            ("--public-url", self.public_url.clone()),
            ("--tokens", self.tokens.clone()),
            ("--htpasswd", self.htpasswd.clone()),
            ("--anonymous", self.anonymous.clone()),
            ("--tls-cert", self.tls_cert.clone()),
            ("--tls-key", self.tls_key.clone()),
            ("--tls-port", self.tls_port.clone()),
            ("--limit-global", self.limit_global.clone()),
            ("--limit-per-address", self.limit_per_address.clone()),
            ("--limit-per-token", self.limit_per_token.clone()),
            ("--redis-url", self.redis_url.clone()),
            ("--fetch-from", list(&self.fetch_from)),
        ]
    }
}

/// Of everything that has a disk.
#[derive(Debug, Args)]
struct StoreArgs {
    #[arg(long, value_name = "DIR", help = about("--storage"))]
    storage: Option<String>,
    #[arg(long, value_name = "SIZE", help = about("--max-size"))]
    max_size: Option<String>,
    #[arg(long, value_name = "CODEC", help = about("--compression"))]
    compression: Option<String>,
    #[arg(long, value_name = "DURATION", help = about("--retention"))]
    retention: Option<String>,
    #[arg(long, value_name = "BUCKET", help = about("--s3-bucket"))]
    s3_bucket: Option<String>,
    #[arg(long, value_name = "URL", help = about("--s3-endpoint"))]
    s3_endpoint: Option<String>,
    #[arg(long, value_name = "REGION", help = about("--s3-region"))]
    s3_region: Option<String>,
    #[arg(long, value_name = "TEXT", help = about("--s3-prefix"))]
    s3_prefix: Option<String>,
    #[arg(long, value_name = "BOOL", help = about("--s3-path-style"))]
    s3_path_style: Option<String>,
    #[arg(long, help = about("--s3-create-bucket"))]
    s3_create_bucket: bool,
    #[arg(long, value_name = "FILE", help = about("--s3-ca"))]
    s3_ca: Option<String>,
    #[arg(long, value_name = "DURATION", help = about("--s3-ttl"))]
    s3_ttl: Option<String>,
}

impl StoreArgs {
    fn given(&self) -> Given {
        vec![
            ("--storage", self.storage.clone()),
            ("--max-size", self.max_size.clone()),
            ("--compression", self.compression.clone()),
            ("--retention", self.retention.clone()),
            ("--s3-bucket", self.s3_bucket.clone()),
            ("--s3-endpoint", self.s3_endpoint.clone()),
            ("--s3-region", self.s3_region.clone()),
            ("--s3-prefix", self.s3_prefix.clone()),
            ("--s3-path-style", self.s3_path_style.clone()),
            ("--s3-create-bucket", switch(self.s3_create_bucket)),
            ("--s3-ca", self.s3_ca.clone()),
            ("--s3-ttl", self.s3_ttl.clone()),
        ]
    }
}

/// Of everything that is one of several.
#[derive(Debug, Args)]
struct LinkArgs {
    #[arg(long, value_name = "FILE|URL", help = about("--ring"))]
    ring: Option<String>,
    #[arg(long, value_name = "ADDR", help = about("--admin"))]
    admin: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--peer-ca"))]
    peer_ca: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--peer-cert"))]
    peer_cert: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--peer-key"))]
    peer_key: Option<String>,
}

impl LinkArgs {
    fn given(&self) -> Given {
        vec![
            ("--ring", self.ring.clone()),
            ("--admin", self.admin.clone()),
            ("--peer-ca", self.peer_ca.clone()),
            ("--peer-cert", self.peer_cert.clone()),
            ("--peer-key", self.peer_key.clone()),
        ]
    }
}

/// Of everything that serves.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    #[arg(long, value_name = "LEVEL", help = about("--log-level"))]
    log_level: Option<String>,
    #[arg(long, value_name = "FORMAT", help = about("--log-format"))]
    log_format: Option<String>,
    #[arg(long, value_name = "URL", help = about("--otlp-endpoint"))]
    otlp_endpoint: Option<String>,
    #[arg(long, value_name = "RATIO", help = about("--sample-ratio"))]
    sample_ratio: Option<String>,
    #[arg(long, value_name = "FILE", help = about("--pid-file"))]
    pid_file: Option<String>,
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

impl CommonArgs {
    fn given(&self) -> Given {
        vec![
            ("--log-level", self.log_level.clone()),
            ("--log-format", self.log_format.clone()),
            ("--otlp-endpoint", self.otlp_endpoint.clone()),
            ("--sample-ratio", self.sample_ratio.clone()),
            ("--pid-file", self.pid_file.clone()),
        ]
    }
}

fn list(texts: &[String]) -> Option<String> {
    (!texts.is_empty()).then(|| texts.join(","))
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
        Some(default) if !matches!(&*default, "false" | "") => {
            format!("{} [default: {default}]", field.text())
        }
        _ => field.text(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{
        super::{CacheCommand, Cli, Command},
        *,
    };

    /// What serves, as it is called, with what its flags set.
    fn settings(role: &[&str], words: &[&str]) -> Vec<(&'static str, String)> {
        let words = ["zim"].iter().chain(role).chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Cache(CacheCommand::Serve(args)) => args.settings(),
            Command::Gateway(args) => args.settings(),
            Command::Node(args) => args.settings(),
            other => panic!("{other:?}"),
        }
    }

    const ROLES: [&[&str]; 3] = [&["cache", "serve"], &["gateway"], &["node"]];

    /// Whether a role has the flag: then it has to set the setting and have its text.
    fn sets(role: &[&str], flag: &str, text: &str) -> bool {
        let command = Cli::command();
        let place = role.iter().fold(&command, |command, name| {
            command.find_subcommand(name).unwrap()
        });
        let name = flag.trim_start_matches("--");
        let arg = place
            .get_arguments()
            .find(|arg| arg.get_long() == Some(name));
        let Some(arg) = arg else { return false };
        let help = arg.get_help().unwrap().to_string();
        assert!(help.starts_with(text), "{flag}");
        let set = if arg.get_action().takes_values() {
            settings(role, &[flag, "value"])
        } else {
            settings(role, &[flag])
        };
        assert_eq!(set.len(), 1, "{flag}");
        assert_eq!(set[0].0, flag);
        true
    }

    #[test]
    fn every_setting_with_a_flag_is_set_by_that_flag_and_has_its_text() {
        for field in ServeConfig::all_fields() {
            let Some(flag) = field.flag else { continue };
            let roles = ROLES.map(|role| sets(role, flag, &field.text()));
            let expected = match field.section {
                "cluster" => !roles[0] && (roles[1] || roles[2]),
                _ => roles[0] && (roles[1] || roles[2]),
            };
            assert!(expected, "{flag}: {roles:?}");
        }
    }

    #[test]
    fn several_addresses_become_one_list() {
        let set = settings(ROLES[0], &["--bind", "127.0.0.1", "--bind", "::1"]);
        assert_eq!(set, [("--bind", "127.0.0.1,::1".to_owned())]);
    }
}
