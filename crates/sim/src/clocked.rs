//! Logs of a replayed seed, with virtual time.

use std::fmt;

use tracing_subscriber::{
    EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

/// Virtual time since the beginning.
struct SinceBegin;

impl FormatTime for SinceBegin {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        write!(w, "{:10.3}", elapsed.as_secs_f64())
    }
}

/// Lets everything in this process log to standard output what the filter asks for, as in `zimcache=debug`.
pub fn log(filter: &str) {
    let subscriber = tracing_subscriber::fmt()
        .with_timer(SinceBegin)
        .with_ansi(false)
        .with_env_filter(EnvFilter::new(filter));
    // Whoever was first keeps the say.
    subscriber.try_init().ok();
}
