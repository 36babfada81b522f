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
