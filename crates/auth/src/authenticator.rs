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
    htpasswd::{Htpasswd, WrongPassword},
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
    Malformed(Malformed),
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
            Some(Ok(principal)) => Outcome::Known(principal),
            Some(Err(WrongPassword)) => Outcome::Refused(Refusal::Unknown),
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
            .map_err(|WrongPassword| Refusal::Unknown)
    }
}

impl fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordCheck(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use zimcache_types::{Clock as _, ManualClock, Namespace};

    use super::*;
    use crate::{Token, TokenSpec};

    const HOUR: Duration = Duration::from_hours(1);
    const START: Timestamp = Timestamp(1_795_248_000_000);
    /// `ada` with the password `swordfish`.
    const USERS: &str = "ada:$2y$04$u7TIhmJnJU2YXbp1471zLOE/vDpru6TousbhIYx/J5U7pn/Pd3fI.";

    fn grant(namespace: &str, scope: Scope) -> Grant {
        let namespace = namespace.parse().unwrap();
        Grant { namespace, scope }
    }

    /// A file with one token for writing in `team`, its secret and its id.
    fn tokens(lifetime: Option<Duration>) -> (TokenFile, Token, String) {
        let mut file = TokenFile::default();
        let spec = TokenSpec {
            grant: grant("team", Scope::Write),
            lifetime,
            note: String::new(),
        };
        let made = file.create(spec, &ManualClock::new(START));
        let (token, record) = made.unwrap();
        (file, token, record.id.to_string())
    }

    fn knows_tokens(file: TokenFile) -> Authenticator {
        Authenticator::new(Sources {
            tokens: Some(file),
            ..Sources::default()
        })
    }

    fn knows_users(anonymous: Anonymous) -> Authenticator {
        let users = Htpasswd::read(USERS, Path::new("users"), &grant("*", Scope::Write));
        Authenticator::new(Sources {
            htpasswd: Some(users.unwrap()),
            anonymous,
            ..Sources::default()
        })
    }

    fn bearer(secret: &str) -> String {
        format!("Bearer {secret}")
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    fn check(authenticator: &Authenticator, value: &str) -> Result<Principal, Refusal> {
        check_at(authenticator, value, START)
    }

    /// The answer, after bcrypt where it has to be asked.
    fn check_at(
        authenticator: &Authenticator,
        value: &str,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        match authenticator.check(Some(value.as_bytes()), now) {
            Outcome::Known(principal) => Ok(principal),
            Outcome::Slow(check) => check.run(),
            Outcome::Refused(refusal) => Err(refusal),
        }
    }

    fn without(authenticator: &Authenticator) -> Principal {
        match authenticator.check(None, START) {
            Outcome::Known(principal) => principal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_known_as_bearer_as_password_and_as_user() {
        let (file, token, id) = tokens(None);
        let authenticator = knows_tokens(file);
        let secret = token.expose();
        for value in [
            bearer(secret),
            basic("", secret),
            basic("anybody", secret),
            basic(secret, ""),
        ] {
            let principal = check(&authenticator, &value).unwrap();
            assert_eq!(
                (&**principal.name(), principal.identity()),
                (&*id, Identity::Token)
            );
            assert!(principal.may(Scope::Write, &Namespace::new("team").unwrap()));
            assert!(!principal.may(Scope::Read, &Namespace::default()));
            assert!(!principal.allows(Scope::Admin));
        }
    }

    #[test]
    fn a_token_is_found_by_its_hash_only() {
        let (file, token, id) = tokens(None);
        let authenticator = knows_tokens(file.clone());
        let secret = token.expose();
        let other = tokens(None).1;
        let tail = other.expose().rsplit('_').next().unwrap();
        let hash = file.list()[0].hash.to_string();
        for wrong in [
            id.clone(),
            format!("zim_{id}_"),
            format!("zim_{id}_{tail}"),
            secret[..secret.len() - 1].to_owned(),
            format!("{secret}x"),
            secret.to_uppercase(),
            hash.clone(),
            hash.replace("sha256:", ""),
        ] {
            assert_eq!(
                check(&authenticator, &bearer(&wrong)),
                Err(Refusal::Unknown),
                "{wrong}"
            );
        }
        // Where the user holds a token and the password does not, the password is what was meant.
        assert_eq!(
            check(&authenticator, &basic(secret, "x")),
            Err(Refusal::Unknown)
        );
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_refused_from_then_on() {
        let (file, token, _) = tokens(Some(HOUR));
        let authenticator = knows_tokens(file);
        let value = bearer(token.expose());
        let end = START.plus(HOUR);
        assert!(check_at(&authenticator, &value, Timestamp(end.0 - 1)).is_ok());
        assert_eq!(check_at(&authenticator, &value, end), Err(Refusal::Expired));
    }

    #[test]
    fn a_rotated_secret_is_good_for_its_time_of_grace() {
        let (mut file, old, id) = tokens(None);
        let clock = ManualClock::new(START.plus(HOUR));
        let (new, _) = file.rotate(&id, HOUR, &clock).unwrap();
        let authenticator = knows_tokens(file);
        let over = clock.now().plus(HOUR);
        let before = Timestamp(over.0 - 1);
        let check = |token: &Token, now| check_at(&authenticator, &bearer(token.expose()), now);
        assert_eq!(check(&old, before), check(&new, before));
        assert_eq!(check(&old, over), Err(Refusal::Expired));
        assert!(check(&new, over).is_ok());
    }

    #[test]
    fn revoking_the_last_token_opens_nothing() {
        let (mut file, token, id) = tokens(None);
        file.revoke(&id).unwrap();
        let authenticator = knows_tokens(file);
        assert!(authenticator.is_configured());
        let refused = check(&authenticator, &bearer(token.expose()));
        assert_eq!(refused, Err(Refusal::Unknown));
        assert_eq!(without(&authenticator).scope(), None);
    }

    #[test]
    fn while_nothing_is_configured_credentials_mean_nothing() {
        for (anonymous, scope) in [
            (Anonymous::None, None),
            (Anonymous::Read, Some(Scope::Read)),
            (Anonymous::ReadWrite, Some(Scope::Admin)),
        ] {
            let authenticator = Authenticator::new(Sources {
                anonymous,
                ..Sources::default()
            });
            for value in ["Bearer x", "Basic ?", "Digest", "", &"x".repeat(9999)] {
                let principal = check(&authenticator, value).unwrap();
                assert_eq!(principal, without(&authenticator));
                assert_eq!(
                    (principal.identity(), principal.scope()),
                    (Identity::Open, scope)
                );
            }
        }
    }

    #[test]
    fn without_a_credential_the_anonymous_policy_holds() {
        for (anonymous, scope) in [
            (Anonymous::None, None),
            (Anonymous::Read, Some(Scope::Read)),
            (Anonymous::ReadWrite, Some(Scope::Write)),
        ] {
            let authenticator = knows_users(anonymous);
            let nobody = without(&authenticator);
            assert_eq!(
                (nobody.identity(), nobody.scope()),
                (Identity::Anonymous, scope)
            );
            for empty in ["Bearer ", "Basic Og=="] {
                assert_eq!(check(&authenticator, empty), Ok(nobody.clone()));
            }
        }
    }

    #[test]
    fn once_anything_is_configured_a_bad_credential_is_never_anonymous() {
        let authenticator = knows_users(Anonymous::ReadWrite);
        for value in [bearer("x"), basic("ada", "x"), basic("bob", "swordfish")] {
            assert_eq!(
                check(&authenticator, &value),
                Err(Refusal::Unknown),
                "{value}"
            );
        }
        for (value, malformed) in [
            ("Digest x".to_owned(), Malformed::Scheme),
            ("Basic ?".to_owned(), Malformed::Base64),
            ("Basic dQ==".to_owned(), Malformed::NoColon),
            ("Bearer a b".to_owned(), Malformed::Character),
            (bearer(&"x".repeat(4090)), Malformed::TooLong),
        ] {
            let refused = check(&authenticator, &value).unwrap_err();
            assert_eq!(refused, Refusal::Malformed(malformed), "{value}");
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
    }

    #[test]
    fn a_user_is_verified_once_and_then_known_at_once() {
        let authenticator = knows_users(Anonymous::None);
        let value = basic("ada", "swordfish");
        let Outcome::Slow(asked) = authenticator.check(Some(value.as_bytes()), START) else {
            panic!("bcrypt has to be asked first")
        };
        assert_eq!(format!("{asked:?}"), "PasswordCheck(…)");
        let ada = asked.run().unwrap();
        assert_eq!((&**ada.name(), ada.identity()), ("ada", Identity::Htpasswd));
        match authenticator.check(Some(value.as_bytes()), START) {
            Outcome::Known(principal) => assert_eq!(principal, ada),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wrong_password_is_refused_at_once_the_second_time() {
        let authenticator = knows_users(Anonymous::None);
        let value = basic("ada", "guess");
        assert_eq!(check(&authenticator, &value), Err(Refusal::Unknown));
        let again = authenticator.check(Some(value.as_bytes()), START);
        assert!(matches!(again, Outcome::Refused(Refusal::Unknown)));
    }

    #[test]
    fn tokens_go_before_users_and_cost_no_bcrypt() {
        let (file, token, _) = tokens(None);
        let users = Htpasswd::read(USERS, Path::new("users"), &grant("*", Scope::Read));
        let authenticator = Authenticator::new(Sources {
            tokens: Some(file),
            htpasswd: Some(users.unwrap()),
            ..Sources::default()
        });
        let value = basic("ada", token.expose());
        let outcome = authenticator.check(Some(value.as_bytes()), START);
        assert!(matches!(outcome, Outcome::Known(who) if who.identity() == Identity::Token));
        let ada = check(&authenticator, &basic("ada", "swordfish")).unwrap();
        assert_eq!(ada.scope(), Some(Scope::Read));
    }

    #[test]
    fn a_fixed_token_is_known_by_its_secret() {
        let fixed = FixedToken::new("hunter2", grant("*", Scope::Write)).unwrap();
        let authenticator = Authenticator::new(Sources {
            fixed: Some(fixed),
            ..Sources::default()
        });
        let principal = check(&authenticator, "Bearer hunter2").unwrap();
        assert_eq!(&**principal.name(), FixedToken::NAME);
        assert_eq!(
            check(&authenticator, "Bearer hunter3"),
            Err(Refusal::Unknown)
        );
    }

    #[test]
    fn refusals_have_names_of_their_own() {
        let refusals = [
            (Refusal::Malformed(Malformed::Scheme), "malformed"),
            (Refusal::Unknown, "unknown"),
            (Refusal::Expired, "expired"),
        ];
        for (refusal, name) in refusals {
            assert_eq!(refusal.as_str(), name);
            assert_eq!(refusal.code(), Code::Unauthenticated);
        }
    }
}
