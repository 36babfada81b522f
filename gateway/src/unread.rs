//! What a client still sends on an HTTP/2 stream that has its answer.
//!
//! Most clients stop when they see the answer, so the rest is read for a moment and thrown away. Who goes on is told by
//! a reset without an error. Resets are spaced out: the library remembers so many of a second, takes what arrives on the
//! others for an error of the client, and after some hundred of those it gives the connection up with all that is on it.
//! Cancellation: the task ends with its stream.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{timeout, timeout_at};
use zimcache_telemetry::task;

use crate::{body::Upload, cache::Chunks as _};

/// Who sends more than so much has not seen its answer, or takes no notice of it.
const MOST_BYTES: u64 = 256 << 10;
/// How long a client may take to see that it has its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes care of a body that nobody wants any more.
pub(crate) fn leave(mut upload: Upload) {
    if let Some(Rest::Over) = read(&mut upload, MOST_BYTES).now_or_never() {
        return;
    }
    task::spawn("unread", discard(upload));
}

async fn discard(mut upload: Upload) {
    if let Ok(Rest::Over) = timeout(PATIENCE, read(&mut upload, MOST_BYTES)).await {
        return;
    }
    // Dropping the body resets the stream.
    let turn = upload.conn().next_reset();
    timeout_at(turn, read(&mut upload, u64::MAX)).await.ok();
}

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Over,
    TooMuch,
}

async fn read(upload: &mut Upload, most: u64) -> Rest {
    let mut left = most;
    while let Some(Ok(chunk)) = upload.next().await {
        match left.checked_sub(chunk.len() as u64) {
            Some(less) => left = less,
            None => return Rest::TooMuch,
        }
    }
    Rest::Over
}
