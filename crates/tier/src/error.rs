//! Why the durable tier failed, with the [`Code`] that says what the caller should do.
//!
//! Errors are cheap to clone: one failed fetch is told to all of its readers. What a server said goes to the log, and no
//! secret is in it.

use std::sync::Arc;

use zimcache_types::Code;

/// Result of a call to the durable tier.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the durable tier. Absence is not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The bucket does not answer, or answers that it cannot now.
    #[error("the bucket cannot be reached while trying to {action}: {detail}")]
    Unreachable {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// What happened.
        detail: Box<str>,
    },
    /// The bucket is not there.
    #[error("the bucket does not exist")]
    NoBucket,
    /// The server refuses: wrong credentials, no rights, a request that it does not know.
    #[error("the server refused to {action}: {status} {code}")]
    Refused {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// HTTP status.
        status: u16,
        /// The server's word for it.
        code: Box<str>,
    },
    /// An object does not have the bytes that it is named after.
    #[error("an object in the bucket is corrupt: {0}")]
    Corrupt(&'static str),
    /// The range starts behind the end of the value.
    #[error("range starts at or behind the end of a value of {size} bytes")]
    RangeInvalid {
        /// Size of the value in bytes.
        size: u64,
    },
    /// There is no such record to upload.
    #[error("there is no such record")]
    Absent,
    /// Others changed the object again and again.
    #[error("others keep changing the object")]
    Contended,
    /// The node's own store failed.
    #[error("the store failed")]
    Store(#[source] Arc<zimcache_store::Error>),
    /// A setting cannot be right.
    #[error("setting {setting}: {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        problem: Box<str>,
    },
    /// The tier is stopping.
    #[error("the durable tier is stopping")]
    Stopping,
}

impl Error {
    /// What kind of failure this is.
    pub fn code(&self) -> Code {
        match self {
            Error::Unreachable { .. } | Error::NoBucket | Error::Contended | Error::Stopping => {
                Code::Unavailable
            }
            Error::Refused { .. } => Code::Unavailable,
            Error::Corrupt(_) => Code::Corrupt,
            Error::RangeInvalid { .. } => Code::RangeInvalid,
            Error::Absent => Code::NotFound,
            Error::Store(error) => error.code(),
            Error::Setting { .. } => Code::Invalid,
        }
    }
}

impl From<zimcache_store::Error> for Error {
    fn from(error: zimcache_store::Error) -> Error {
        match error {
            zimcache_store::Error::RangeInvalid { size } => Error::RangeInvalid { size },
            error => Error::Store(Arc::new(error)),
        }
    }
}
