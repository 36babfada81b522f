//! The settings seen from outside: layers, messages, round trips, and the committed reference page.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its fixtures too"
)]

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use proptest::{option, prelude::*};
use zimcache_config::{
    AnonymousPolicy, AuthConfig, ClusterConfig, Environment, Field, GatewayConfig, LimitsConfig,
    LoadError, LogConfig, LogFormat, LogLevel, Rate, S3Config, ServeConfig, StoreConfig,
    TelemetryConfig, TlsConfig, load_serve, reference,
};
use zimcache_types::ByteSize;

/// A file with that text, kept as long as the guard lives.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn load(
    text: &str,
    environment: &Environment,
    flags: &[(&str, &str)],
) -> Result<ServeConfig, LoadError> {
    let file = file(text);
    let flags: Vec<_> = flags
        .iter()
        .map(|(flag, value)| (*flag, (*value).to_owned()))
        .collect();
    load_serve(Some(file.path()), environment, &flags)
}

/// What the person reads when loading fails.
fn refusal(text: &str, environment: &Environment, flags: &[(&str, &str)]) -> String {
    load(text, environment, flags).unwrap_err().to_string()
}

#[test]
fn nothing_given_means_the_defaults() {
    let config = load_serve(None, &Environment::default(), &[]).unwrap();
    assert_eq!(config, ServeConfig::default());
    assert_eq!(config.port, 8080);
}

#[test]
fn later_layers_win_setting_by_setting() {
    let file = "port = 1\n[store]\nmax-size = '1GiB'\nupload-memory = '8MiB'\n[gateway]\nmax-connections = 7";
    let environment = Environment::of([
        ("ZIMCACHE_SERVE__PORT", "2"),
        ("ZIMCACHE_SERVE__STORE__MAX_SIZE", "500GiB"),
        ("ZIMCACHE_SERVE__STORE__DIRECT_IO", "false"),
        ("ZIMCACHE_SERVE__BIND", "127.0.0.1, ::1"),
    ]);
    let config = load(file, &environment, &[("--port", "3")]).unwrap();
    assert_eq!(config.port, 3);
    assert_eq!(config.store.max_size, ByteSize::gib(500));
    assert_eq!(config.store.upload_memory, ByteSize::mib(8));
    assert_eq!(config.gateway.max_connections, 7);
    assert!(!config.store.direct_io);
    let both: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    assert_eq!(config.bind, Some(both));
    assert_eq!(config.gateway.drain_timeout, Duration::from_secs(10));
}

#[test]
fn max_cache_size_is_an_alias_that_the_full_name_overrides() {
    let alias = ("MAX_CACHE_SIZE", "200GB");
    let config = load("[store]\nmax-size = '1GB'", &Environment::of([alias]), &[]).unwrap();
    assert_eq!(config.store.max_size, ByteSize(200_000_000_000));
    let both = Environment::of([alias, ("ZIMCACHE_SERVE__STORE__MAX_SIZE", "300GB")]);
    assert_eq!(
        load("", &both, &[]).unwrap().store.max_size,
        ByteSize(300_000_000_000)
    );
    let told = refusal("", &Environment::of([("MAX_CACHE_SIZE", "lots")]), &[]);
    assert!(
        told.starts_with("store.max-size (MAX_CACHE_SIZE): \"lots\" is not accepted"),
        "{told}"
    );
}

#[test]
fn an_empty_variable_counts_as_absent() {
    let environment = Environment::of([("ZIMCACHE_SERVE__PORT", ""), ("MAX_CACHE_SIZE", "")]);
    assert_eq!(load("", &environment, &[]).unwrap(), ServeConfig::default());
}

#[test]
fn an_unknown_setting_in_the_file_is_named_with_the_accepted_ones() {
    let told = refusal("[store]\nmax-sise = '1GB'", &Environment::default(), &[]);
    assert!(told.contains("store.max-sise"), "{told}");
    assert!(
        told.contains("store.max-size, store.segment-size"),
        "{told}"
    );
    assert!(!told.contains("gateway."), "only the same section: {told}");
    let told = refusal("colour = 'red'", &Environment::default(), &[]);
    assert!(
        told.contains("colour") && told.contains("unix-socket"),
        "{told}"
    );
    let told = refusal("[disk]\nx = 1", &Environment::default(), &[]);
    assert!(
        told.contains("disk.x") && told.contains("gateway.idle-timeout"),
        "{told}"
    );
}

#[test]
fn an_unknown_variable_is_named_with_the_accepted_ones() {
    let environment = Environment::of([("ZIMCACHE_SERVE__STORE__MAXSIZE", "1GB")]);
    let told = refusal("", &environment, &[]);
    assert!(
        told.starts_with("ZIMCACHE_SERVE__STORE__MAXSIZE: there is no such variable"),
        "{told}"
    );
    assert!(told.contains("ZIMCACHE_SERVE__STORE__MAX_SIZE"), "{told}");
}

#[test]
fn variables_of_other_programs_are_left_alone() {
    let environment =
        Environment::of([("ZIMCACHE_SERVE_PORT", "tcp://10.0.0.1:80"), ("PORT", "x")]);
    assert!(load("", &environment, &[]).is_ok());
}

#[test]
fn all_problems_of_all_sources_are_told_at_once_with_their_origin() {
    let environment = Environment::of([("ZIMCACHE_SERVE__LOG__LEVEL", "loud")]);
    let told = refusal(
        "port = 70000\nhue = 1",
        &environment,
        &[("--max-size", "plenty")],
    );
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 4, "{told}");
    assert!(lines[0].starts_with("hue ("), "{told}");
    assert!(lines[1].starts_with("port ("), "{told}");
    assert!(
        lines[1].ends_with("70000 is not accepted; accepted: a port number from 0 to 65535"),
        "{told}"
    );
    assert_eq!(
        lines[2],
        "log.level (ZIMCACHE_SERVE__LOG__LEVEL): \"loud\" is not accepted; accepted: error, warn, info, debug or trace"
    );
    assert!(
        lines[3].starts_with("store.max-size (--max-size): \"plenty\""),
        "{told}"
    );
}

#[test]
fn values_out_of_bounds_are_refused_with_what_is_accepted() {
    let cases = [
        (
            "[store]\nmax-size = '63MiB'",
            "store.max-size",
            "at least 64MiB",
        ),
        (
            "[store]\nsegment-size = '3MiB'",
            "store.segment-size",
            "a power of two",
        ),
        (
            "[store]\nsegment-size = '512MiB'",
            "store.segment-size",
            "from 1MiB to 256MiB",
        ),
        (
            "[store]\nindex-memory = 5",
            "store.index-memory",
            "at least 1MiB",
        ),
        (
            "[store]\nupload-memory = '1MiB'",
            "store.upload-memory",
            "at least 4MiB",
        ),
        (
            "[store]\nscrub-interval = '10ms'",
            "store.scrub-interval",
            "or off",
        ),
        (
            "[gateway]\nmax-blob-size = 0",
            "gateway.max-blob-size",
            "at least 1KiB",
        ),
        (
            "[gateway]\nmax-connections = 0",
            "gateway.max-connections",
            "from 1 to 1000000",
        ),
        (
            "[gateway]\nfirst-byte-timeout = '0s'",
            "gateway.first-byte-timeout",
            "from 1ms",
        ),
        (
            "[gateway]\nheader-timeout = '2d'",
            "gateway.header-timeout",
            "to 1d",
        ),
        (
            "[gateway]\nidle-timeout = '0s'",
            "gateway.idle-timeout",
            "from 1ms",
        ),
        (
            "[gateway]\nbody-timeout = 'soon'",
            "gateway.body-timeout",
            "10s",
        ),
        (
            "[gateway]\ndrain-timeout = '25h'",
            "gateway.drain-timeout",
            "up to 1d",
        ),
        ("bind = []", "bind", "one or more different IP addresses"),
        (
            "bind = ['::1', '::1']",
            "bind",
            "[::1, ::1] is not accepted",
        ),
        ("bind = ['localhost']", "bind", "127.0.0.1"),
        ("storage = ''", "storage", "the path of a folder"),
        (
            "[assets]\nfetch-from = ['github.com']",
            "assets.fetch-from",
            "https://github.com/",
        ),
        ("log = 5", "log", "accepted"),
        ("port = { number = 5 }", "port.number", "accepted"),
    ];
    for (text, field, accepted) in cases {
        let told = refusal(text, &Environment::default(), &[]);
        assert!(told.starts_with(&format!("{field} (")), "{text}: {told}");
        assert!(told.contains(accepted), "{text}: {told}");
    }
    let long = format!("unix-socket = '/{}'", "x".repeat(107));
    let told = refusal(&long, &Environment::default(), &[]);
    assert!(told.contains("at most 107 bytes"), "{told}");
}

#[test]
fn validation_tells_every_problem_of_every_section() {
    let config = ServeConfig {
        bind: Some(Vec::new()),
        gateway: GatewayConfig {
            max_connections: 0,
            idle_timeout: Duration::ZERO,
            ..GatewayConfig::default()
        },
        store: StoreConfig {
            max_size: ByteSize(1),
            ..StoreConfig::default()
        },
        ..ServeConfig::default()
    };
    let fields: Vec<String> = config
        .validate()
        .unwrap_err()
        .0
        .into_iter()
        .map(|problem| problem.field)
        .collect();
    assert_eq!(
        fields,
        [
            "bind",
            "gateway.max-connections",
            "gateway.idle-timeout",
            "store.max-size"
        ]
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let told = refusal("port = = 1", &Environment::default(), &[]);
    assert!(told.ends_with("is not TOML"), "{told}");
    let absent = load_serve(
        Some("/absent/zim.toml".as_ref()),
        &Environment::default(),
        &[],
    );
    let told = absent.unwrap_err().to_string();
    assert!(told.contains("/absent/zim.toml"), "{told}");
}

#[test]
fn the_default_folder_comes_from_the_environment_and_yields_to_every_source() {
    let environment = Environment::of([("HOME", "/home/ada")]);
    let storage = |text, flags| load(text, &environment, flags).unwrap().storage.unwrap();
    assert_eq!(
        storage("", &[]),
        PathBuf::from("/home/ada/.cache/zimcache/store")
    );
    assert_eq!(storage("storage = '/a'", &[]), PathBuf::from("/a"));
    assert_eq!(
        storage("storage = '/a'", &[("--storage", "/b")]),
        PathBuf::from("/b")
    );
}

#[test]
fn every_setting_is_declared_and_every_name_is_used_once() {
    let full = ServeConfig {
        bind: Some(vec!["::1".parse().unwrap()]),
        storage: Some("/s".into()),
        unix_socket: Some("/u".into()),
        pid_file: Some("/p".into()),
        store: StoreConfig {
            segment_size: Some(ByteSize::mib(16)),
            index_memory: Some(ByteSize::mib(64)),
            ..StoreConfig::default()
        },
        gateway: GatewayConfig {
            public_url: Some("http://a".into()),
            ..GatewayConfig::default()
        },
        auth: full_auth(),
        tls: full_tls(),
        limits: full_limits(),
        cluster: full_cluster(),
        s3: full_s3(),
        telemetry: TelemetryConfig {
            otlp_endpoint: Some("http://a".into()),
            ..TelemetryConfig::default()
        },
        ..ServeConfig::default()
    };
    let mut written = BTreeSet::new();
    for (name, value) in toml::Table::try_from(&full).unwrap() {
        match value {
            toml::Value::Table(section) => {
                written.extend(section.keys().map(|inner| format!("{name}.{inner}")));
            }
            _ => {
                written.insert(name);
            }
        }
    }
    // A secret is never written.
    let shown = |path: &String| path != "auth.token";
    let declared: Vec<_> = ServeConfig::all_fields()
        .map(Field::path)
        .filter(shown)
        .collect();
    assert_eq!(declared.iter().cloned().collect::<BTreeSet<_>>(), written);
    assert_eq!(declared.len(), written.len());
    let flags: Vec<_> = ServeConfig::all_fields()
        .filter_map(|field| field.flag)
        .collect();
    assert_eq!(flags.iter().collect::<BTreeSet<_>>().len(), flags.len());
}

fn full_cluster() -> ClusterConfig {
    ClusterConfig {
        ring: Some("/r".to_owned()),
        member: Some("a".to_owned()),
        listen: Some("127.0.0.1:1".parse().unwrap()),
        admin: Some("127.0.0.1:2".parse().unwrap()),
        peer_ca: Some("/a".into()),
        peer_cert: Some("/b".into()),
        peer_key: Some("/c".into()),
        ..ClusterConfig::default()
    }
}

fn full_s3() -> S3Config {
    S3Config {
        bucket: Some("bucket".to_owned()),
        endpoint: Some("http://a".to_owned()),
        region: Some("r".to_owned()),
        path_style: Some(true),
        ca_file: Some("/a".into()),
        ..S3Config::default()
    }
}

fn full_auth() -> AuthConfig {
    AuthConfig {
        tokens: Some("/t".into()),
        htpasswd: Some("/h".into()),
        anonymous: Some(AnonymousPolicy::Read),
        signing_key_file: Some("/g".into()),
        ..AuthConfig::default()
    }
}

fn full_tls() -> TlsConfig {
    TlsConfig {
        cert: Some("/c".into()),
        key: Some("/k".into()),
        port: Some(8443),
        ..TlsConfig::default()
    }
}

fn full_limits() -> LimitsConfig {
    let rate: Rate = "10/s burst 100".parse().unwrap();
    LimitsConfig {
        global: Some(rate),
        per_address: Some(rate),
        per_token: Some(rate),
        reads: Some(rate),
        writes: Some(rate),
        pages: Some(rate),
        redis: "redis://host".parse().ok(),
        ..LimitsConfig::default()
    }
}

#[test]
fn the_seeds_variables_set_what_they_mean() {
    let environment = Environment::of([
        ("BUILDER_CACHE_SERVER_HOST", "0.0.0.0"),
        ("BUILDER_CACHE_SERVER_PORT", "9"),
        ("BUILDER_CACHE_SERVER_MAX_SIZE", "100000000"),
        ("BUILDER_CACHE_SERVER_AUTH_TOKEN", "test-token"),
        ("BUILDER_CACHE_SERVER_ENABLE_RATE_LIMITING", "true"),
        ("BUILDER_CACHE_SERVER_ENABLE_METRICS", "false"),
    ]);
    let config = load("", &environment, &[]).unwrap();
    assert_eq!(config.port, 9);
    assert_eq!(config.store.max_size, ByteSize(100_000_000));
    assert_eq!(config.auth.token.unwrap().reveal(), "test-token");
    assert_eq!(
        config.limits.per_address.unwrap().to_string(),
        "10/s burst 100"
    );
    assert!(!config.gateway.metrics);
}

#[test]
fn listed_namespaces_are_read_and_bad_ones_told() {
    let load = |text| load(text, &Environment::default(), &[]);
    let config = load("[namespaces.\"team-a\"]\nretention = '30d'\n[namespaces.b]\n").unwrap();
    let retention = config.namespaces["team-a"].retention.unwrap();
    assert_eq!(retention.0, Some(Duration::from_hours(30 * 24)));
    assert_eq!(config.namespaces["b"].retention, None);
    let error = load("[namespaces.\"a//b\"]\n").unwrap_err().to_string();
    assert!(error.contains("namespaces.a//b"), "{error}");
    let error = load("[namespaces.a]\nttl = 3\n").unwrap_err().to_string();
    assert!(error.contains("ttl"), "{error}");
}

#[test]
fn the_committed_reference_page_is_the_rendered_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(committed, reference::render(), "run `cargo xtask gen`");
}

prop_compose! {
    fn duration(from: u64)(millis in from..86_400_000, unit in prop::sample::select(vec![1, 1_000, 60_000]))
        -> Duration {
        Duration::from_millis((millis / unit * unit).max(from))
    }
}

prop_compose! {
    fn size(least: ByteSize)(bytes in least.0..(1 << 50), unit in prop::sample::select(vec![1, 1_000, 1 << 20]))
        -> ByteSize {
        ByteSize((bytes / unit * unit).max(least.0))
    }
}

prop_compose! {
    fn gateway()(
        max_blob_size in size(ByteSize(1 << 10)),
        max_connections in 1_usize..=1_000_000,
        timeouts in [duration(1), duration(1), duration(1), duration(1), duration(0)],
        max_connection_age in option::of(duration(1_000)),
        title_case_headers: bool,
        access_log: bool,
    ) -> GatewayConfig {
        let [first_byte_timeout, header_timeout, idle_timeout, body_timeout, drain_timeout] = timeouts;
        GatewayConfig {
            max_blob_size, max_connections, first_byte_timeout, header_timeout, idle_timeout, body_timeout,
            drain_timeout, max_connection_age, title_case_headers, access_log,
            ..GatewayConfig::default()
        }
    }
}

prop_compose! {
    fn store()(
        max_size in size(ByteSize::mib(64)),
        segment_size in option::of((20_u32..=28).prop_map(|bits| ByteSize(1 << bits))),
        index_memory in option::of(size(ByteSize::mib(1))),
        upload_memory in size(ByteSize::mib(4)),
        hot_memory in size(ByteSize(0)),
        direct_io: bool,
        scrub_interval in option::of(duration(1_000)),
    ) -> StoreConfig {
        StoreConfig { max_size, segment_size, index_memory, upload_memory, hot_memory, direct_io, scrub_interval, ..StoreConfig::default() }
    }
}

fn log() -> impl Strategy<Value = LogConfig> {
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    let level = prop::sample::select(levels.to_vec());
    let format = prop::sample::select(vec![LogFormat::Text, LogFormat::Json]);
    (level, format).prop_map(|(level, format)| LogConfig { level, format })
}

prop_compose! {
    fn serve()(
        port: u16,
        bind in option::of(prop::collection::btree_set(any::<IpAddr>(), 1..4)),
        storage in option::of("/[a-z '\"\\\\]{1,20}"),
        unix_socket in option::of("/[a-z]{1,20}"),
        log in log(),
        gateway in gateway(),
        store in store(),
    ) -> ServeConfig {
        ServeConfig {
            port,
            bind: bind.map(|addresses| addresses.into_iter().collect()),
            storage: storage.map(PathBuf::from),
            unix_socket: unix_socket.map(PathBuf::from),
            log, gateway, store,
            ..ServeConfig::default()
        }
    }
}

proptest! {
    #[test]
    fn a_printed_configuration_loads_as_the_same_one(config in serve()) {
        let printed = config.to_toml().unwrap();
        prop_assert_eq!(load(&printed, &Environment::default(), &[]).unwrap(), config, "{}", printed);
    }
}
