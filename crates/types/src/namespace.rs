//! A namespace: a tenant's room. Rights, quota, durability class and trust rules belong to it.

use std::{fmt, sync::Arc};

/// A validated namespace name: 1–128 characters of `A–Z a–z 0–9 . _ - /`, no empty, `.` or `..` segment.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

/// Why a namespace name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "namespace must be 1-128 characters of A-Z a-z 0-9 . _ - and /, without empty, '.' or '..' segments"
)]
pub struct NamespaceError;

impl Namespace {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 128;
    /// The name used where the client gives none.
    pub const DEFAULT: &'static str = "default";

    /// Validates a name.
    ///
    /// # Errors
    /// [`NamespaceError`] when it is empty, too long or has a character or segment that is not allowed.
    pub fn new(name: &str) -> Result<Namespace, NamespaceError> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || b"._-/".contains(&c);
        let segments_fine = name
            .split('/')
            .all(|s| !s.is_empty() && s != "." && s != "..");
        if name.len() > Self::MAX_LEN || !segments_fine || !name.bytes().all(legal) {
            return Err(NamespaceError);
        }
        Ok(Namespace(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Namespace(Self::DEFAULT.into())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_are_refused() {
        for bad in [
            "",
            "/",
            "a//b",
            "/a",
            "a/",
            ".",
            "a/../b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(129),
        ] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
        for good in ["default", "team-1/ios", "a.b_c", &"x".repeat(128)] {
            assert_eq!(Namespace::new(good).unwrap().as_str(), good);
        }
    }
}
