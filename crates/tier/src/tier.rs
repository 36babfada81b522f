//! The durable tier of one node, put together.

use std::{sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use tokio_util::sync::CancellationToken;
use zimcache_store::{ByteRange, RecordKey, RecordKind, Replica};
use zimcache_telemetry::task;
use zimcache_types::{Clock, Namespace, Timestamp};

use crate::{
    Bucket, Drained, Figures, Fill, Fills, Owners, Presence, Result, SweepOptions, SweepReport,
    TierSettings, Uploader,
    bucket::Copied,
    budget::Budget,
    refresh::Refresher,
    sweep::MARGIN,
    upload::{Life, Ship},
};

/// Objects of which we remember that the server has shown them.
const SHOWN: usize = 1 << 16;
/// How long that is believed.
const SHOWN_FOR: Duration = Duration::from_hours(1);
/// Wait before the bucket is listed again after a failure, at most.
const RELIST_MOST: Duration = Duration::from_secs(30);

/// What a tier is made of.
#[derive(Debug)]
pub struct TierParts {
    /// The bucket.
    pub bucket: Bucket,
    /// The node's records.
    pub replica: Arc<dyn Replica>,
    /// Who is responsible for which record.
    pub owners: Arc<dyn Owners>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Spreads waits of different nodes, and keys the filter.
    pub seed: u64,
}

/// The durable tier of one node.
#[derive(Debug)]
pub struct Tier {
    bucket: Bucket,
    clock: Arc<dyn Clock>,
    presence: Arc<Presence>,
    uploader: Uploader,
    fills: Fills,
    refresher: Refresher,
    figures: Arc<Figures>,
    shown: Cache<RecordKey, Timestamp>,
    stop: CancellationToken,
}

impl Tier {
    /// Starts uploading, and listing the bucket. Nothing waits for the server; a missing bucket is made if the settings
    /// say so.
    pub fn start(settings: TierSettings, parts: TierParts) -> Tier {
        let TierParts {
            bucket,
            replica,
            owners,
            clock,
            seed,
        } = parts;
        let figures = Arc::new(Figures::default());
        let presence = Arc::new(Presence::new(Arc::clone(&owners), seed));
        let stop = CancellationToken::new();
        let ship = Ship {
            bucket: bucket.clone(),
            replica: Arc::clone(&replica),
            memory: Budget::new(settings.upload_memory_bytes),
            figures: Arc::clone(&figures),
        };
        let relist = relist(bucket.clone(), Arc::clone(&presence), settings.relist_every);
        spawn_until("listing of the bucket", stop.clone(), relist);
        spawn_until("watch over outages", stop.clone(), watch(bucket.clone()));
        let refresher = Refresher::start(ship.clone(), Arc::clone(&presence), stop.clone());
        let fills = Fills::new(
            bucket.clone(),
            replica,
            Arc::clone(&presence),
            Arc::clone(&figures),
            settings.fills,
            stop.clone(),
        );
        let uploader = Uploader::start(ship, owners, Arc::clone(&presence), settings, seed);
        Tier {
            bucket,
            clock,
            presence,
            uploader,
            fills,
            refresher,
            figures,
            shown: Cache::new(SHOWN),
            stop,
        }
    }

    /// Opens a record from the bucket, and keeps it. See [`Fills::fill`].
    ///
    /// # Errors
    /// As [`Fills::fill`].
    pub async fn fill(&self, key: &RecordKey, range: ByteRange) -> Result<Fill> {
        self.fills.fill(key, range).await
    }

    /// Brings one record into the bucket now. See [`Uploader::flush`].
    ///
    /// # Errors
    /// As [`Uploader::flush`].
    pub async fn flush(&self, key: &RecordKey) -> Result<()> {
        self.uploader.flush(key).await
    }

    /// For each of these blobs whether the bucket may have it, as far as is known without asking. A "missing" costs a
    /// second upload only: not worth a request each while the filter is being loaded.
    pub fn may_hold(&self, keys: &[&RecordKey]) -> Vec<bool> {
        let may = self.presence.may_have_each(keys);
        let absent = may.iter().filter(|may| !**may).count();
        self.figures.add_absent_for_free(absent as u64);
        may
    }

    /// Whether the bucket has a blob and will have it for a lease of hours; makes its object young if need be. A blob
    /// that the filter does not know costs no request, and neither does one shown within the last hour.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub async fn holds(&self, key: &RecordKey) -> Result<bool> {
        if !matches!(key.kind, RecordKind::Blob(_)) || !self.presence.may_have(key) {
            self.figures.add_absent_for_free(1);
            return Ok(false);
        }
        let now = self.clock.now();
        if let Some(shown) = self.shown.get(key)
            && now.since(shown) < SHOWN_FOR
        {
            return Ok(true);
        }
        let held = self.ask_holds(key).await?;
        if held {
            self.shown.insert(key.clone(), now);
        }
        Ok(held)
    }

    async fn ask_holds(&self, key: &RecordKey) -> Result<bool> {
        let name = self.bucket.keys().object(key);
        let Some(stat) = self.bucket.head(&name).await? else {
            return Ok(false);
        };
        match self.bucket.life(&stat) {
            Life::Young => Ok(true),
            Life::Over => Ok(false),
            Life::Old => {
                let ttl = self.bucket.settings().ttl.unwrap_or(Duration::MAX);
                // Safe without a copy: a touch will see to it.
                if self.bucket.age(stat.modified) < ttl.saturating_sub(MARGIN + SHOWN_FOR) {
                    self.refresher.touched(key);
                    return Ok(true);
                }
                self.figures.add_refreshes(1);
                let copied = self.bucket.renew(&name, stat.size_bytes).await?;
                Ok(copied == Copied::Yes)
            }
        }
    }

    /// A record was used: its object is kept alive. Costs a look into memory, and two requests once in half of the time
    /// to live.
    pub fn touched(&self, key: &RecordKey) {
        self.refresher.touched(key);
    }

    /// Other owners have uploaded these.
    pub fn learn<'a, I>(&self, keys: I)
    where
        I: IntoIterator<Item = &'a RecordKey>,
    {
        keys.into_iter().for_each(|key| self.presence.insert(key));
    }

    /// The node owns other records now.
    pub fn ring_changed(&self) {
        self.presence.ring_changed();
    }

    /// Removes a record's object, after an upload of it that is under way. That there is none is a success. The store
    /// must not have the record any more, or it is uploaded again; a fill that was under way may have brought it back
    /// there before this returns, but not later.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub async fn delete(&self, key: &RecordKey) -> Result<()> {
        self.shown.remove(key);
        let _claim = self.uploader.claim(key).await;
        let name = self.bucket.keys().object(key);
        self.bucket.remove(&name).await?;
        self.fills.forget(|filled| filled == key).await;
        Ok(())
    }

    /// Removes every object of a namespace; how many there were. Uploads of the namespace must have ended. Fills are as
    /// for [`Tier::delete`].
    ///
    /// # Errors
    /// `Unreachable`, `Refused`; then some may be left.
    pub async fn purge(&self, namespace: &Namespace) -> Result<u64> {
        self.shown.clear();
        let removed = self.bucket.purge(namespace).await?;
        let is_gone = |filled: &RecordKey| filled.namespace == *namespace;
        self.fills.forget(is_gone).await;
        Ok(removed)
    }

    /// Removes what nobody used for its whole life. See [`Bucket::sweep`].
    ///
    /// # Errors
    /// As [`Bucket::sweep`].
    pub async fn sweep(&self, options: SweepOptions) -> Result<SweepReport> {
        let swept = self.bucket.sweep(options).await?;
        if !options.dry_run {
            self.figures.add_sweeps(1);
            self.figures.add_swept(swept.removed);
            self.figures.add_swept_bytes(swept.removed_bytes);
        }
        Ok(swept)
    }

    /// Uploads everything, for at most so long. See [`Uploader::drain`].
    pub async fn drain(&self, limit: Duration) -> Drained {
        self.uploader.drain(limit).await
    }

    /// Goes back from a drain to ordinary work.
    pub fn resume(&self) {
        self.uploader.resume();
    }

    /// What is known about the bucket without asking.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// The bucket.
    pub const fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// What was done.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Stops all work. What is not uploaded stays dirty.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.uploader.stop().await;
    }
}

impl Drop for Tier {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn spawn_until<W>(name: &'static str, stop: CancellationToken, work: W)
where
    W: Future<Output = ()> + Send + 'static,
{
    task::spawn(name, async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
}

/// Finds out that the server is back although nobody wants anything of it.
async fn watch(bucket: Bucket) {
    loop {
        bucket.outage().began().await;
        bucket.outage().ready().await;
        // The detector takes note of the answer.
        let _ = bucket.check().await;
    }
}

/// Lists the bucket at the start, at every change of the ring, and now and then.
async fn relist(bucket: Bucket, presence: Arc<Presence>, every: Option<Duration>) {
    if bucket.settings().create_bucket
        && let Err(error) = bucket.ensure_bucket().await
    {
        tracing::warn!(%error, "the bucket could not be made yet");
    }
    let mut failures = 0;
    loop {
        bucket.outage().ready().await;
        let loaded = Box::pin(presence.load(&bucket)).await;
        if let Err(error) = &loaded {
            tracing::warn!(%error, "the bucket could not be listed");
        }
        if loaded.is_err() || !presence.is_loaded() {
            let most = RELIST_MOST;
            let wait = bucket
                .jitter()
                .wait(Duration::from_millis(500), failures, most);
            failures += 1;
            tokio::time::sleep(wait).await;
            continue;
        }
        failures = 0;
        tracing::debug!(records = presence.records(), "the bucket is listed");
        match every {
            Some(every) => tokio::select! {
                () = presence.wanted() => {}
                () = tokio::time::sleep(every) => {}
            },
            None => presence.wanted().await,
        }
    }
}
