//! Memory for bodies on their way: taken before bytes are read, given back when the server has them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Result};

/// A bounded amount of memory. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    all_kib: u32,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Budget {
        let all_kib = kib(bytes).max(1);
        Budget {
            free: Arc::new(Semaphore::new(all_kib as usize)),
            all_kib,
        }
    }

    /// Waits for so many bytes; for all there are when they are more.
    pub(crate) async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        let wanted = kib(bytes).clamp(1, self.all_kib);
        let taken = Arc::clone(&self.free).acquire_many_owned(wanted).await;
        taken.map_err(|_| Error::Stopping)
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_body_may_take_everything_and_the_next_waits() {
        let budget = Budget::new(1 << 20);
        let all = budget.take(1 << 30).await.unwrap();
        let mut next = std::pin::pin!(budget.take(1));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        drop(all);
        assert!(next.await.is_ok());
    }
}
