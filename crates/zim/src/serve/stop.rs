//! Stopping on a signal: the first SIGTERM or SIGINT starts the drain, a second one ends the process at once.

use std::{future::Future, process};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use zimcache_telemetry::task;

use crate::{
    error::{Error, Result},
    output,
};

/// Exit code of an impatient stop: what a shell reports for a process ended by SIGINT.
const IMPATIENT: i32 = 130;

/// Listens for the signals from now on; the future ends with the first. Call it on the runtime.
pub(super) fn on_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    let (stop, stopped) = oneshot::channel();
    task::spawn("signals", async move {
        either(&mut terminate, &mut interrupt).await;
        output::tell("stopping: running requests may finish; a second signal stops at once");
        stop.send(()).ok();
        either(&mut terminate, &mut interrupt).await;
        process::exit(IMPATIENT);
    });
    Ok(async move {
        stopped.await.ok();
    })
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
