//! Servers with one secret, and requests that show it.

use zimcache_auth::{
    Anonymous, Authenticator, FixedToken, Grant, NamespacePattern, Scope, Sources,
};
use zimcache_gateway::Policy;

/// What the secret is.
pub(crate) const SECRET: &str = "swordfish";

/// Rules with one secret that gives this right everywhere, and what callers without it may do.
pub(crate) fn one_secret(scope: Scope, anonymous: Anonymous) -> Policy {
    let grant = Grant {
        namespace: NamespacePattern::All,
        scope,
    };
    Policy {
        authenticator: Authenticator::new(Sources {
            fixed: Some(FixedToken::new(SECRET, grant).unwrap()),
            anonymous,
            ..Sources::default()
        }),
        ..Policy::default()
    }
}

/// The same request with a token in its header.
pub(crate) fn with_token(request: impl AsRef<[u8]>, token: &str) -> Vec<u8> {
    let request = request.as_ref();
    let line_end = request.iter().position(|c| *c == b'\n').unwrap() + 1;
    let header = format!("Authorization: Bearer {token}\r\n");
    [
        &request[..line_end],
        header.as_bytes(),
        &request[line_end..],
    ]
    .concat()
}
