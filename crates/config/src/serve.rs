//! Settings of `zim cache serve`: the listeners and the folder, and the sections of the parts it joins.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use crate::{
    AssetsConfig, AuthConfig, ClusterConfig, GatewayConfig, LimitsConfig, LogConfig, Namespaces,
    S3Config, StoreConfig, TelemetryConfig, TlsConfig,
    field::{Field, settings},
    namespaces,
    problem::{Checks, Problems},
};

settings! {
    /// Everything `zim cache serve` can be told.
    pub struct ServeConfig in "" {
        /// The one port that serves every protocol; 0 takes any free one.
        port: u16 = 8080,
            accepts "a port number from 0 to 65535", flag "--port";
        /// Addresses to listen on, taken literally; absent, they are 127.0.0.1 and, where it exists, ::1.
        bind: Option<Vec<IpAddr>> = None,
            accepts "one or more different IP addresses, such as 127.0.0.1, 0.0.0.0 or ::1", flag "--bind";
        /// Folder of the store; absent, it is `zimcache/store` in the user's cache folder.
        storage: Option<PathBuf> = None,
            accepts "the path of a folder", flag "--storage";
        /// Listen on this Unix socket as well.
        unix_socket: Option<PathBuf> = None,
            accepts "a path of at most 107 bytes", flag "--unix-socket";
        /// Write the process id to this file at the start, and remove it at the end.
        pid_file: Option<PathBuf> = None,
            accepts "a path", flag "--pid-file";
    }
    sections {
        /// What is logged, and how.
        log: LogConfig;
        /// Traces of single requests.
        telemetry: TelemetryConfig;
        /// Connections and bodies.
        gateway: GatewayConfig;
        /// Disk and RAM.
        store: StoreConfig;
        /// Who may do what.
        auth: AuthConfig;
        /// TLS on the port.
        tls: TlsConfig;
        /// How many requests are answered.
        limits: LimitsConfig;
        /// What may be fetched from elsewhere.
        assets: AssetsConfig;
        /// Gateways and nodes as one cache.
        cluster: ClusterConfig;
        /// Where everything is copied to.
        s3: S3Config;
        /// The namespaces there are; empty: any.
        namespaces: Namespaces;
    }
}

/// Longest path a Unix socket can have: `sun_path` holds 108 bytes, one of them the terminator.
const SOCKET_PATH_BYTES: usize = 107;

impl ServeConfig {
    /// Every setting, nested sections included, in the order of the reference page.
    pub fn all_fields() -> impl Iterator<Item = &'static Field> {
        let sections = [
            Self::FIELDS,
            LogConfig::FIELDS,
            TelemetryConfig::FIELDS,
            GatewayConfig::FIELDS,
            StoreConfig::FIELDS,
            AuthConfig::FIELDS,
            TlsConfig::FIELDS,
            LimitsConfig::FIELDS,
            AssetsConfig::FIELDS,
            ClusterConfig::FIELDS,
            S3Config::FIELDS,
        ];
        sections.into_iter().flatten()
    }

    /// The default of a setting as text; `None` where the setting is absent by default.
    pub fn default_text(field: &Field) -> Option<String> {
        let defaults = toml::Table::try_from(ServeConfig::default()).ok()?;
        let section = match field.section {
            "" => &defaults,
            section => defaults.get(section)?.as_table()?,
        };
        Some(match section.get(&field.name())? {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// Checks every setting of every section.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), Problems> {
        let sections = [
            self.validate_top(),
            self.telemetry.validate(),
            self.gateway.validate(),
            self.store.validate(),
            self.tls.validate(),
            self.limits.validate(),
            self.cluster.validate(),
            self.s3.validate(),
            namespaces::validate(&self.namespaces),
        ];
        let found = sections.into_iter().filter_map(Result::err);
        Problems(found.flat_map(|problems| problems.0).collect()).into_result()
    }

    fn validate_top(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        if let Some(bind) = &self.bind {
            let different: BTreeSet<_> = bind.iter().collect();
            let holds = !bind.is_empty() && different.len() == bind.len();
            let shown: Vec<String> = bind.iter().map(ToString::to_string).collect();
            checks.require("bind", holds, format_args!("[{}]", shown.join(", ")));
        }
        if let Some(path) = &self.storage {
            checks.require("storage", !path.as_os_str().is_empty(), "an empty path");
        }
        if let Some(path) = &self.unix_socket {
            let holds = (1..=SOCKET_PATH_BYTES).contains(&path.as_os_str().len());
            checks.require("unix_socket", holds, path.display());
        }
        checks.finish()
    }

    /// The configuration as a TOML file that loads to the same configuration.
    ///
    /// # Errors
    /// When a path is not text.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}
