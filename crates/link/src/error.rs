//! Why a node did not do what it was asked to.

use zimcache_types::Code;

/// Result of a call to a node.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A node's refusal or failure, or that of the way to it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The node could not be reached, or did not answer in time. Whether it did anything is not known.
    #[error("node {node} cannot be reached: {why}")]
    Unreachable {
        /// Its name or address.
        node: Box<str>,
        /// What happened, for people.
        why: Box<str>,
    },
    /// The caller's ring is too old for this request.
    #[error("the node follows a newer ring")]
    StaleRing {
        /// The node's ring, a document in JSON.
        ring: bytes::Bytes,
    },
    /// The node has answered with a failure.
    #[error("{message}")]
    Refused {
        /// What kind of failure it is.
        code: Code,
        /// What the node said.
        message: Box<str>,
    },
}

impl Error {
    /// What kind of failure this is.
    pub const fn code(&self) -> Code {
        match self {
            Error::Unreachable { .. } | Error::StaleRing { .. } => Code::Unavailable,
            Error::Refused { code, .. } => *code,
        }
    }

    /// Whether another node may do better: the fault is with this node or the way to it, not with the request.
    pub const fn is_of_the_node(&self) -> bool {
        matches!(
            self.code(),
            Code::Unavailable | Code::OutOfSpace | Code::Corrupt | Code::RateLimited
        )
    }
}

impl From<zimcache_store::Error> for Error {
    fn from(error: zimcache_store::Error) -> Error {
        Error::Refused {
            code: error.code(),
            message: error.to_string().into(),
        }
    }
}
