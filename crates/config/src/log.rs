//! Settings of the log on standard error.

use serde::{Deserialize, Serialize};

use crate::field::settings;

/// The least important events that are still logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed and needs somebody.
    Error,
    /// What is odd but handled.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name, as in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

settings! {
    /// What is logged, and how.
    pub struct LogConfig in "log" {
        /// The least important events that are still logged.
        level: LogLevel = LogLevel::Info,
            accepts "error, warn, info, debug or trace", flag "--log-level";
        /// Lines for people, or one JSON object per line.
        format: LogFormat = LogFormat::Text,
            accepts "text or json", flag "--log-format";
    }
}
