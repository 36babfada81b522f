//! What a principal may do, as three steps that contain one another.

use std::{fmt, str::FromStr};

/// A right. The order is that of power: who may write may read, who may administer may do both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Look things up.
    Read,
    /// Look things up and store them.
    Write,
    /// Also delete, purge and look after the store.
    Admin,
}

/// Why a scope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope; accepted: read, write, admin")]
pub struct ScopeError(String);

impl Scope {
    /// Every scope, weakest first.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Write, Scope::Admin];

    /// The name, as in files and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Admin => "admin",
        }
    }

    /// Whether who has this scope may do what needs `asked`.
    pub fn includes(self, asked: Scope) -> bool {
        self >= asked
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Scope, ScopeError> {
        let named = |scope: &Scope| scope.as_str() == text;
        let found = Scope::ALL.into_iter().find(named);
        found.ok_or_else(|| ScopeError(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stronger_scope_includes_every_weaker_one_and_no_other() {
        for (power, scope) in Scope::ALL.into_iter().enumerate() {
            for (needed, asked) in Scope::ALL.into_iter().enumerate() {
                assert_eq!(scope.includes(asked), power >= needed, "{scope} {asked}");
            }
        }
    }

    #[test]
    fn names_read_back_and_others_are_refused_with_the_choice() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for bad in ["", "Read", "owner", "read "] {
            let told = bad.parse::<Scope>().unwrap_err().to_string();
            assert!(told.contains("read, write, admin"), "{told}");
        }
    }
}
