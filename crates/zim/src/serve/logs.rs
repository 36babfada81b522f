//! What a process that serves tells of itself while it does: its log, and its traces where the settings name a receiver.

use tokio::runtime::Runtime;
use zimcache_config::{LogConfig, LogFormat, ServeConfig};
use zimcache_telemetry::{log, trace::Exporter};

use crate::error::Result;

/// Where traces go; they end with [`Traces::finish`].
#[derive(Debug)]
pub(super) struct Traces(Option<Exporter>);

impl Traces {
    /// Sends what is left.
    pub(super) fn finish(self) {
        if let Some(exporter) = self.0 {
            exporter.finish();
        }
    }
}

/// Starts the log, and traces if they are wanted. `role` is what their receiver calls this process.
pub(super) fn start(config: &ServeConfig, role: &'static str, runtime: &Runtime) -> Result<Traces> {
    let _on_the_runtime = runtime.enter();
    let endpoint = config.telemetry.otlp_endpoint.as_deref();
    let exporter = endpoint.map(|url| Exporter::start(url, role, env!("CARGO_PKG_VERSION")));
    let exporter = exporter.transpose()?;
    let format = match config.log.format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let filter = filter(&config.log);
    match &exporter {
        Some(exporter) => log::init_with(exporter, format, &filter)?,
        None => log::init(format, &filter)?,
    }
    Ok(Traces(exporter))
}

/// Other people's crates are only heard when something is wrong; the access log has a switch of its own.
fn filter(config: &LogConfig) -> String {
    let level = config.level.as_str();
    format!("warn,zim={level},zimcache={level},zimcache::access=info")
}
