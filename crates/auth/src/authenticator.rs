//! The decision: whom a credential shows, or why it is refused.
//!
//! Immutable: whoever reloads a file makes a new one and swaps it. A token costs one SHA-256 and one look-up, and
//! allocates nothing; a password that has to be verified is handed back as a [`PasswordCheck`] for a thread that may
//! block.
//!
//! Invariants: while nothing is configured, credentials mean nothing and everybody is the same. Once anything is, a
//! credential is known or refused; only its absence is anonymous. A file of tokens that is there counts as configured
//! even when its last token was revoked: taking a right away never gives rights to all.

use std::{collections::HashMap, fmt, sync::Arc};

use zimcache_types::{Code, Timestamp};

use crate::{
    Grant, Scope,
    credentials::{Buffer, Credentials, Malformed},
    htpasswd::Htpasswd,
    principal::{Identity, Principal},
    token::TokenHash,
    token_file::{FixedToken, TokenFile, TokenRecord},
};

/// What callers without a credential may do, in every namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Anonymous {
    /// Nothing.
    #[default]
    None,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl Anonymous {
    /// The rights where access is configured; where it is not, whoever may write may do everything, because nobody
    /// else could.
    fn scope(self, identity: Identity) -> Option<Scope> {
        match self {
            Anonymous::None => None,
            Anonymous::Read => Some(Scope::Read),
            Anonymous::ReadWrite if identity == Identity::Open => Some(Scope::Admin),
            Anonymous::ReadWrite => Some(Scope::Write),
        }
    }
}

/// Everything that an authenticator knows credentials from.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file of tokens; `None` when there is no such file.
    pub tokens: Option<TokenFile>,
    /// The file of users; `None` when there is no such file.
    pub htpasswd: Option<Htpasswd>,
    /// A token given by configuration.
    pub fixed: Option<FixedToken>,
    /// What callers without a credential may do.
    pub anonymous: Anonymous,
}

/// Knows whom each credential shows.
pub struct Authenticator {
    tokens: HashMap<TokenHash, Known>,
    htpasswd: Option<Arc<Htpasswd>>,
    nobody: Principal,
}

/// The principal of a hash, and until when.
struct Known {
    principal: Principal,
    until: Option<Timestamp>,
}

/// What a credential came to.
#[derive(Debug)]
pub enum Outcome {
    /// It shows this principal, or there was none and this is what callers without one are.
    Known(Principal),
    /// A password has to be verified, by a thread that may block.
    Slow(PasswordCheck),
    /// It is refused.
    Refused(Refusal),
}

/// Why a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("the credential cannot be read: {0}")]
    Malformed(#[source] Malformed),
    /// No token, or no user with this password, is known. Which of these is not told.
    #[error("the credential is not known")]
    Unknown,
    /// The token was good once. Only who holds it learns that.
    #[error("the token has expired")]
    Expired,
}

impl Refusal {
    /// What kind of failure this is.
    pub const fn code(&self) -> Code {
        match self {
            Refusal::Malformed(_) | Refusal::Unknown | Refusal::Expired => Code::Unauthenticated,
        }
    }

    /// Lower-case name, a closed set: safe as a metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed",
            Refusal::Unknown => "unknown",
            Refusal::Expired => "expired",
        }
    }
}

impl Authenticator {
    /// One that knows what these sources say.
    pub fn new(sources: Sources) -> Authenticator {
        let configured =
            sources.tokens.is_some() || sources.htpasswd.is_some() || sources.fixed.is_some();
        let identity = if configured {
            Identity::Anonymous
        } else {
            Identity::Open
        };
        let mut tokens = HashMap::new();
        for record in sources.tokens.iter().flat_map(TokenFile::list) {
            tokens.extend(hashes(record));
        }
        if let Some(FixedToken { hash, grant }) = sources.fixed {
            tokens.insert(hash, Known::of(FixedToken::NAME, grant, None));
        }
        Authenticator {
            tokens,
            htpasswd: sources.htpasswd.map(Arc::new),
            nobody: Principal::nobody(identity, sources.anonymous.scope(identity)),
        }
    }

    /// Whether anything is configured, so that credentials are looked at.
    pub fn is_configured(&self) -> bool {
        self.nobody.identity() != Identity::Open
    }

    /// What callers without a credential are.
    pub fn nobody(&self) -> &Principal {
        &self.nobody
    }

    /// Judges the value of an `Authorization` header.
    pub fn check(&self, authorization: Option<&[u8]>, now: Timestamp) -> Outcome {
        let Some(value) = authorization.filter(|_| self.is_configured()) else {
            return Outcome::Known(self.nobody.clone());
        };
        let mut buffer = Buffer::new();
        match Credentials::read(value, &mut buffer) {
            Ok(credentials) => self.judge(credentials, now),
            Err(malformed) => Outcome::Refused(Refusal::Malformed(malformed)),
        }
    }

    /// Judges credentials that were read already.
    pub fn judge(&self, credentials: Credentials<'_>, now: Timestamp) -> Outcome {
        if !self.is_configured() {
            return Outcome::Known(self.nobody.clone());
        }
        match credentials {
            Credentials::Empty => Outcome::Known(self.nobody.clone()),
            Credentials::Bearer(token) => self
                .token(token, now)
                .unwrap_or(Outcome::Refused(Refusal::Unknown)),
            Credentials::Basic { user, password } => {
                let token = if password.is_empty() { user } else { password };
                self.token(token, now)
                    .unwrap_or_else(|| self.password(user, password, now))
            }
        }
    }

    /// `None` when it is no token.
    fn token(&self, secret: &[u8], now: Timestamp) -> Option<Outcome> {
        let known = self.tokens.get(&TokenHash::of(secret))?;
        let expired = known.until.is_some_and(|until| now >= until);
        Some(if expired {
            Outcome::Refused(Refusal::Expired)
        } else {
            Outcome::Known(known.principal.clone())
        })
    }

    fn password(&self, user: &[u8], password: &[u8], now: Timestamp) -> Outcome {
        let Some(htpasswd) = &self.htpasswd else {
            return Outcome::Refused(Refusal::Unknown);
        };
        match htpasswd.remembered(user, password, now) {
            Some(Some(principal)) => Outcome::Known(principal),
            Some(None) => Outcome::Refused(Refusal::Unknown),
            None => Outcome::Slow(PasswordCheck {
                htpasswd: Arc::clone(htpasswd),
                user: user.into(),
                password: password.into(),
                now,
            }),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("tokens", &self.tokens.len())
            .field("htpasswd", &self.htpasswd)
            .field("nobody", &self.nobody)
            .finish()
    }
}

impl Known {
    fn of(name: &str, grant: Grant, until: Option<Timestamp>) -> Known {
        let principal = Principal::known(name, Identity::Token, grant);
        Known { principal, until }
    }
}

/// The hash of a token, and the one before it.
fn hashes(record: &TokenRecord) -> impl Iterator<Item = (TokenHash, Known)> {
    let known = |until| Known::of(record.id.as_str(), record.grant(), until);
    let own = (record.hash, known(record.expires));
    let previous = record.previous.as_ref();
    let previous = previous.map(|previous| (previous.hash, known(Some(previous.until))));
    [own].into_iter().chain(previous)
}

/// A password to verify. `Debug` does not show it.
pub struct PasswordCheck {
    htpasswd: Arc<Htpasswd>,
    user: Box<[u8]>,
    password: Box<[u8]>,
    now: Timestamp,
}

impl PasswordCheck {
    /// Verifies it, which takes tens to hundreds of milliseconds of a core.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] when the user is not known or the password is wrong.
    pub fn run(self) -> Result<Principal, Refusal> {
        self.htpasswd
            .verify(&self.user, &self.password, self.now)
            .ok_or(Refusal::Unknown)
    }
}

impl fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordCheck(…)")
    }
}
