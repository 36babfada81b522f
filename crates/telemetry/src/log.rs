//! Logs on standard error, for people or as JSON lines.
//!
//! Installed once by a binary's `main`; libraries and tests never install one. The filter is a setting that the caller
//! read; nothing here looks at the environment.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer as _, filter::ParseError, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::trace::{Exporter, SPANS};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("{filter:?} is not a log filter; write a level such as info, or target=level pairs")]
    Filter {
        /// What was given.
        filter: String,
        /// Where it is wrong.
        #[source]
        source: ParseError,
    },
    /// Something installed a logger before.
    #[error("a logger is installed already")]
    Installed,
}

/// Installs the process's logger.
///
/// # Errors
/// [`Error`] when the filter does not parse or a logger is there already.
pub fn init(format: Format, filter: &str) -> Result<(), Error> {
    // Without an exporter no span is ever made: the first look at one finds that nobody wants it.
    let parsed = parse(&format!("{filter},{SPANS}=off"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| Error::Installed)
}

/// Installs the process's logger, and what takes spans out of its stream. Lines of a request that is traced name its
/// trace.
///
/// # Errors
/// As [`init`].
pub fn init_with(traces: &Exporter, format: Format, filter: &str) -> Result<(), Error> {
    let parsed = parse(filter)?;
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        Format::Text => lines.with_target(false).with_filter(parsed).boxed(),
        Format::Json => {
            let json = lines.json().flatten_event(true).with_span_list(false);
            json.with_filter(parsed).boxed()
        }
    };
    let all = tracing_subscriber::registry()
        .with(lines)
        .with(traces.layer());
    all.try_init().map_err(|_| Error::Installed)
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_by_name() {
        let error = init(Format::Text, "zimcache=loudly").unwrap_err();
        assert!(error.to_string().contains("zimcache=loudly"), "{error}");
    }
}
