//! Removes what nobody used for its whole life, in buckets whose server has no lifecycle rules. One node at a time runs
//! it; which one is the caller's decision.
//!
//! An object is removed a day after its life is over. Nodes promise nothing of an object in the last day of its life
//! without making it young first, and write over one whose life is over, so that the sweep and a promise are two days
//! apart. It looks at each object once more right before it removes it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use zimcache_types::Timestamp;

use crate::{Bucket, Result, bucket::Listed};

/// Time between the end of an object's life and its removal, and between its last promise and that end.
pub(crate) const MARGIN: Duration = Duration::from_hours(24);
/// Age at which an upload in parts is given up by the sweep.
const UNFINISHED: Duration = Duration::from_hours(24);
/// Removals at a time.
const AT_ONCE: usize = 8;
/// Objects removed by one sweep, at most; the next one goes on.
const LIMIT: usize = 1 << 20;

/// What a sweep may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepOptions {
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What a sweep did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// Objects seen.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects removed.
    pub removed: u64,
    /// Bytes of them.
    pub removed_bytes: u64,
    /// Objects that could not be removed.
    pub failed: u64,
    /// Unfinished uploads given up.
    pub aborted: u64,
}

impl Bucket {
    /// Removes objects whose life was over a day ago, and uploads in parts that are older than a day. Without a time to
    /// live only the latter.
    ///
    /// # Errors
    /// `NoBucket`, `Unreachable`, `Refused` when the bucket cannot be listed.
    pub async fn sweep(&self, options: SweepOptions) -> Result<SweepReport> {
        let mut report = SweepReport::default();
        let over = self.list_over(&mut report).await?;
        let removals = stream::iter(over).map(|listed| async move {
            let removed = if options.dry_run {
                Ok(true)
            } else {
                self.remove_if_over(&listed).await
            };
            (listed.size_bytes, removed)
        });
        let mut removals = removals.buffer_unordered(AT_ONCE);
        while let Some((bytes, removed)) = removals.next().await {
            match removed {
                Ok(true) => {
                    report.removed += 1;
                    report.removed_bytes += bytes;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "an object could not be removed");
                    report.failed += 1;
                }
            }
        }
        drop(removals);
        report.aborted = self.abort_unfinished(options).await?;
        Ok(report)
    }

    /// Objects whose life is over, and how many there are of any age.
    async fn list_over(&self, report: &mut SweepReport) -> Result<Vec<Listed>> {
        let (objects, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let over = Mutex::new(Vec::new());
        let look = |listed: Listed| {
            objects.fetch_add(1, Ordering::Relaxed);
            bytes.fetch_add(listed.size_bytes, Ordering::Relaxed);
            let ours = self.keys().parse(&listed.name).is_some();
            let mut over = over.lock();
            if ours && self.is_over(listed.modified) && over.len() < LIMIT {
                over.push(listed);
            }
        };
        self.walk(self.keys().root(), &look).await?;
        report.objects = objects.into_inner();
        report.bytes = bytes.into_inner();
        Ok(over.into_inner())
    }

    fn is_over(&self, modified: Timestamp) -> bool {
        let ttl = self.settings().ttl;
        ttl.is_some_and(|ttl| self.age(modified) >= ttl + MARGIN)
    }

    async fn remove_if_over(&self, listed: &Listed) -> Result<bool> {
        let Some(stat) = self.head(&listed.name).await? else {
            return Ok(false);
        };
        if !self.is_over(stat.modified) {
            return Ok(false);
        }
        self.remove(&listed.name).await?;
        Ok(true)
    }

    async fn abort_unfinished(&self, options: SweepOptions) -> Result<u64> {
        let mut aborted = 0;
        for unfinished in self.unfinished(self.keys().root()).await? {
            if self.age(unfinished.begun) < UNFINISHED {
                continue;
            }
            if !options.dry_run {
                self.abort(&unfinished).await;
            }
            aborted += 1;
        }
        Ok(aborted)
    }
}
