//! Why a file of tokens or users cannot be used or changed.

use std::{fmt, io, path::PathBuf};

use zimcache_types::Code;

/// Result of working with a file of tokens or users.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal or failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file's text cannot be used.
    #[error("{} cannot be used:\n{problems}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Problems,
    },
    /// The file is larger than any such file should be.
    #[error("{} has more than the {limit} bytes that are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// No token has this id.
    #[error("no token has the id {id:?}; {}", known_ids(.known))]
    UnknownToken {
        /// What was asked for.
        id: String,
        /// The ids there are.
        known: Vec<String>,
    },
    /// The note does not fit a line of the file.
    #[error("a note is one line of at most {limit} characters, without control characters")]
    Note {
        /// The limit in characters.
        limit: usize,
    },
    /// The end of the lifetime cannot be written down.
    #[error("a token that expires so late never does; leave the lifetime out")]
    TooLong,
    /// The lifetime is none.
    #[error("a token has to live longer than no time at all")]
    NoLifetime,
    /// The secret of a fixed token cannot be sent by a client.
    #[error(
        "the secret of a fixed token is 1 to {limit} printable ASCII characters without blanks"
    )]
    FixedSecret {
        /// The limit in bytes.
        limit: usize,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness(#[source] getrandom::Error),
}

impl Error {
    /// What kind of failure this is.
    pub fn code(&self) -> Code {
        match self {
            Error::Unusable { .. }
            | Error::TooLarge { .. }
            | Error::Note { .. }
            | Error::TooLong
            | Error::NoLifetime
            | Error::FixedSecret { .. } => Code::Invalid,
            Error::UnknownToken { .. } => Code::NotFound,
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::OutOfSpace,
                _ => Code::Unavailable,
            },
            Error::NoRandomness(_) => Code::Unavailable,
        }
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}

fn known_ids(known: &[String]) -> String {
    if known.is_empty() {
        return "there are no tokens".to_owned();
    }
    format!("there are: {}", known.join(", "))
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// The token or user it is about, where that is known.
    pub name: Option<String>,
    /// What is wrong, with what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// Everything that is wrong with a file, in the order of its lines. Never empty inside an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// What the caller should do: mend the file.
    pub const fn code(&self) -> Code {
        Code::Invalid
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
