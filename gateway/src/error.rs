//! Why the gateway refused or could not do something, with the [`Code`] that says what the caller should do.
//!
//! Not here: HTTP statuses (`status`). The texts are fit for clients: they name the rule that was broken, never a path
//! or an inner state of ours.

use std::time::Duration;

use zimcache_store as store;
use zimcache_types::{Code, digest::DigestError, namespace::NamespaceError};

/// Result of a gateway operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal or failure of the gateway.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The key is no hash.
    #[error(transparent)]
    Hash(#[from] DigestError),
    /// The body's hash is not the one in its name, under any function that has hashes of that length.
    #[error("the body does not have the hash in its name")]
    WrongHash,
    /// The key is not one of this dialect.
    #[error("malformed key: {0}")]
    Key(&'static str),
    /// The instance name is no namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The body is no action result that may be stored.
    #[error("the body is not an acceptable action result: {0}")]
    ActionResult(&'static str),
    /// The body is no action result in JSON.
    #[error("the body is not an action result in JSON: {0}")]
    ActionJson(#[from] zimcache_proto::json::ReadError),
    /// The body is no artifact that may be stored.
    #[error("the body is not an acceptable artifact: {0}")]
    Artifact(&'static str),
    /// The request's parameters do not parse.
    #[error("the request does not parse: {0}")]
    Request(&'static str),
    /// The body is larger than accepted.
    #[error("the body has more than the {limit} bytes accepted")]
    TooLarge {
        /// Limit in bytes.
        limit: u64,
    },
    /// The body ended before its announced length, or broke the transfer encoding.
    #[error("the body ended early or is malformed")]
    BodyCut,
    /// The body paused for too long.
    #[error("the body paused for too long")]
    BodyTimeout,
    /// The caller, or everybody together, asked too often.
    #[error("too many requests")]
    RateLimited {
        /// When the next one will pass.
        retry_after: Duration,
    },
    /// The caller's credentials are wrong, or missing where some are needed.
    #[error("valid credentials are needed")]
    Unauthenticated,
    /// The URL is none that we signed for this, or no longer holds.
    #[error("the URL is not signed for this, or has expired")]
    BadSignature,
    /// The caller may not do this.
    #[error("these credentials do not allow {0}")]
    Forbidden(&'static str),
    /// Only listed namespaces exist, and this is none of them.
    #[error("there is no such namespace")]
    NoNamespace,
    /// The operation is for callers on this machine only.
    #[error("only callers on this machine may do this")]
    RemoteCaller,
}

impl Error {
    /// What kind of failure this is.
    pub const fn code(&self) -> Code {
        match self {
            Error::Store(error) => error.code(),
            Error::Hash(_)
            | Error::WrongHash
            | Error::Key(_)
            | Error::Namespace(_)
            | Error::ActionResult(_)
            | Error::Artifact(_)
            | Error::ActionJson(_)
            | Error::Request(_)
            | Error::BodyCut => Code::Invalid,
            Error::TooLarge { .. } => Code::TooLarge,
            Error::BodyTimeout => Code::Timeout,
            Error::RateLimited { .. } => Code::RateLimited,
            Error::Unauthenticated => Code::Unauthenticated,
            Error::RemoteCaller
            | Error::Forbidden(_)
            | Error::BadSignature
            | Error::NoNamespace => Code::Forbidden,
        }
    }
}
