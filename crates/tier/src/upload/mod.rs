//! Uploads: the queue of dirty records, and single ones that somebody waits for.

mod claims;
mod object;
mod queue;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use zimcache_store::{PinnedCounts, RecordKey, Replica, Version};
use zimcache_telemetry::task;

pub(crate) use object::{Life, Reason, Ship, Uploaded};

use crate::{Error, Owners, Presence, Result, TierSettings};
use claims::{Claim, Claims};
use queue::Queue;

/// Uploads that somebody waits for, at a time.
const FLUSHES: usize = 64;
/// Such uploads that are not settled yet, at most.
const FLUSHED: usize = 1024;

/// Brings dirty records into the bucket.
#[derive(Debug)]
pub struct Uploader {
    shared: Arc<Shared>,
    flushed: mpsc::Sender<(Claim, Version)>,
    flushes: Semaphore,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What became of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// What is still not in the bucket.
    pub left: PinnedCounts,
}

#[derive(Debug)]
struct Shared {
    ship: Ship,
    replica: Arc<dyn Replica>,
    owners: Arc<dyn Owners>,
    presence: Arc<Presence>,
    settings: TierSettings,
    seed: u64,
    claims: Claims,
    draining: AtomicBool,
    /// Something wants the next walk now.
    hurry: Notify,
    /// Some records were settled.
    settled: Notify,
    stop: CancellationToken,
}

impl Shared {
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    async fn upload(&self, key: &RecordKey) -> Result<Uploaded> {
        let _running = self.ship.figures.uploading();
        let uploaded = Box::pin(self.ship.upload(key, Reason::Dirty)).await?;
        if let Uploaded::Yes(_) = uploaded {
            self.presence.insert(key);
        }
        Ok(uploaded)
    }
}

impl Uploader {
    /// Starts to work dirty records off.
    pub(crate) fn start(
        ship: Ship,
        owners: Arc<dyn Owners>,
        presence: Arc<Presence>,
        settings: TierSettings,
        seed: u64,
    ) -> Uploader {
        let (flushed, settled_by) = mpsc::channel(FLUSHED);
        let shared = Arc::new(Shared {
            replica: Arc::clone(&ship.replica),
            ship,
            owners,
            presence,
            settings,
            seed,
            claims: Claims::default(),
            draining: AtomicBool::new(false),
            hurry: Notify::new(),
            settled: Notify::new(),
            stop: CancellationToken::new(),
        });
        let queue = Queue::new(Arc::clone(&shared), settled_by);
        let running = task::spawn("upload queue", queue.run());
        Uploader {
            shared,
            flushed,
            flushes: Semaphore::new(FLUSHES),
            task: Mutex::new(Some(running)),
        }
    }

    /// Brings one record into the bucket now, whoever owns it. Once this returns the bucket has it, in this version or a
    /// newer one; its pin goes soon after.
    ///
    /// # Errors
    /// `Absent` when there is no such record; `Unreachable` and the like when the bucket did not take it.
    pub async fn flush(&self, key: &RecordKey) -> Result<()> {
        let turn = self.flushes.acquire().await;
        let _turn = turn.map_err(|_| Error::Stopping)?;
        let claim = self.shared.claims.wait(key).await;
        let stop = &self.shared.stop;
        let uploaded = tokio::select! {
            () = stop.cancelled() => return Err(Error::Stopping),
            uploaded = self.shared.upload(key) => uploaded?,
        };
        match uploaded {
            // A queue that has stopped leaves the pin for the next start.
            Uploaded::Yes(version) => {
                let _ = self.flushed.send((claim, version)).await;
                Ok(())
            }
            Uploaded::Gone => self.is_clean(key).await,
        }
    }

    /// What is not dirty is in the bucket; what is not there is an error.
    async fn is_clean(&self, key: &RecordKey) -> Result<()> {
        let start = zimcache_store::ByteRange::Full;
        let record = self.shared.replica.open_record(key, start).await?;
        record.map(|_| ()).ok_or(Error::Absent)
    }

    /// Waits for the end of an upload of a record, and lets none begin while this is held: one that is under way would
    /// bring into the bucket what is removed from it meanwhile.
    pub(crate) async fn claim(&self, key: &RecordKey) -> Claim {
        self.shared.claims.wait(key).await
    }

    /// Uploads everything, also what other owners would, until nothing is dirty or the time is over. New records are
    /// uploaded too.
    pub async fn drain(&self, limit: Duration) -> Drained {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.hurry.notify_one();
        // A deadline that passes shows in what is left.
        let _ = timeout(limit, self.until_clean()).await;
        Drained {
            left: self.shared.replica.pinned(),
        }
    }

    async fn until_clean(&self) {
        loop {
            let mut settled = std::pin::pin!(self.shared.settled.notified());
            settled.as_mut().enable();
            if self.shared.replica.pinned().dirty == 0 {
                return;
            }
            // Somebody else may have settled the last one: look again now and then.
            let _ = timeout(Duration::from_millis(100), settled).await;
        }
    }

    /// Goes back to leaving records to their first owners.
    pub fn resume(&self) {
        self.shared.draining.store(false, Ordering::Relaxed);
    }

    /// Stops. Uploads under way get a moment; what is left is dirty and waits for the next start.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let running = self.task.lock().take();
        if let Some(running) = running
            && let Err(error) = running.await
        {
            tracing::error!(%error, "the upload queue ended badly");
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
