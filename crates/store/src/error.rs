//! Why a store refused or failed, with the [`Code`] that says what the caller should do.

use zimcache_types::{Code, Function, Hash};

/// Result of a store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A store's refusal or failure. Absence is not an error: look-ups answer `None`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body's hash is not the one it was announced under.
    #[error("body hashes to {actual}, not to {expected}")]
    DigestMismatch {
        /// What the caller said.
        expected: Hash,
        /// What the bytes are.
        actual: Hash,
    },
    /// The body's size is not the one it was announced with.
    #[error("body has {actual} bytes, {expected} were announced")]
    SizeMismatch {
        /// Announced size in bytes.
        expected: u64,
        /// Received size in bytes.
        actual: u64,
    },
    /// What is to be written contradicts itself.
    #[error("not a record: {0}")]
    NotARecord(&'static str),
    /// The body was announced without its size, which the function hashes first.
    #[error("a {0} digest needs the size of its body")]
    SizeNeeded(Function),
    /// The value is larger than the store takes.
    #[error("value has more than the {limit} bytes allowed")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Client metadata is larger than an entry may carry.
    #[error("metadata has {size} bytes, at most {limit} are kept")]
    MetadataTooLarge {
        /// Size in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The range starts behind the end of the value.
    #[error("range starts at or behind the end of a value of {size} bytes")]
    RangeInvalid {
        /// Size of the value in bytes.
        size: u64,
    },
    /// A precondition did not hold.
    #[error("the entry exists already")]
    Conflict,
    /// No room is left: the disk is full or everything on it is pinned.
    #[error("no space: {0}")]
    OutOfSpace(&'static str),
    /// The store takes no more writes until it is restarted (a sync failed twice); reads go on.
    #[error("the store is read-only: {0}")]
    ReadOnly(&'static str),
    /// Stored bytes failed verification and no good copy is left.
    #[error("stored bytes are corrupt: {0}")]
    Corrupt(&'static str),
    /// Something changed meanwhile; the same request will succeed.
    #[error("try again: {0}")]
    Retry(&'static str),
    /// The nodes behind the store refused or failed.
    #[error("{message}")]
    Remote {
        /// What kind of failure it is.
        code: Code,
        /// What happened, for people.
        message: Box<str>,
    },
    /// The store is stopping.
    #[error("the store is stopping")]
    Stopping,
    /// A disk operation failed.
    #[error("disk failure while trying to {action}")]
    Disk {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What kind of failure this is.
    pub const fn code(&self) -> Code {
        match self {
            Error::DigestMismatch { .. }
            | Error::SizeMismatch { .. }
            | Error::NotARecord(_)
            | Error::SizeNeeded(_)
            | Error::MetadataTooLarge { .. } => Code::Invalid,
            Error::TooLarge { .. } => Code::TooLarge,
            Error::RangeInvalid { .. } => Code::RangeInvalid,
            Error::Conflict => Code::Conflict,
            Error::OutOfSpace(_) => Code::OutOfSpace,
            Error::ReadOnly(_) | Error::Retry(_) | Error::Stopping | Error::Disk { .. } => {
                Code::Unavailable
            }
            Error::Corrupt(_) => Code::Corrupt,
            Error::Remote { code, .. } => *code,
        }
    }

    /// A disk failure during `action`; a full disk becomes [`Error::OutOfSpace`].
    pub fn disk(action: &'static str, source: std::io::Error) -> Error {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Error::OutOfSpace("the disk is full")
            }
            _ => Error::Disk { action, source },
        }
    }
}
