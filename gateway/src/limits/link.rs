//! What requests see of Redis: whether it serves, how many gateways there are, and where to call for tokens.
//!
//! A decision reads two atomics; only a limit that runs low takes the lock of the queue, for a push. Not here: the task
//! at the other end of the queue (`rounds`). Invariant: dropping a link ends its task; no request waits for either.

use std::{
    convert::Infallible,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::{sync::Notify, task::AbortHandle};
use zimcache_config::RedisUrl;
use zimcache_telemetry::task;

use super::{
    bucket::{Bucket, Pace, Standing},
    caller::Name,
    lease::{Call, Lease, Terms},
    rounds,
    script::{self, Failure},
};
use crate::metrics::SharedLimits;

/// A gateway's tie to a Redis.
#[derive(Debug)]
pub(super) struct Link {
    url: RedisUrl,
    line: Arc<Line>,
    /// As many as callers are remembered; of those forgotten, what is held goes back when they are idle.
    leases: Cache<Name, Arc<Lease>>,
    task: AbortHandle,
}

/// What requests and the task share.
#[derive(Debug)]
pub(super) struct Line {
    /// Odd while Redis serves; each change is another era.
    era: AtomicU64,
    gateways: AtomicU32,
    calls: Mutex<Vec<Caller>>,
    pub(super) wake: Notify,
    /// Where the limiter's clock begins.
    started: Instant,
    pub(super) figures: SharedLimits,
}

/// A limit that needs tokens.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) lease: Arc<Lease>,
    pub(super) era: u64,
    /// It was not in use before.
    pub(super) new: bool,
}

impl Link {
    /// Starts a task that keeps to this Redis. The limiter's clock began at `started`. Call it on a runtime.
    pub(super) fn start(
        url: &RedisUrl,
        (started, most_leases): (Instant, usize),
        figures: SharedLimits,
    ) -> Link {
        let line = Arc::new(Line::new(started, figures));
        let rounds = rounds::run(Arc::clone(&line), url.clone());
        Link {
            url: url.clone(),
            line,
            leases: Cache::new(most_leases),
            task: task::spawn("rate limits", rounds).abort_handle(),
        }
    }

    pub(super) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Takes a token: of the lease while Redis serves, else of this gateway's share.
    pub(super) fn take(&self, name: Name, bucket: &Bucket, pace: Pace, now: u64) -> Standing {
        let line = &self.line;
        let Some(terms) = line.terms() else {
            return bucket.take(pace.shared_by(line.gateways()), now);
        };
        let lease = self.lease(name);
        let (standing, call) = lease.take(bucket, pace, now, terms);
        if call != Call::None {
            line.calls.lock().push(Caller {
                lease,
                era: terms.era,
                new: call == Call::New,
            });
            line.wake.notify_one();
        }
        standing
    }

    fn lease(&self, name: Name) -> Arc<Lease> {
        let new = || Ok::<_, Infallible>(Arc::new(Lease::new(format!("{}{name}", script::PREFIX))));
        let Ok(lease) = self.leases.get_or_insert_with(&name, new);
        lease
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    fn new(started: Instant, figures: SharedLimits) -> Line {
        figures.up.set(0);
        figures.gateways.set(1);
        Line {
            era: AtomicU64::new(0),
            gateways: AtomicU32::new(1),
            calls: Mutex::default(),
            wake: Notify::new(),
            started,
            figures,
        }
    }

    /// The era, while Redis serves.
    pub(super) fn era(&self) -> Option<u64> {
        let era = self.era.load(Ordering::Acquire);
        (era % 2 == 1).then_some(era)
    }

    fn terms(&self) -> Option<Terms> {
        let era = self.era()?;
        let gateways = self.gateways();
        Some(Terms { era, gateways })
    }

    /// Gateways that were there when Redis was last heard of.
    pub(super) fn gateways(&self) -> u32 {
        self.gateways.load(Ordering::Relaxed)
    }

    pub(super) fn count_gateways(&self, gateways: u32) {
        self.gateways.store(gateways, Ordering::Relaxed);
        self.figures.gateways.set(i64::from(gateways));
    }

    /// Nanoseconds on the limiter's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Redis serves from now on.
    pub(super) fn came_up(&self) {
        if self.era().is_none() {
            self.era.fetch_add(1, Ordering::Release);
            self.figures.up.set(1);
        }
    }

    /// Redis does not serve any more; tells whether it did.
    pub(super) fn went_down(&self, failure: &Failure) -> bool {
        self.figures.failed(failure.kind());
        let served = self.era().is_some();
        if served {
            self.era.fetch_add(1, Ordering::Release);
            self.figures.up.set(0);
            self.calls.lock().clear();
        }
        served
    }

    /// Takes the limits that have called.
    pub(super) fn calls(&self) -> Vec<Caller> {
        mem::take(&mut *self.calls.lock())
    }
}
