//! Background work with a name: the only place that spawns on the async runtime.
//!
//! The name is a literal and becomes a span at debug level, so that a log line says which task wrote it and so that
//! an ordinary run does not pay for it. Cancellation: abort the returned handle, or end the future by a signal of its
//! own.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts a named task on the current runtime.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[allow(
        clippy::disallowed_methods,
        reason = "every other caller goes through here"
    )]
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}

/// Runs named work that blocks or computes for long on a thread of its own.
pub fn spawn_blocking<F, T>(name: &'static str, work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    #[allow(
        clippy::disallowed_methods,
        reason = "every other caller goes through here"
    )]
    tokio::task::spawn_blocking(move || tracing::debug_span!("task", name).in_scope(work))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn blocking_work_gives_back_what_it_computes() {
        let sum = super::spawn_blocking("adder", || 1 + 1).await;
        assert_eq!(sum.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_task_gives_back_what_its_future_does() {
        assert_eq!(super::spawn("adder", async { 1 + 1 }).await.unwrap(), 2);
    }
}
