//! How many requests are answered: in all, per client address, per token and per kind of request.
//!
//! A request asks from the inside out (its caller, its kind, everybody), so that a caller who is over its own limit
//! takes nothing from others. Where a Redis is configured, all gateways keep to one limit together: `lease` is what this
//! one holds of it, `link` what a decision sees, `rounds` the task that leases, `script` its words with Redis. Not here:
//! buckets (`bucket`), the table of callers (`caller`), how a refusal looks (each dialect's `refuse`). Invariants:
//! nothing waits, for Redis least of all, and nothing is locked for longer than a look into the table; a new policy
//! keeps the buckets.

mod bucket;
mod caller;
mod conduct;
mod lease;
mod link;
mod rounds;
mod script;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use zimcache_config::LimitsConfig;
use zimcache_types::{Clock, SystemClock};

use self::{
    bucket::{Bucket, Pace, Standing},
    caller::{Caller, Key, Layer, Memory, Name},
    link::Link,
};
use crate::{Error, error::Result, metrics::SharedLimits};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What a request is for, as far as limits care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Looks something up in the cache.
    Read,
    /// Stores or deletes something.
    Write,
    /// Anything else: health, figures, collections.
    Page,
}

impl Class {
    /// The class of a request to a dialect.
    pub(crate) fn of(method: &Method) -> Class {
        match *method {
            Method::GET | Method::HEAD => Class::Read,
            Method::PUT | Method::POST | Method::PATCH | Method::DELETE => Class::Write,
            _ => Class::Page,
        }
    }
}

/// The limits in force, and everybody's buckets.
#[derive(Debug)]
pub(crate) struct Limiter {
    global: Option<Pace>,
    per_address: Option<Pace>,
    per_token: Option<Pace>,
    reads: Option<Pace>,
    writes: Option<Pace>,
    pages: Option<Pace>,
    reputation: bool,
    memory: Arc<Memory>,
    /// Absent: this server counts for itself.
    link: Option<Arc<Link>>,
}

impl Limiter {
    /// The limits of these settings with the buckets of the limits before; `None` when there are no limits. `figures`
    /// are asked for when limits are shared: then call it on a runtime.
    pub(crate) fn new(
        config: &LimitsConfig,
        before: Option<&Limiter>,
        figures: impl FnOnce() -> SharedLimits,
    ) -> Option<Limiter> {
        if !config.any() {
            return None;
        }
        let kept = before.map(|limiter| &limiter.memory);
        let memory = kept
            .filter(|memory| memory.most == config.max_callers)
            .cloned()
            .unwrap_or_else(|| {
                let before = kept.map(AsRef::as_ref);
                Arc::new(Memory::new(config.max_callers, before))
            });
        let link = config.redis.as_ref().map(|url| {
            let link = before.and_then(|limiter| limiter.link.as_ref());
            let same = link.filter(|link| link.url() == url).cloned();
            same.unwrap_or_else(|| {
                let begin = (memory.started, memory.most);
                Arc::new(Link::start(url, begin, figures()))
            })
        });
        Some(Limiter {
            global: config.global.map(Pace::from),
            per_address: config.per_address.map(Pace::from),
            per_token: config.per_token.map(Pace::from),
            reads: config.reads.map(Pace::from),
            writes: config.writes.map(Pace::from),
            pages: config.pages.map(Pace::from),
            reputation: config.reputation,
            memory,
            link,
        })
    }

    /// A request of this address begins.
    pub(crate) fn meet(&self, address: Option<IpAddr>, at: Instant) -> Admission<'_> {
        let now = at.saturating_duration_since(self.memory.started);
        let key = Key::of(address);
        Admission {
            limiter: self,
            key,
            caller: self.memory.caller(key),
            token: OnceLock::new(),
            now: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            tightest: Mutex::default(),
        }
    }

    fn of_class(&self, class: Class) -> Option<Pace> {
        match class {
            Class::Read => self.reads,
            Class::Write => self.writes,
            Class::Page => self.pages,
        }
    }
}

/// A request on its way past the limits.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    limiter: &'a Limiter,
    key: Key,
    caller: Arc<Caller>,
    token: OnceLock<Arc<Caller>>,
    now: u64,
    tightest: Mutex<Option<Standing>>,
}

impl Admission<'_> {
    /// Passes the limits of the address, of this kind of request and of everybody.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub(crate) fn pass(&self, class: Class) -> Result<()> {
        let limiter = self.limiter;
        let (own, of_class) = (limiter.per_address, limiter.of_class(class));
        self.take(self.key, &self.caller, Layer::All, own)?;
        self.take(self.key, &self.caller, Layer::Of(class), of_class)?;
        let Some(pace) = limiter.global else {
            return Ok(());
        };
        self.judge(Name::Everybody, &limiter.memory.everybody, pace)
    }

    /// Passes the limit of a token, once it is known.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub(crate) fn pass_token(&self, key: u64) -> Result<()> {
        if self.limiter.per_token.is_none() {
            return Ok(());
        }
        let key = Key::Token(key);
        let caller = self.limiter.memory.caller(key);
        let caller = self.token.get_or_init(|| caller);
        self.take(key, caller, Layer::All, self.limiter.per_token)
    }

    fn share(&self, caller: &Caller) -> f64 {
        if self.limiter.reputation {
            caller.conduct.share(self.now)
        } else {
            1.0
        }
    }

    fn take(&self, key: Key, caller: &Caller, layer: Layer, pace: Option<Pace>) -> Result<()> {
        let Some(pace) = pace else {
            return Ok(());
        };
        let share = self.share(caller);
        let pace = if share < 1.0 {
            pace.slowed_to(share)
        } else {
            pace
        };
        self.judge(Name::Caller(key, layer), caller.bucket(layer), pace)
    }

    fn judge(&self, name: Name, bucket: &Bucket, pace: Pace) -> Result<()> {
        let now = self.limiter.memory.time_of(self.now);
        let standing = match &self.limiter.link {
            Some(link) => link.take(name, bucket, pace, now),
            None => bucket.take(pace, now),
        };
        let mut tightest = self.tightest.lock();
        if tightest.is_none_or(|other| {
            standing.remaining < other.remaining || standing.refused_for.is_some()
        }) {
            *tightest = Some(standing);
        }
        match standing.refused_for {
            None => Ok(()),
            Some(nanos) => Err(Error::RateLimited {
                retry_after: Duration::from_nanos(nanos),
            }),
        }
    }

    /// Remembers how the request ended, and tells the caller how it stands with the tightest limit.
    pub(crate) fn answered(&self, status: StatusCode, denied: bool, headers: &mut HeaderMap) {
        let Some(standing) = *self.tightest.lock() else {
            return;
        };
        // A refusal of ours is no fault of the caller's.
        if self.limiter.reputation && standing.refused_for.is_none() {
            let failed = denied || conduct::is_failure(status);
            for caller in [Some(&self.caller), self.token.get()].into_iter().flatten() {
                caller.conduct.count(failed, self.now);
            }
        }
        standing.tell(headers);
    }
}

impl Standing {
    fn tell(&self, headers: &mut HeaderMap) {
        let full_in = whole_seconds(Duration::from_nanos(self.full_in));
        let full_at = SystemClock.now().0 / 1_000 + full_in;
        headers.reserve(6);
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(full_in));
        headers.insert(X_LIMIT, HeaderValue::from(self.limit));
        headers.insert(X_REMAINING, HeaderValue::from(self.remaining));
        headers.insert(X_RESET, HeaderValue::from(full_at));
    }
}

/// How long to wait, as a `Retry-After`.
pub(crate) fn tell_to_wait(headers: &mut HeaderMap, wait: Duration) {
    let seconds = whole_seconds(wait).max(1);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
}

/// Rounded up: who comes back after this time is not refused again.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
