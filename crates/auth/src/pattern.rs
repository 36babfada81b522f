//! Which namespaces a principal may use: one, one with everything below it, or all.
//!
//! Not a glob: a `*` stands alone or at the end after a `/`, so that what a pattern covers is seen at a glance.

use std::{fmt, str::FromStr};

use zimcache_types::Namespace;

/// A pattern of namespaces: `team-a`, `team-a/*` (it and its children) or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamespacePattern {
    /// This one alone.
    Exact(Namespace),
    /// This one and everything below it.
    Tree(Namespace),
    /// All of them.
    All,
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of namespaces; write a namespace such as team-a, team-a/* for it and all below it, or *"
)]
pub struct PatternError(String);

impl NamespacePattern {
    /// Whether the namespace is covered.
    pub fn matches(&self, namespace: &Namespace) -> bool {
        match self {
            NamespacePattern::Exact(own) => own == namespace,
            NamespacePattern::Tree(root) => namespace
                .as_str()
                .strip_prefix(root.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            NamespacePattern::All => true,
        }
    }

    /// The namespace meant where a client names none: the pattern's own, or `default` of all.
    pub fn default_namespace(&self) -> Namespace {
        match self {
            NamespacePattern::Exact(own) | NamespacePattern::Tree(own) => own.clone(),
            NamespacePattern::All => Namespace::default(),
        }
    }
}

impl FromStr for NamespacePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<NamespacePattern, PatternError> {
        let refused = |_| PatternError(text.to_owned());
        if text == "*" {
            return Ok(NamespacePattern::All);
        }
        match text.strip_suffix("/*") {
            Some(root) => Namespace::new(root)
                .map(NamespacePattern::Tree)
                .map_err(refused),
            None => Namespace::new(text)
                .map(NamespacePattern::Exact)
                .map_err(refused),
        }
    }
}

impl fmt::Display for NamespacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamespacePattern::Exact(own) => own.fmt(f),
            NamespacePattern::Tree(root) => write!(f, "{root}/*"),
            NamespacePattern::All => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn pattern(text: &str) -> NamespacePattern {
        text.parse().unwrap()
    }

    fn covers(text: &str, namespace: &str) -> bool {
        pattern(text).matches(&Namespace::new(namespace).unwrap())
    }

    #[test]
    fn a_name_covers_itself_alone() {
        assert!(covers("team-a", "team-a"));
        for other in ["team-b", "team-a/ios", "team", "team-a2", "Team-a"] {
            assert!(!covers("team-a", other), "{other}");
        }
    }

    #[test]
    fn a_tree_covers_its_root_and_what_is_below_but_no_neighbour() {
        for below in ["team-a", "team-a/ios", "team-a/ios/main"] {
            assert!(covers("team-a/*", below), "{below}");
        }
        for other in ["team-a2", "team", "x/team-a", "team-a2/ios"] {
            assert!(!covers("team-a/*", other), "{other}");
        }
        assert!(covers("*", "anything/at/all"));
    }

    #[test]
    fn the_default_namespace_is_the_patterns_own() {
        for (text, own) in [("a/b", "a/b"), ("a/b/*", "a/b"), ("*", "default")] {
            let default = pattern(text).default_namespace();
            assert_eq!(default.as_str(), own);
            assert!(pattern(text).matches(&default), "{text}");
        }
    }

    #[test]
    fn a_star_anywhere_else_is_refused() {
        for bad in [
            "", "/*", "**", "a*", "*/a", "a/*/b", "a/**", "a//*", "../*", "a b",
        ] {
            let told = bad.parse::<NamespacePattern>().unwrap_err().to_string();
            assert!(told.contains("team-a/*"), "{bad}: {told}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_reads_back_as_written(text in r"[A-Za-z0-9_-]{1,9}(/[a-z0-9]{1,5}){0,3}(/\*)?") {
            let pattern = pattern(&text);
            prop_assert_eq!(pattern.to_string(), text);
            prop_assert!(pattern.matches(&pattern.default_namespace()));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,150}") {
            if let Ok(pattern) = text.parse::<NamespacePattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
