//! The tokens of a cache: records of hashes in one file that people can read, and what can be done with them.
//!
//! The text form is `token_text`'s. Every change goes through [`TokenFile::update`]: one writer at a time, and a
//! reader sees the old file or the new one. Who loses a secret rotates; nothing here can bring it back.

use std::{path::Path, time::Duration};

use zimcache_types::{Clock, Timestamp};

use crate::{
    Grant, NamespacePattern, Scope,
    error::{Error, Problems, Result},
    replace,
    time::{later, to_second},
    token::{Token, TokenHash, TokenId},
    token_text,
};

/// Longest note, in characters.
pub(crate) const NOTE_LIMIT: usize = 200;
/// Longest secret of a fixed token, in bytes: what fits an `Authorization` value.
const FIXED_LIMIT_BYTES: usize = 1024;

/// What a new token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// What it may do, and where.
    pub grant: Grant,
    /// How long it lives; `None` for ever.
    pub lifetime: Option<Duration>,
    /// What people should know about it, one line.
    pub note: String,
}

/// The hash that a rotation replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// The old hash.
    pub hash: TokenHash,
    /// It is valid until then.
    pub until: Timestamp,
}

/// One token of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its name.
    pub id: TokenId,
    /// The hash of its secret.
    pub hash: TokenHash,
    /// The namespaces it may use.
    pub namespace: NamespacePattern,
    /// What it may do there.
    pub scope: Scope,
    /// When its secret was made.
    pub created: Timestamp,
    /// When it stops being valid.
    pub expires: Option<Timestamp>,
    /// What people should know about it.
    pub note: String,
    /// The secret before the last rotation, while it has its time of grace.
    pub previous: Option<Previous>,
}

impl TokenRecord {
    /// Whether it is no longer valid.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// What it allows.
    pub fn grant(&self) -> Grant {
        Grant {
            namespace: self.namespace.clone(),
            scope: self.scope,
        }
    }
}

/// All tokens of a cache, in the order in which they were created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenFile(Vec<TokenRecord>);

impl TokenFile {
    /// Reads the text form.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub fn parse(text: &str) -> Result<TokenFile, Problems> {
        token_text::read(text).map(TokenFile)
    }

    /// The text form. The same tokens give the same text.
    pub fn to_text(&self) -> String {
        token_text::write(&self.0)
    }

    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn load(path: &Path) -> Result<Option<TokenFile>> {
        let Some(text) = replace::read(path)? else {
            return Ok(None);
        };
        let unusable = |problems| Error::Unusable {
            path: path.to_owned(),
            problems,
        };
        TokenFile::parse(&text).map(Some).map_err(unusable)
    }

    /// Changes the file, which is made if it is not there. It stays as it is when the change fails.
    ///
    /// # Errors
    /// Those of the change, and when the file cannot be read, used or written.
    pub fn update<T>(path: &Path, change: impl FnOnce(&mut TokenFile) -> Result<T>) -> Result<T> {
        let place = replace::Place::lock(path)?;
        let mut file = TokenFile::load(path)?.unwrap_or_default();
        let result = change(&mut file)?;
        place.replace(&file.to_text())?;
        Ok(result)
    }

    /// Every token.
    pub fn list(&self) -> &[TokenRecord] {
        &self.0
    }

    /// Adds a token. The secret is in no other place than the answer.
    ///
    /// # Errors
    /// When the note or the lifetime cannot be written down, or there is no randomness.
    pub fn create(&mut self, spec: TokenSpec, clock: &dyn Clock) -> Result<(Token, TokenRecord)> {
        if !is_note(&spec.note) {
            return Err(Error::Note { limit: NOTE_LIMIT });
        }
        let created = to_second(clock.now());
        let expires = spec.lifetime.map(|lifetime| expiry(created, lifetime));
        let id = self.unused_id()?;
        let token = Token::generate(&id)?;
        let record = TokenRecord {
            id,
            hash: token.hash(),
            namespace: spec.grant.namespace,
            scope: spec.grant.scope,
            created,
            expires: expires.transpose()?,
            note: spec.note,
            previous: None,
        };
        self.0.push(record.clone());
        Ok((token, record))
    }

    /// Takes a token away; its secrets are refused from then on.
    ///
    /// # Errors
    /// When there is none with this id.
    pub fn revoke(&mut self, id: &str) -> Result<TokenRecord> {
        let position = self.position(id)?;
        Ok(self.0.remove(position))
    }

    /// Gives a token a new secret and its whole lifetime again. The secret that it had is valid for the time of
    /// grace, but no longer than it would have been; one that was in its time of grace already is not valid any more.
    ///
    /// # Errors
    /// When there is none with this id, the times cannot be written down, or there is no randomness.
    pub fn rotate(
        &mut self,
        id: &str,
        grace: Duration,
        clock: &dyn Clock,
    ) -> Result<(Token, TokenRecord)> {
        let position = self.position(id)?;
        let now = clock.now();
        let record = &self.0[position];
        let until = later(now, grace).ok_or(Error::TooLong)?;
        let until = record.expires.map_or(until, |expires| expires.min(until));
        let hash = record.hash;
        let created = to_second(now);
        let lifetime = record.expires.map(|expires| expires.since(record.created));
        let expires = lifetime.map(|lifetime| expiry(created, lifetime));
        let token = Token::generate(&record.id)?;
        let rotated = TokenRecord {
            hash: token.hash(),
            created,
            expires: expires.transpose()?,
            previous: (until > now).then_some(Previous { hash, until }),
            ..record.clone()
        };
        self.0[position] = rotated.clone();
        Ok((token, rotated))
    }

    fn position(&self, id: &str) -> Result<usize> {
        let found = self.0.iter().position(|record| record.id.as_str() == id);
        found.ok_or_else(|| Error::UnknownToken {
            id: id.to_owned(),
            known: self.0.iter().map(|record| record.id.to_string()).collect(),
        })
    }

    /// Ids have 40 random bits: the second draw is as good as never needed.
    fn unused_id(&self) -> Result<TokenId> {
        loop {
            let id = TokenId::generate()?;
            if self.0.iter().all(|record| record.id != id) {
                return Ok(id);
            }
        }
    }
}

/// Whether a note fits its line of the file.
pub(crate) fn is_note(text: &str) -> bool {
    text.chars().count() <= NOTE_LIMIT && !text.contains(char::is_control)
}

fn expiry(created: Timestamp, lifetime: Duration) -> Result<Timestamp> {
    if lifetime < Duration::from_millis(1) {
        return Err(Error::NoLifetime);
    }
    later(created, lifetime).ok_or(Error::TooLong)
}

/// A single token whose secret comes from elsewhere, such as a variable of a container. Only its hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedToken {
    pub(crate) hash: TokenHash,
    pub(crate) grant: Grant,
}

impl FixedToken {
    /// The name of its principal.
    pub const NAME: &'static str = "fixed";

    /// The token with this secret.
    ///
    /// # Errors
    /// When the secret is empty, too long, or has characters that a client cannot send.
    pub fn new(secret: &str, grant: Grant) -> Result<FixedToken> {
        let sendable = secret.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=FIXED_LIMIT_BYTES).contains(&secret.len()) || !sendable {
            let limit = FIXED_LIMIT_BYTES;
            return Err(Error::FixedSecret { limit });
        }
        let hash = TokenHash::of(secret.as_bytes());
        Ok(FixedToken { hash, grant })
    }
}

#[cfg(test)]
mod tests {
    use zimcache_types::ManualClock;

    use super::*;
    use crate::Scope;

    const DAY: Duration = Duration::from_hours(24);
    /// 2026-11-21T08:00:00Z and a bit.
    const START: Timestamp = Timestamp(1_795_248_000_123);

    fn spec(lifetime: Option<Duration>) -> TokenSpec {
        TokenSpec {
            grant: Grant {
                namespace: "team/*".parse().unwrap(),
                scope: Scope::Write,
            },
            lifetime,
            note: "the build".to_owned(),
        }
    }

    /// A file with one token of this lifetime, and its id.
    fn file_of_one(lifetime: Option<Duration>) -> (TokenFile, Token, String) {
        let mut file = TokenFile::default();
        let (token, record) = file
            .create(spec(lifetime), &ManualClock::new(START))
            .unwrap();
        (file, token, record.id.to_string())
    }

    #[test]
    fn a_new_token_is_what_was_asked_for_and_only_its_hash_is_kept() {
        let (file, token, id) = file_of_one(Some(90 * DAY));
        let [record] = file.list() else {
            panic!("{file:?}")
        };
        assert!(token.expose().starts_with(&format!("zim_{id}_")));
        assert_eq!(record.hash, TokenHash::of(token.expose().as_bytes()));
        assert_eq!(record.grant(), spec(None).grant);
        assert_eq!(record.created, Timestamp(1_795_248_000_000));
        assert_eq!(record.expires, Some(record.created.plus(90 * DAY)));
        assert_eq!((&*record.note, record.previous), ("the build", None));
        let secret = token.expose().rsplit('_').next().unwrap();
        for text in [file.to_text(), format!("{file:?}")] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn a_token_expires_at_the_end_of_its_lifetime() {
        let (file, ..) = file_of_one(Some(DAY));
        let record = &file.list()[0];
        let end = record.created.plus(DAY);
        assert!(!record.is_expired(Timestamp(end.0 - 1)));
        assert!(record.is_expired(end));
        let (file, ..) = file_of_one(None);
        assert!(!file.list()[0].is_expired(Timestamp(u64::MAX)));
    }

    #[test]
    fn what_cannot_be_written_down_is_refused() {
        let mut file = TokenFile::default();
        let clock = ManualClock::new(START);
        let mut create = |spec| file.create(spec, &clock).unwrap_err().to_string();
        assert!(create(spec(Some(Duration::ZERO))).contains("no time"));
        assert!(create(spec(Some(Duration::MAX))).contains("leave the lifetime out"));
        for note in ["two\nlines", "a\u{7f}", &"x".repeat(201)] {
            let note = note.to_owned();
            let told = create(TokenSpec { note, ..spec(None) });
            assert!(told.contains("one line"), "{told}");
        }
        assert!(file.list().is_empty());
    }

    #[test]
    fn a_revoked_token_is_gone_and_the_others_stay_in_order() {
        let mut file = TokenFile::default();
        let clock = ManualClock::new(START);
        let ids = [0; 3].map(|_| file.create(spec(None), &clock).unwrap().1.id);
        let revoked = file.revoke(ids[1].as_str()).unwrap();
        assert_eq!(revoked.id, ids[1]);
        let left: Vec<_> = file.list().iter().map(|record| &record.id).collect();
        assert_eq!(left, [&ids[0], &ids[2]]);
    }

    #[test]
    fn an_unknown_id_is_told_with_those_there_are() {
        let (mut file, _, id) = file_of_one(None);
        let clock = ManualClock::new(START);
        let errors = [
            file.revoke("nope").unwrap_err(),
            file.rotate("nope", DAY, &clock).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), zimcache_types::Code::NotFound);
            assert!(error.to_string().contains(&id), "{error}");
        }
        let told = TokenFile::default().revoke("nope").unwrap_err();
        assert!(told.to_string().contains("there are no tokens"), "{told}");
    }

    #[test]
    fn rotation_gives_a_new_secret_and_lifetime_and_keeps_the_rest() {
        let (mut file, old, id) = file_of_one(Some(90 * DAY));
        let before = file.list()[0].clone();
        let clock = ManualClock::new(START.plus(30 * DAY));
        let hour = Duration::from_hours(1);
        let (new, record) = file.rotate(&id, hour, &clock).unwrap();
        assert_eq!(file.list(), std::slice::from_ref(&record));
        assert_ne!(new, old);
        assert_eq!(record.hash, new.hash());
        assert_eq!(record.expires, Some(record.created.plus(90 * DAY)));
        let until = clock.now().plus(hour);
        let hash = old.hash();
        assert_eq!(record.previous, Some(Previous { hash, until }));
        assert_eq!((&record.id, record.grant()), (&before.id, before.grant()));
        assert_eq!(record.note, before.note);
    }

    #[test]
    fn grace_ends_with_the_old_expiry_and_none_keeps_no_old_secret() {
        let (mut file, _, id) = file_of_one(Some(DAY));
        let expires = file.list()[0].expires.unwrap();
        let clock = ManualClock::new(START);
        file.rotate(&id, 7 * DAY, &clock).unwrap();
        assert_eq!(file.list()[0].previous.unwrap().until, expires);
        file.rotate(&id, Duration::ZERO, &clock).unwrap();
        assert_eq!(file.list()[0].previous, None);
        clock.advance(2 * DAY);
        let (_, revived) = file.rotate(&id, DAY, &clock).unwrap();
        assert_eq!(revived.previous, None);
        assert!(!revived.is_expired(clock.now()));
    }

    #[test]
    fn a_fixed_secret_has_to_be_something_a_client_can_send() {
        let grant = spec(None).grant;
        let fixed = FixedToken::new("hunter2", grant.clone()).unwrap();
        assert_eq!(fixed.hash, TokenHash::of(b"hunter2"));
        for bad in ["", "a b", "ä", "a\n", &"x".repeat(1025)] {
            assert!(FixedToken::new(bad, grant.clone()).is_err(), "{bad}");
        }
    }
}
