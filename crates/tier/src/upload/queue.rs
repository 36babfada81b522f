//! The task that works dirty records off, walk after walk.
//!
//! The pins are the queue: nothing else is kept, so a restart begins where the disk says. A walk meets the oldest first.
//! While the server is away one upload at a time finds out whether it is back. What was uploaded is settled in batches,
//! after the filter knows it and before the other owners are told.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use zimcache_store::{Pins, RecordInfo, RecordKey, Version, Walk};
use zimcache_telemetry::task;

use super::{
    Shared,
    claims::Claim,
    object::Uploaded,
    waiting::{Failed, Waiting},
};
use crate::{Owners, Result};

/// Records asked for at a time.
const PAGE: usize = 256;
/// Uploaded records settled at a time, at most.
const BATCH: usize = 64;
/// How long an uploaded record may wait for others to be settled with.
const BATCH_TIME: Duration = Duration::from_millis(50);
/// Shortest time between the starts of two walks.
const PACE: Duration = Duration::from_millis(20);
/// Time to the next walk while some records wait.
const SOON: Duration = Duration::from_millis(500);
/// Time to the next walk when nothing is dirty that we know of.
const IDLE: Duration = Duration::from_secs(30);
/// Batches that the other owners were not told of yet, at most.
const UNTOLD: usize = 64;
/// How long telling the other owners may take.
const TELL: Duration = Duration::from_secs(5);
/// How long uploads that are under way may go on when the tier stops.
const GRACE: Duration = Duration::from_secs(2);

/// An upload that ended.
pub(super) type Ended = (Claim, Result<Uploaded>);

/// Records that are in the bucket.
type Settled = Vec<(RecordKey, Version)>;

/// Starts a task that tells the other owners what is settled, so that one that is away holds nothing up. It ends with
/// the sender.
fn start_telling(owners: Arc<dyn Owners>) -> mpsc::Sender<Settled> {
    let (tell, mut told) = mpsc::channel::<Settled>(UNTOLD);
    task::spawn("telling of owners", async move {
        while let Some(records) = told.recv().await {
            if timeout(TELL, owners.settled(&records)).await.is_err() {
                tracing::debug!("the other owners were not told in time");
            }
        }
    });
    tell
}

/// Works dirty records off.
pub(super) struct Queue {
    shared: Arc<Shared>,
    running: FuturesUnordered<JoinHandle<Ended>>,
    flushed: mpsc::Receiver<(Claim, Version)>,
    done: Vec<(Claim, Version)>,
    done_since: Option<Instant>,
    tell: mpsc::Sender<Settled>,
    waiting: Waiting,
    failed: Failed,
    outages: u64,
    /// Something that is dirty was passed over for no fault of its own.
    again: bool,
}

impl Queue {
    pub(super) fn new(shared: Arc<Shared>, flushed: mpsc::Receiver<(Claim, Version)>) -> Queue {
        Queue {
            running: FuturesUnordered::new(),
            flushed,
            done: Vec::new(),
            done_since: None,
            tell: start_telling(Arc::clone(&shared.owners)),
            waiting: Waiting::new(shared.settings.takeover_after),
            failed: Failed::new(shared.seed),
            outages: 0,
            again: false,
            shared,
        }
    }

    /// Until the tier stops.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.is_cancelled() {
            let began = Instant::now();
            let mut more = shared.replica.pinned_more();
            // It counts from the first look on, which has to come before the walk.
            let pinned = futures_util::poll!(more.as_mut()).is_ready();
            if let Err(error) = self.walk().await {
                tracing::warn!(%error, "the walk over dirty records broke off");
                self.again = true;
            }
            self.rest(began, pinned, more).await;
        }
        self.finish().await;
    }

    /// Meets every dirty record once.
    async fn walk(&mut self) -> Result<()> {
        let replica = Arc::clone(&self.shared.replica);
        let mut after = None;
        loop {
            let (records, next) = replica.walk(Walk::Dirty, after, PAGE).await?;
            for record in &records {
                self.consider(record).await;
            }
            after = next;
            if self.shared.stop.is_cancelled() {
                return Ok(());
            }
            if after.is_none() {
                break;
            }
        }
        self.waiting.end_walk();
        Ok(())
    }

    async fn consider(&mut self, record: &RecordInfo) {
        let shared = Arc::clone(&self.shared);
        let ended = shared.ship.bucket.outage().ended();
        if std::mem::replace(&mut self.outages, ended) != ended {
            self.waiting.restart();
            self.failed.clear();
        }
        let now = shared.is_draining() || shared.owners.is_first_owner(&record.key);
        if !now && !self.waiting.is_over(&record.key) {
            return;
        }
        if self.failed.holds_back(&record.key) {
            return;
        }
        self.room().await;
        if shared.stop.is_cancelled() {
            return;
        }
        let Some(claim) = shared.claims.take(&record.key) else {
            return;
        };
        let upload = async move {
            let uploaded = shared.upload(claim.key()).await;
            (claim, uploaded)
        };
        self.running.push(task::spawn("upload", upload));
    }

    /// Waits until one more upload may start, or the tier stops.
    async fn room(&mut self) {
        let shared = Arc::clone(&self.shared);
        let outage = shared.ship.bucket.outage();
        while !shared.stop.is_cancelled() {
            let away = outage.is_on();
            let limit = if away {
                1
            } else {
                shared.settings.uploads.max(1)
            };
            let free = self.running.len() < limit;
            if free && !away {
                return;
            }
            tokio::select! {
                () = outage.ready(), if free => return,
                () = shared.stop.cancelled() => {}
                () = self.event(None) => {}
            }
            self.settle_if_due().await;
        }
    }

    /// Takes the next end of an upload, or ends when something is to be settled, or at the limit. May be dropped at any
    /// point.
    async fn event(&mut self, limit: Option<Instant>) {
        let due = self.done_since.map(|since| since + BATCH_TIME);
        let wake = [due, limit].into_iter().flatten().min();
        let wake = wake.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            Some(ended) = self.running.next() => if let Ok(ended) = ended {
                self.take(ended);
            },
            Some(flushed) = self.flushed.recv() => self.add_done(flushed),
            () = tokio::time::sleep_until(wake) => {}
        }
    }

    async fn settle_if_due(&mut self) {
        let due = |since: Instant| since.elapsed() >= BATCH_TIME;
        if self.done.len() >= BATCH || self.done_since.is_some_and(due) {
            self.settle().await;
        }
    }

    fn take(&mut self, (claim, uploaded): Ended) {
        match uploaded {
            Ok(Uploaded::Yes(version)) => self.add_done((claim, version)),
            Ok(Uploaded::Gone) => self.failed.remove(claim.key()),
            Err(error) => {
                self.shared.ship.figures.add_upload_failures(1);
                // An outage says so itself, once, and holds everything back.
                if self.shared.ship.bucket.is_reachable() {
                    tracing::warn!(%error, key = ?claim.key(), "an upload failed");
                    self.failed.add(claim.key().clone());
                } else {
                    self.again = true;
                }
            }
        }
    }

    fn add_done(&mut self, done: (Claim, Version)) {
        self.failed.remove(done.0.key());
        self.done.push(done);
        self.done_since.get_or_insert_with(Instant::now);
    }

    /// Takes the dirty pins off what was uploaded, durably, and tells the other owners.
    async fn settle(&mut self) {
        self.done_since = None;
        let done = std::mem::take(&mut self.done);
        if done.is_empty() {
            return;
        }
        let records: Settled = done
            .iter()
            .map(|(claim, version)| (claim.key().clone(), *version))
            .collect();
        let dirty = Pins {
            dirty: true,
            hint: false,
        };
        if let Err(error) = self.shared.replica.settle(&records, dirty).await {
            tracing::warn!(%error, "uploaded records stay dirty");
            for (key, _) in records {
                self.failed.add(key);
            }
            return;
        }
        drop(done);
        self.shared.settled.notify_waiters();
        // When the others cannot be told fast enough, they find out by themselves.
        let _ = self.tell.try_send(records);
    }

    /// Waits for the next walk: until something is pinned, or the time of what waits has come.
    async fn rest<F>(&mut self, began: Instant, pinned: bool, mut more: F)
    where
        F: Future<Output = ()> + Unpin,
    {
        // A long walk rests as long as it took.
        let rest_at_least = Instant::now() + PACE.max(began.elapsed());
        let shared = Arc::clone(&self.shared);
        let again = std::mem::take(&mut self.again);
        let idle = !again && self.waiting.is_empty() && self.failed.is_empty();
        let hurry = pinned || shared.is_draining();
        let rest_at_most = rest_at_least + if idle { IDLE } else { SOON };
        let mut news = hurry;
        while !shared.stop.is_cancelled() {
            let now = Instant::now();
            if now >= rest_at_most || (news && now >= rest_at_least) {
                break;
            }
            let limit = if news { rest_at_least } else { rest_at_most };
            tokio::select! {
                () = &mut more, if !news => news = true,
                () = shared.hurry.notified(), if !news => news = true,
                () = shared.stop.cancelled() => {}
                () = self.event(Some(limit)) => {}
            }
            self.settle_if_due().await;
        }
    }

    /// Lets uploads that are under way end, for a moment, and settles them.
    async fn finish(&mut self) {
        let grace = sleep(GRACE);
        tokio::pin!(grace);
        while !self.running.is_empty() {
            tokio::select! {
                () = &mut grace => break,
                ended = self.running.next() => if let Some(Ok(ended)) = ended {
                    self.take(ended);
                },
            }
        }
        self.running.iter().for_each(JoinHandle::abort);
        self.settle().await;
    }
}
