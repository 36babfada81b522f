//! Waiting for a process that was killed a moment ago: until the kernel has buried it, it holds its port and its store.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// How long a predecessor may take to be gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Tries again while somebody else holds what is wanted, for a moment.
pub(super) fn outlive<T>(mut take: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match take() {
            Err(Error::PortInUse(_) | Error::StoreInUse(_)) if start.elapsed() < PATIENCE => {
                thread::sleep(PAUSE);
            }
            taken => return taken,
        }
    }
}
