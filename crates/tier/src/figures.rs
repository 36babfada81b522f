//! What the tier counts: requests by operation, and what they were for.
//!
//! Plain atomics, read when the metrics page is made; times and outcomes are kept from when a page shows them.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use zimcache_telemetry::metrics::{Counter, LatencyHistogram, Registry};

/// What a request to the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reads an object, or a part of it.
    Get,
    /// Asks about an object.
    Head,
    /// Writes an object at once.
    Put,
    /// Copies an object onto itself.
    Copy,
    /// Removes an object.
    Delete,
    /// Lists objects or unfinished uploads.
    List,
    /// Begins, feeds, ends or aborts an upload in parts.
    Multipart,
    /// Asks for the bucket, or makes it.
    Bucket,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 8] = [
        Operation::Get,
        Operation::Head,
        Operation::Put,
        Operation::Copy,
        Operation::Delete,
        Operation::List,
        Operation::Multipart,
        Operation::Bucket,
    ];

    /// Lower-case name, a closed set: safe as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Head => "head",
            Operation::Put => "put",
            Operation::Copy => "copy",
            Operation::Delete => "delete",
            Operation::List => "list",
            Operation::Multipart => "multipart",
            Operation::Bucket => "bucket",
        }
    }

    /// The name of its span.
    pub(crate) const fn span(self) -> &'static str {
        match self {
            Operation::Get => "s3 get",
            Operation::Head => "s3 head",
            Operation::Put => "s3 put",
            Operation::Copy => "s3 copy",
            Operation::Delete => "s3 delete",
            Operation::List => "s3 list",
            Operation::Multipart => "s3 multipart",
            Operation::Bucket => "s3 bucket",
        }
    }

    /// The verb phrase for messages.
    pub(crate) const fn action(self) -> &'static str {
        match self {
            Operation::Get => "read an object",
            Operation::Head => "ask about an object",
            Operation::Put => "write an object",
            Operation::Copy => "copy an object",
            Operation::Delete => "remove an object",
            Operation::List => "list objects",
            Operation::Multipart => "upload in parts",
            Operation::Bucket => "ask for the bucket",
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The server did it.
    Done,
    /// There is no such object.
    Absent,
    /// The server answered that it will not: a condition, a conflict, a right.
    Refused,
    /// There was no answer, or one that says that the server cannot now.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 4] = [
        Outcome::Done,
        Outcome::Absent,
        Outcome::Refused,
        Outcome::Failed,
    ];

    /// Lower-case name, a closed set: safe as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Absent => "absent",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// Handles of one operation on a metrics page.
#[derive(Debug)]
struct Shown {
    ended: [Counter; Outcome::ALL.len()],
    seconds: LatencyHistogram,
}

impl Shown {
    fn new(registry: &Registry, operation: Operation) -> Shown {
        let label = ("operation", operation.as_str());
        Shown {
            ended: Outcome::ALL.map(|outcome| {
                registry.counter(
                    "zimcache_s3_requests_total",
                    "Requests to the bucket that ended, each attempt counted.",
                    &[label, ("outcome", outcome.as_str())],
                )
            }),
            seconds: registry.latency(
                "zimcache_s3_request_seconds",
                "Time from a request to the bucket to the head of its answer.",
                &[label],
            ),
        }
    }
}

/// Requests that were sent, each attempt counted.
#[derive(Debug, Default)]
pub struct Requests {
    sent: [AtomicU64; Operation::ALL.len()],
    failed: AtomicU64,
    held_back: AtomicU64,
    shown: OnceLock<[Shown; Operation::ALL.len()]>,
}

impl Requests {
    /// Shows those that end from now on by what became of them, and how long they took.
    pub fn show(&self, registry: &Registry) {
        let shown = || Operation::ALL.map(|operation| Shown::new(registry, operation));
        self.shown.get_or_init(shown);
    }

    pub(crate) fn add(&self, operation: Operation) {
        add(&self.sent[operation as usize], 1);
    }

    /// A request has ended.
    pub(crate) fn ended(&self, operation: Operation, outcome: Outcome, took: Duration) {
        if outcome == Outcome::Failed {
            add(&self.failed, 1);
        }
        if let Some(shown) = self.shown.get() {
            let shown = &shown[operation as usize];
            shown.ended[outcome as usize].inc();
            shown.seconds.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn add_held_back(&self) {
        add(&self.held_back, 1);
    }

    /// How many did this.
    pub fn of(&self, operation: Operation) -> u64 {
        get(&self.sent[operation as usize])
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.sent.iter().map(get).sum()
    }

    /// How many had no answer, or one that says that the server cannot now.
    pub fn failed(&self) -> u64 {
        get(&self.failed)
    }

    /// How many were not sent because the server is known to be away.
    pub fn held_back(&self) -> u64 {
        get(&self.held_back)
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident, $add:ident;)*) => {
        /// What the tier did. Only grows.
        #[derive(Debug, Default)]
        pub struct Figures { $($name: AtomicU64,)* }

        impl Figures {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> u64 {
                    get(&self.$name)
                }

                pub(crate) fn $add(&self, n: u64) {
                    add(&self.$name, n);
                }
            )*
        }
    };
}

figures! {
    /// Records written to the bucket.
    uploads, add_uploads;
    /// Bytes of them.
    upload_bytes, add_upload_bytes;
    /// Records that were in the bucket already, or in a newer version.
    uploads_spared, add_uploads_spared;
    /// Uploads that failed and will be tried again.
    upload_failures, add_upload_failures;
    /// Values fetched from the bucket.
    fills, add_fills;
    /// Bytes of them.
    fill_bytes, add_fill_bytes;
    /// Readers that shared the fetch of another one.
    fills_shared, add_fills_shared;
    /// Fetched values that the store did not take.
    fills_not_kept, add_fills_not_kept;
    /// Objects with wrong bytes.
    corrupt, add_corrupt;
    /// Look-ups answered with "not there" without a request.
    absent_for_free, add_absent_for_free;
    /// Objects whose life was prolonged.
    refreshes, add_refreshes;
    /// Uploads that began.
    uploads_begun, add_uploads_begun;
    /// Uploads that ended, however they did.
    uploads_ended, add_uploads_ended;
    /// Sweeps of the bucket that removed what is over.
    sweeps, add_sweeps;
    /// Objects that sweeps removed.
    swept, add_swept;
    /// Bytes of them.
    swept_bytes, add_swept_bytes;
}

impl Figures {
    /// Uploads under way.
    pub fn uploads_running(&self) -> u64 {
        // What ended is read first, so that it never exceeds what began.
        let ended = self.uploads_ended();
        self.uploads_begun().saturating_sub(ended)
    }

    /// An upload begins; it ends when this is dropped.
    pub(crate) fn uploading(&self) -> Uploading<'_> {
        self.add_uploads_begun(1);
        Uploading(self)
    }
}

/// An upload under way.
#[derive(Debug)]
pub(crate) struct Uploading<'a>(&'a Figures);

impl Drop for Uploading<'_> {
    fn drop(&mut self) {
        self.0.add_uploads_ended(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_outcomes_are_indexed_in_the_order_they_are_listed() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn what_ended_shows_under_its_operation_and_outcome() {
        let (requests, registry) = (Requests::default(), Registry::new());
        let took = Duration::from_millis(3);
        requests.ended(Operation::Get, Outcome::Failed, took);
        requests.show(&registry);
        requests.ended(Operation::Get, Outcome::Absent, took);
        assert_eq!(requests.failed(), 1);
        let page = registry.render();
        for line in [
            "zimcache_s3_requests_total{operation=\"get\",outcome=\"absent\"} 1",
            "zimcache_s3_requests_total{operation=\"get\",outcome=\"failed\"} 0",
            "zimcache_s3_request_seconds_count{operation=\"get\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }

    #[test]
    fn an_upload_runs_until_it_is_dropped() {
        let figures = Figures::default();
        let upload = figures.uploading();
        assert_eq!(figures.uploads_running(), 1);
        drop(upload);
        assert_eq!(figures.uploads_running(), 0);
    }
}
