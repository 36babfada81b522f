//! What hyper needs of us: byte streams of any kind, and tasks with a name.

use std::future::Future;

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite};
use zimcache_telemetry::task;

/// A connection's bytes, both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Starts hyper's tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(task::spawn("link", future));
    }
}
