//! A request, as a dialect sees it: what came, from whom, about which namespace.
//!
//! A dialect asks for a [`Room`] before it looks at keys or bodies, and acts through it; that is where the caller is
//! authenticated, so a request that needs no room (health, a preflight) needs no credentials. Not here: rights
//! (`room`), paths (`protocol`).

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, StatusCode, header, request::Parts};
use zimcache_auth::{Buffer, Credentials, Outcome, Principal, Refusal, Scope};
use zimcache_store::ByteRange;
use zimcache_telemetry::task;
use zimcache_types::{Clock, Namespace, SystemClock};

use crate::{
    Error, Shared,
    body::Upload,
    error::Result,
    limits::{Admission, Class},
    metrics::Verb,
    policy::Policy,
    request,
    room::Room,
    watch::Peer,
};

/// What was learnt about a request on the way, for its record.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Where it read or wrote.
    pub(crate) namespace: OnceLock<Namespace>,
    /// Who sent it.
    pub(crate) principal: OnceLock<Principal>,
    /// Its credentials were refused, whatever the dialect made of it.
    pub(crate) denied: AtomicBool,
    /// As what a remote procedure call counts: over HTTP, all of them are POST and 200.
    pub(crate) rpc: OnceLock<Counted>,
}

/// As what a request counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) verb: Verb,
    pub(crate) status: StatusCode,
}

/// A request, as a dialect sees it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) policy: &'a Arc<Policy>,
    pub(crate) peer: Peer,
    pub(crate) head: &'a Parts,
    /// The namespace in front of the path, as `/ns/{namespace}/…`.
    pub(crate) prefix: Option<&'a Namespace>,
    /// The limits it has to pass, where there are any.
    pub(crate) admission: Option<&'a Admission<'a>>,
    pub(crate) noted: &'a Noted,
    pub(crate) upload: &'a mut Upload,
}

impl<'a> Call<'a> {
    /// Passes the limits for requests of this kind.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub(crate) fn pass(&self, class: Class) -> Result<()> {
        self.admission.map_or(Ok(()), |limits| limits.pass(class))
    }

    /// The caller in the namespace it means: the one in front of the path, else its own default.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::NoNamespace`].
    pub(crate) async fn room(&self) -> Result<Room<'a>> {
        self.room_of(None).await
    }

    /// The caller in the namespace in front of the path, else in the one that the dialect found in the request, else
    /// in the caller's default.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::NoNamespace`].
    pub(crate) async fn room_of(&self, named: Option<Namespace>) -> Result<Room<'a>> {
        let principal = self.principal().await?;
        let namespace = match (self.prefix, named) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(named)) => named,
            (None, None) => principal.default_namespace().clone(),
        };
        self.note(&namespace)?;
        Ok(Room::new(&self.shared.cache, principal, namespace))
    }

    /// The bearer of a URL that we signed, in the namespace that it was signed for.
    ///
    /// # Errors
    /// [`Error::NoNamespace`].
    pub(crate) fn signed_room(&self, scope: Scope, namespace: Namespace) -> Result<Room<'a>> {
        self.note(&namespace)?;
        Ok(Room::signed(&self.shared.cache, scope, namespace))
    }

    fn note(&self, namespace: &Namespace) -> Result<()> {
        if !self.policy.has(namespace) {
            return Err(Error::NoNamespace);
        }
        self.noted.namespace.get_or_init(|| namespace.clone());
        Ok(())
    }

    /// Who is calling.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the credentials are wrong, or missing where some are needed;
    /// [`Error::RateLimited`] when they were used too often.
    pub(crate) async fn principal(&self) -> Result<Principal> {
        if let Some(known) = self.noted.principal.get() {
            return Ok(known.clone());
        }
        let checked = self.authenticate().await;
        let principal =
            checked.inspect_err(|_| self.noted.denied.store(true, Ordering::Relaxed))?;
        if let (Some(limits), Some(key)) = (self.admission, principal.limit_key()) {
            limits.pass_token(key)?;
        }
        self.noted.principal.get_or_init(|| principal.clone());
        Ok(principal)
    }

    async fn authenticate(&self) -> Result<Principal> {
        let principal = match self.judged() {
            Outcome::Known(principal) => principal,
            Outcome::Refused(_) => return Err(Error::Unauthenticated),
            Outcome::Slow(check) => {
                let _turn = self.shared.password_checks.acquire().await;
                let checked = task::spawn_blocking("password", move || check.run()).await;
                checked
                    .map_err(|_| Error::Unauthenticated)?
                    .map_err(|_| Error::Unauthenticated)?
            }
        };
        if principal.scope().is_none() {
            return Err(Error::Unauthenticated);
        }
        Ok(principal)
    }

    /// What the header says, else the user part of the authority, which is where Bazel puts the one of its URL.
    fn judged(&self) -> Outcome {
        let (known, now) = (&self.policy.authenticator, SystemClock.now());
        let shown = self.head.headers.get(header::AUTHORIZATION);
        let authority = self.head.uri.authority().filter(|_| shown.is_none());
        if let Some(authority) = authority.filter(|authority| authority.as_str().contains('@')) {
            let mut buffer = Buffer::new();
            match Credentials::read_authority(authority.as_str().as_bytes(), &mut buffer) {
                Ok(Some(credentials)) => return known.judge(credentials, now),
                Ok(None) => {}
                Err(malformed) => return Outcome::Refused(Refusal::Malformed(malformed)),
            }
        }
        known.check(shown.map(http::HeaderValue::as_bytes), now)
    }

    /// Which bytes are wanted; only a GET can ask for less than all.
    pub(crate) fn range(&self) -> ByteRange {
        if self.head.method == Method::GET {
            request::range_of(&self.head.headers)
        } else {
            ByteRange::Full
        }
    }

    pub(crate) fn asks_for_range(&self) -> bool {
        self.range() != ByteRange::Full
    }
}
