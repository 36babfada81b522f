//! The kinds of failure, named by what the caller should do next.
//!
//! Each boundary has its own error type with a `code()`; transports map codes in one file each
//! (`gateway/src/status.rs` for HTTP, `crates/proto` for gRPC). A new code deserves an ADR.

/// What kind of failure happened, independent of any transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The thing is not there.
    NotFound,
    /// The request can never succeed as it is: malformed key, wrong digest, unparsable value.
    Invalid,
    /// The thing exists or changed meanwhile, and the caller asked not to overwrite it.
    Conflict,
    /// No or unknown credentials.
    Unauthenticated,
    /// Known caller, insufficient rights.
    Forbidden,
    /// Larger than the configured limit.
    TooLarge,
    /// The asked byte range lies outside the value.
    RangeInvalid,
    /// No room: disk full, or everything on it is pinned.
    OutOfSpace,
    /// Slow down; retry later.
    RateLimited,
    /// Cannot be decided or done now; retry.
    Unavailable,
    /// The peer was too slow.
    Timeout,
    /// Stored bytes failed verification and no good copy is left.
    Corrupt,
    /// A defect of ours.
    Internal,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 13] = [
        Code::NotFound,
        Code::Invalid,
        Code::Conflict,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::TooLarge,
        Code::RangeInvalid,
        Code::OutOfSpace,
        Code::RateLimited,
        Code::Unavailable,
        Code::Timeout,
        Code::Corrupt,
        Code::Internal,
    ];

    /// The inverse of [`Code::as_str`].
    pub fn from_name(name: &str) -> Option<Code> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// Lower-case name, a closed set: safe as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::NotFound => "not_found",
            Code::Invalid => "invalid",
            Code::Conflict => "conflict",
            Code::Unauthenticated => "unauthenticated",
            Code::Forbidden => "forbidden",
            Code::TooLarge => "too_large",
            Code::RangeInvalid => "range_invalid",
            Code::OutOfSpace => "out_of_space",
            Code::RateLimited => "rate_limited",
            Code::Unavailable => "unavailable",
            Code::Timeout => "timeout",
            Code::Corrupt => "corrupt",
            Code::Internal => "internal",
        }
    }
}
