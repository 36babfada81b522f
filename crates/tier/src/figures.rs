//! What the tier counts: requests by operation, and what they were for.
//!
//! Plain atomics, read when the metrics page is made.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// Requests that were sent, each attempt counted.
#[derive(Debug, Default)]
pub struct Requests {
    sent: [AtomicU64; Operation::ALL.len()],
    failed: AtomicU64,
    held_back: AtomicU64,
}

impl Requests {
    pub(crate) fn add(&self, operation: Operation) {
        add(&self.sent[operation as usize], 1);
    }

    pub(crate) fn add_failed(&self) {
        add(&self.failed, 1);
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
}
