//! Why a ring document cannot be used.

use std::{fmt, io, path::PathBuf};

use zimcache_types::Code;

/// Result of reading a ring document.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A document that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no JSON, or has other fields than a ring document.
    #[error("the text is no ring document")]
    Syntax(#[source] serde_json::Error),
    /// The fields contradict each other or the rules.
    #[error("the ring document cannot be used: {0}")]
    Invalid(Problems),
    /// The file is larger than any ring document should be.
    #[error("{} has more than the {limit} bytes that are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The operating system refuses.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What kind of failure this is.
    pub fn code(&self) -> Code {
        match self {
            Error::Syntax(_) | Error::Invalid(_) | Error::TooLarge { .. } => Code::Invalid,
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::NotFound,
            Error::Io { .. } => Code::Unavailable,
        }
    }
}

/// Which placement of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The one that writes count in.
    Current,
    /// The one before it, while it is open.
    Previous,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Which::Current => "current",
            Which::Previous => "previous",
        })
    }
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The epoch is 0 or beyond what every JSON reader keeps exact.
    #[error("the epoch is {epoch}; it is a number from 1 to {max}")]
    Epoch {
        /// What it says.
        epoch: u64,
        /// The largest.
        max: u64,
    },
    /// The hash has a name that this version does not know.
    #[error("the hash {name:?} is not known; this version knows {known:?}")]
    UnknownHash {
        /// What it says.
        name: String,
        /// The one there is.
        known: &'static str,
    },
    /// No copies, or more than a list of owners holds.
    #[error("replicas is {replicas}; it is a number from 1 to {max}")]
    Replicas {
        /// What it says.
        replicas: u32,
        /// The most.
        max: u32,
    },
    /// A generation of nothing.
    #[error("generations has {name:?}, which is no namespace")]
    Namespace {
        /// What it says.
        name: String,
    },
    /// A placement has nobody in it.
    #[error("{which} has no members")]
    NoMembers {
        /// Which one.
        which: Which,
    },
    /// A placement has more in it than a table holds.
    #[error(
        "{which} has {members} members of total weight {weight}; at most {most_members} members of total weight {most_weight} fit"
    )]
    TooLarge {
        /// Which one.
        which: Which,
        /// Its members.
        members: usize,
        /// Their weights together.
        weight: u64,
        /// The most members.
        most_members: usize,
        /// The most weight.
        most_weight: u64,
    },
    /// The id cannot be one.
    #[error(
        "{which} has the member id {id:?}; an id is 1 to {max} characters of a-z A-Z 0-9 . _ and -"
    )]
    Id {
        /// Where.
        which: Which,
        /// What it says.
        id: String,
        /// The longest.
        max: usize,
    },
    /// The zone cannot be one.
    #[error(
        "member {id} has the zone {zone:?}; a zone is at most {max} characters of a-z A-Z 0-9 . _ and -"
    )]
    Zone {
        /// Whose.
        id: String,
        /// What it says.
        zone: String,
        /// The longest.
        max: usize,
    },
    /// The weight cannot be one.
    #[error(
        "member {id} has the weight {weight}; a weight is a number from 1 to {max}, 100 is the standard"
    )]
    Weight {
        /// Whose.
        id: String,
        /// What it says.
        weight: u32,
        /// The largest.
        max: u32,
    },
    /// The address cannot be connected to.
    #[error(
        "member {id} has the address {address:?}; an address is http:// or https://, a host and a port, and no path"
    )]
    Address {
        /// Whose.
        id: String,
        /// What it says.
        address: String,
    },
    /// Two members of one placement have one id.
    #[error("{which} has two members of the id {id}")]
    DuplicateId {
        /// Where.
        which: Which,
        /// The id.
        id: String,
    },
    /// Two members have one address.
    #[error("members {one} and {other} have the same address {address}")]
    SharedAddress {
        /// The first of them.
        one: String,
        /// The second.
        other: String,
        /// Their address.
        address: String,
    },
    /// A member says one thing in one placement and another in the other.
    #[error("member {id} has two {what} in the two placements")]
    TwoFaces {
        /// Who.
        id: String,
        /// States or addresses.
        what: &'static str,
    },
    /// The state fits only the other placement.
    #[error("member {id} is {state} in {which}, where nobody can be that")]
    Misplaced {
        /// Who.
        id: String,
        /// Its state.
        state: &'static str,
        /// Where.
        which: Which,
    },
    /// The epochs of publication are out of order.
    #[error(
        "the published epochs are out of order: previous before current, neither after epoch {epoch}"
    )]
    Published {
        /// The document's epoch.
        epoch: u64,
    },
}

/// Everything that is wrong with a document. Never empty inside an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
