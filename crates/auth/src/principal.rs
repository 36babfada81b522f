//! Who a request comes from, once that is decided, and what it may do.

use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};
use zimcache_types::Namespace;

use crate::{NamespacePattern, Scope};

/// Where a principal is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Access is configured, and the caller showed no credential.
    Anonymous,
    /// No access is configured, so credentials mean nothing.
    Open,
    /// It showed a token.
    Token,
    /// It showed the password of an htpasswd user.
    Htpasswd,
}

impl Identity {
    /// Lower-case name, a closed set: safe as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Identity::Anonymous => "anonymous",
            Identity::Open => "open",
            Identity::Token => "token",
            Identity::Htpasswd => "htpasswd",
        }
    }
}

/// What somebody may do, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// In these namespaces.
    pub namespace: NamespacePattern,
    /// With this right.
    pub scope: Scope,
}

/// Somebody with rights. Cheap to clone: one reference count.
#[derive(Clone)]
pub struct Principal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    identity: Identity,
    pattern: NamespacePattern,
    scope: Option<Scope>,
    default_namespace: Namespace,
    limit_key: Option<u64>,
}

impl Principal {
    /// The name of whoever shows no credential.
    pub const ANONYMOUS: &'static str = "anonymous";

    /// Somebody who showed a credential.
    pub(crate) fn known(name: &str, identity: Identity, grant: Grant) -> Principal {
        let limit_key = Some(limit_key(name, identity));
        Principal::new(
            name,
            identity,
            grant.namespace,
            Some(grant.scope),
            limit_key,
        )
    }

    /// Somebody without a credential, who may do this everywhere.
    pub(crate) fn nobody(identity: Identity, scope: Option<Scope>) -> Principal {
        Principal::new(
            Self::ANONYMOUS,
            identity,
            NamespacePattern::All,
            scope,
            None,
        )
    }

    fn new(
        name: &str,
        identity: Identity,
        pattern: NamespacePattern,
        scope: Option<Scope>,
        limit_key: Option<u64>,
    ) -> Principal {
        Principal(Arc::new(Inner {
            name: name.into(),
            identity,
            default_namespace: pattern.default_namespace(),
            pattern,
            scope,
            limit_key,
        }))
    }

    /// Id of the token, name of the user, or `anonymous`.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Where it is known from.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// The namespaces it may use.
    pub fn pattern(&self) -> &NamespacePattern {
        &self.0.pattern
    }

    /// What it may do there; `None` may do nothing.
    pub fn scope(&self) -> Option<Scope> {
        self.0.scope
    }

    /// Whether it may do what needs this right in this namespace.
    pub fn may(&self, asked: Scope, namespace: &Namespace) -> bool {
        self.allows(asked) && self.0.pattern.matches(namespace)
    }

    /// Whether it has this right at all, in whichever namespace.
    pub fn allows(&self, asked: Scope) -> bool {
        self.0.scope.is_some_and(|own| own.includes(asked))
    }

    /// The namespace it means when it names none.
    pub fn default_namespace(&self) -> &Namespace {
        &self.0.default_namespace
    }

    /// What its requests are counted under by a rate limit: the same for every credential of one name, on every
    /// server and after every reload. `None` for callers without a credential, who are told apart by address alone.
    pub fn limit_key(&self) -> Option<u64> {
        self.0.limit_key
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Principal) -> bool {
        let rights = |own: &Inner| (own.pattern.clone(), own.scope);
        self.0.name == other.0.name
            && self.0.identity == other.0.identity
            && rights(&self.0) == rights(&other.0)
    }
}

impl Eq for Principal {}

/// A token and a user of the same name are two.
fn limit_key(name: &str, identity: Identity) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(identity.as_str());
    hasher.update([0]);
    hasher.update(name);
    let hash: [u8; 32] = hasher.finalize().into();
    let (first, _) = hash.split_at(8);
    first
        .iter()
        .fold(0, |key, byte| key << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, identity: Identity, pattern: &str, scope: Scope) -> Principal {
        let namespace = pattern.parse().unwrap();
        Principal::known(name, identity, Grant { namespace, scope })
    }

    fn namespace(name: &str) -> Namespace {
        Namespace::new(name).unwrap()
    }

    #[test]
    fn both_the_scope_and_the_namespace_have_to_fit() {
        let ci = known("ci", Identity::Token, "team-a/*", Scope::Write);
        assert!(ci.may(Scope::Read, &namespace("team-a")));
        assert!(ci.may(Scope::Write, &namespace("team-a/ios")));
        assert!(!ci.may(Scope::Admin, &namespace("team-a")));
        assert!(!ci.may(Scope::Read, &namespace("team-b")));
        assert!(ci.allows(Scope::Write) && !ci.allows(Scope::Admin));
        assert_eq!(ci.default_namespace().as_str(), "team-a");
    }

    #[test]
    fn without_a_scope_nothing_is_allowed() {
        let nobody = Principal::nobody(Identity::Anonymous, None);
        for scope in Scope::ALL {
            assert!(!nobody.may(scope, &Namespace::default()) && !nobody.allows(scope));
        }
        assert_eq!(&**nobody.name(), "anonymous");
    }

    #[test]
    fn limits_count_by_name_and_kind_of_credential() {
        let key = |name, identity| known(name, identity, "*", Scope::Read).limit_key();
        let ci = key("ci", Identity::Token);
        assert_eq!(
            ci,
            known("ci", Identity::Token, "a", Scope::Admin).limit_key()
        );
        assert_ne!(ci, key("ci", Identity::Htpasswd));
        assert_ne!(ci, key("cj", Identity::Token));
        assert!(ci.is_some());
        let nobody = Principal::nobody(Identity::Open, Some(Scope::Admin));
        assert_eq!(nobody.limit_key(), None);
    }

    #[test]
    fn principals_differ_by_their_rights() {
        let ci = known("ci", Identity::Token, "a", Scope::Read);
        assert_eq!(ci, known("ci", Identity::Token, "a", Scope::Read));
        assert_ne!(ci, known("ci", Identity::Token, "a", Scope::Write));
        assert_ne!(ci, known("ci", Identity::Token, "b", Scope::Read));
    }
}
