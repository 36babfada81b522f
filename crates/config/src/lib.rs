//! Typed settings of every binary. `Default` is the only home of a default; `validate` reports every problem at once.
//!
//! Not here: the definition of flags (each binary has its own), clients, clocks, stores: those are components that
//! builders take. Layering is defaults < file < environment < flags ([`load`]); no other crate reads the environment
//! ([`Environment`]). No type of an async runtime or of HTTP appears here.

pub mod assets;
pub mod auth;
pub mod changes;
pub mod cluster;
pub mod environment;
pub mod field;
pub mod gateway;
pub mod human;
pub mod limits;
pub mod load;
pub mod log;
pub mod namespaces;
pub mod network;
pub mod problem;
pub mod rate;
pub mod redis_url;
pub mod reference;
pub mod s3;
pub mod secret;
pub mod serve;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod url_prefix;

pub use assets::AssetsConfig;
pub use auth::{AnonymousPolicy, AuthConfig, UserScope};
pub use changes::Changes;
pub use cluster::{ClusterConfig, Durability};
pub use environment::Environment;
pub use field::Field;
pub use gateway::GatewayConfig;
pub use limits::LimitsConfig;
pub use load::{LoadError, load_serve};
pub use log::{LogConfig, LogFormat, LogLevel};
pub use namespaces::{NamespaceConfig, Namespaces, Retention};
pub use network::IpNetwork;
pub use problem::{Origin, Problem, Problems};
pub use rate::Rate;
pub use redis_url::{HostPort, RedisPlace, RedisUrl, RedisUrlError};
pub use s3::S3Config;
pub use secret::Secret;
pub use serve::ServeConfig;
pub use store::{Compression, EvictionPolicy, StoreConfig};
pub use telemetry::{SampleRatio, SampleRatioError, TelemetryConfig};
pub use tls::{TlsConfig, TlsVersion};
pub use url_prefix::{UrlPrefix, UrlPrefixError};
