//! Settings of the durable tier: plain data, with the defaults.

use std::{fmt, path::PathBuf, time::Duration};

use crate::{Error, Result};

/// An access key and its secret, for who does not leave them to the environment.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Access key.
    pub key: Box<str>,
    /// Its secret. Never shown.
    pub secret: Box<str>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Where the bucket is, and how it is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// Name of the bucket.
    pub bucket: Box<str>,
    /// URL of the server; AWS without one.
    pub endpoint: Option<Box<str>>,
    /// Region; with an endpoint `us-east-1`, else what the environment says.
    pub region: Option<Box<str>>,
    /// What every key starts with, so that clusters can share a bucket; may be empty.
    pub prefix: Box<str>,
    /// The bucket is part of the path, not of the host name.
    pub path_style: bool,
    /// Make the bucket when it is missing.
    pub create_bucket: bool,
    /// Certificates (PEM) that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Credentials; without them environment, profile, web identity, and on AWS the machine's role.
    pub access: Option<Access>,
    /// How long an object lives that nobody uses; for ever without.
    pub ttl: Option<Duration>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long the server may be silent. A body gets more time the longer it is.
    pub request_timeout: Duration,
}

impl Default for BucketSettings {
    fn default() -> Self {
        BucketSettings {
            bucket: Box::default(),
            endpoint: None,
            region: None,
            prefix: Box::default(),
            path_style: false,
            create_bucket: false,
            ca_file: None,
            access: None,
            ttl: None,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl BucketSettings {
    /// Least time to live: the promise "it is there" ends a day before an object may go.
    pub const MIN_TTL: Duration = Duration::from_hours(48);

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |setting, problem: &str| {
            Err(Error::Setting {
                setting,
                problem: problem.into(),
            })
        };
        if self.bucket.is_empty() {
            return refuse("bucket", "it needs a name");
        }
        if self.ttl.is_some_and(|ttl| ttl < Self::MIN_TTL) {
            return refuse("ttl", "at least 48 hours");
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-/".contains(&c);
        if !self.prefix.bytes().all(plain) || self.prefix.split('/').any(|part| part == "..") {
            return refuse("prefix", "letters, digits and . _ - / only");
        }
        Ok(())
    }
}

/// How the tier works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSettings {
    /// Uploads at a time.
    pub uploads: usize,
    /// Memory for bodies being uploaded, in bytes.
    pub upload_memory_bytes: u64,
    /// How long an owner that is not the first waits before it uploads a record itself.
    pub takeover_after: Duration,
    /// Values fetched at a time. Each takes up to 4 MiB of memory.
    pub fills: usize,
    /// How often the bucket is listed anew; only at the start and at ring changes without.
    pub relist_every: Option<Duration>,
}

impl Default for TierSettings {
    fn default() -> Self {
        TierSettings {
            uploads: 8,
            upload_memory_bytes: 64 << 20,
            takeover_after: Duration::from_mins(1),
            fills: 32,
            relist_every: Some(Duration::from_hours(24)),
        }
    }
}
