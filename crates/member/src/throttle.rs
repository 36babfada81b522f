//! How fast records are handed over: a bucket of bytes that fills at a steady rate.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// Bytes per second, with a burst of one second's worth.
#[derive(Debug)]
pub(crate) struct Throttle {
    per_second: u64,
    /// When all that was taken so far has been paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(per_second: u64) -> Throttle {
        Throttle {
            per_second: per_second.max(1),
            paid_at: Mutex::new(None),
        }
    }

    /// Waits until so many bytes may go.
    pub(crate) async fn take(&self, bytes: u64) {
        let now = Instant::now();
        let cost = Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
        let wait = {
            let mut paid_at = self.paid_at.lock();
            let begin = paid_at.map_or(now, |paid_at| paid_at.max(now));
            *paid_at = Some(begin + cost);
            begin.saturating_duration_since(now)
        };
        if let Some(wait) = wait.checked_sub(Duration::from_secs(1)) {
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_go_at_the_rate_after_a_burst() {
        let throttle = Throttle::new(1000);
        let begin = Instant::now();
        for _ in 0..10 {
            throttle.take(1000).await;
        }
        assert_eq!(begin.elapsed(), Duration::from_secs(8));
    }
}
