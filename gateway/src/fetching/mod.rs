//! Fetching from elsewhere on behalf of a client of the Remote Asset API, where the operator allows it.
//!
//! `target` takes a URL apart, `connect` and `guard` decide what is connected to, `download` asks and follows redirects,
//! `intake` streams the body into the store, `checksum` says what it has to be. Callers that want the same at the same
//! time share one download. Not here: whether a client may ask, and what it is told (`protocol::reapi::asset`).
//! Invariants: nothing is fetched that the allow-list does not cover; downloads at once, downloads that wait, and what
//! each holds in memory are bounded. Cancellation: a download goes on when its callers have gone away, and ends with its
//! time.

mod checksum;
mod connect;
mod download;
mod guard;
mod intake;
mod target;

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};
use zimcache_telemetry::task;
use zimcache_types::{Clock, Code, Digest, Function, Namespace, SystemClock};

pub(crate) use self::{
    checksum::{Checksums, Sums},
    download::may_be_sent,
    target::Target,
};
use self::{
    connect::{Connector, System},
    download::Download,
};
use crate::{
    Error,
    assets::{Asset, Name},
    cache::Cache,
    policy::Policy,
    status,
};

/// Downloads at once: each holds up to 1 MiB and a connection.
const AT_ONCE: usize = 16;
/// Downloads that run or wait for their turn.
const MOST_UNDER_WAY: usize = 256;

/// What is to be fetched. Callers that want the same share a download.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) namespace: Namespace,
    /// Under which function the blob is to be named.
    pub(crate) function: Function,
    pub(crate) uri: String,
    /// Headers of the client, for the URL's own server.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) checksums: Option<Checksums>,
    /// The asset that it will be known as.
    pub(crate) remember_as: Option<Name>,
}

/// Why nothing was fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It is not covered, or a redirect leads to where it is not.
    #[error("this server does not fetch from there")]
    NotAllowed,
    /// Its host is at an address that may not be connected to.
    #[error("this server does not connect to that address")]
    ForbiddenAddress,
    /// Too much is being fetched already.
    #[error("too much is being fetched; try again")]
    Busy,
    /// Its time is over.
    #[error("fetching took too long")]
    Timeout,
    /// Its server cannot be connected to.
    #[error("the origin cannot be reached")]
    Unreachable,
    /// Its server stopped to answer.
    #[error("the origin does not answer")]
    Silent,
    /// The connection ended in the middle.
    #[error("the origin broke off")]
    BrokenOff,
    /// Too many redirects, or one that leads nowhere.
    #[error("the origin redirects without an end, or to nowhere")]
    BadRedirect,
    /// Its server refused.
    #[error("the origin answered {0}")]
    Status(StatusCode),
    /// Its server sent it in a coding that was not asked for.
    #[error("the origin sent a coding that was not asked for")]
    Encoded,
    /// It is not what the client said it would be.
    #[error("what the origin has does not match the checksum")]
    WrongChecksum,
    /// The function has to know the size, and its server did not tell it.
    #[error("the origin does not tell the size, which the digest function needs")]
    NoSize,
    /// It cannot be stored.
    #[error("{text}")]
    Store {
        /// What kind of failure it is.
        code: Code,
        /// For people.
        text: String,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = error.code();
        status::log(&error, code);
        let text = status::message(&error).trim_end().to_owned();
        Failure::Store { code, text }
    }
}

type Outcome = Result<Digest, Failure>;

/// Downloads of a gateway.
#[derive(Debug)]
pub(crate) struct Fetching {
    cache: Arc<Cache>,
    connector: Connector,
    turns: Semaphore,
    under_way: Mutex<HashMap<Wanted, watch::Receiver<Option<Outcome>>>>,
}

impl Fetching {
    pub(crate) fn new(cache: Arc<Cache>) -> Fetching {
        Fetching::through(Connector::new(System), cache)
    }

    fn through(connector: Connector, cache: Arc<Cache>) -> Fetching {
        Fetching {
            cache,
            connector,
            turns: Semaphore::new(AT_ONCE),
            under_way: Mutex::default(),
        }
    }

    /// Fetches into the store, or waits for a download of the same. The blob is leased.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        wanted: &Wanted,
        policy: &Arc<Policy>,
        time: Duration,
    ) -> Outcome {
        let deadline = Instant::now() + time;
        loop {
            let (mut promise, own) = self.join(wanted, policy, deadline)?;
            let waited = timeout_at(deadline, promise.wait_for(Option::is_some)).await;
            let outcome = match waited {
                Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Failure::BrokenOff)),
                Ok(Err(_)) => Err(Failure::BrokenOff),
                Err(_) => return Err(Failure::Timeout),
            };
            // Somebody else's time was shorter than this caller's.
            if own || outcome != Err(Failure::Timeout) {
                return outcome;
            }
        }
    }

    /// The download of this, and whether it was begun here.
    fn join(
        self: &Arc<Self>,
        wanted: &Wanted,
        policy: &Arc<Policy>,
        deadline: Instant,
    ) -> Result<(watch::Receiver<Option<Outcome>>, bool), Failure> {
        let mut under_way = self.under_way.lock();
        if let Some(promise) = under_way.get(wanted) {
            return Ok((promise.clone(), false));
        }
        if under_way.len() >= MOST_UNDER_WAY {
            return Err(Failure::Busy);
        }
        let (sender, promise) = watch::channel(None);
        under_way.insert(wanted.clone(), promise.clone());
        let download = UnderWay {
            fetching: Arc::clone(self),
            wanted: wanted.clone(),
        };
        let policy = Arc::clone(policy);
        task::spawn("fetch", async move {
            let outcome = download.run(&policy, deadline).await;
            drop(download);
            sender.send_replace(Some(outcome));
        });
        Ok((promise, true))
    }

    async fn download(&self, wanted: &Wanted, policy: &Policy) -> Outcome {
        let target = Target::parse(&wanted.uri).ok_or(Failure::NotAllowed)?;
        let since = SystemClock.now();
        let (rules, headers) = (&policy.assets, &wanted.headers);
        let begun = Download::begin(&self.connector, rules, &target, headers).await;
        let digest = intake::store(&self.cache, wanted, begun?).await?;
        if let Some(name) = &wanted.remember_as {
            let asset = Asset {
                digest,
                blobs: Vec::new(),
                directories: Vec::new(),
                since,
                expires: None,
            };
            let names = std::slice::from_ref(name);
            let remembered = self.cache.remember_asset(&wanted.namespace, names, &asset);
            remembered.await?;
        }
        Ok(digest)
    }
}

/// A download that runs or waits for its turn; it is nobody's to join once this is gone.
#[derive(Debug)]
struct UnderWay {
    fetching: Arc<Fetching>,
    wanted: Wanted,
}

impl UnderWay {
    async fn run(&self, policy: &Policy, deadline: Instant) -> Outcome {
        let fetching = &self.fetching;
        let download = async {
            let _turn = fetching.turns.acquire().await;
            Box::pin(fetching.download(&self.wanted, policy)).await
        };
        let ended = timeout_at(deadline, download).await;
        ended.unwrap_or(Err(Failure::Timeout))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.fetching.under_way.lock().remove(&self.wanted);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::SocketAddr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::future::BoxFuture;
    use zimcache_config::AssetsConfig;
    use zimcache_store::memory::MemoryStore;
    use zimcache_types::ByteSize;

    use super::{connect::Resolve, *};

    /// Never finds anything, and counts who asks at once.
    #[derive(Debug, Clone, Default)]
    struct Endless {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Resolve for Endless {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let asking = self.clone();
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            Box::pin(async move {
                let _asking = asking;
                std::future::pending().await
            })
        }
    }

    fn wanted(number: usize) -> Wanted {
        Wanted {
            namespace: Namespace::default(),
            function: Function::Sha256,
            uri: format!("http://origin.test/{number}"),
            headers: Vec::new(),
            checksums: None,
            remember_as: None,
        }
    }

    #[tokio::test]
    async fn downloads_at_once_and_downloads_that_wait_are_bounded() {
        let store = Arc::new(MemoryStore::default());
        let cache = Arc::new(Cache::new(store.clone(), store, ByteSize::mib(1)));
        let asked = Endless::default();
        let most = Arc::clone(&asked.most);
        let fetching = Fetching::through(Connector::new(asked), cache);
        let fetching = Arc::new(fetching);
        let policy = Arc::new(Policy {
            assets: AssetsConfig {
                fetch_from: vec!["http://origin.test/".parse().unwrap()],
                ..AssetsConfig::default()
            },
            ..Policy::default()
        });
        let time = Duration::from_millis(500);
        let fetch = async |number| fetching.fetch(&wanted(number), &policy, time).await;
        // One more than may be under way; the same again takes no place.
        let all = (0..MOST_UNDER_WAY).chain([0, MOST_UNDER_WAY]);
        let ended = futures_util::future::join_all(all.map(fetch)).await;
        let busy = ended.iter().filter(|end| **end == Err(Failure::Busy));
        assert_eq!(busy.count(), 1);
        let late = ended.iter().filter(|end| **end == Err(Failure::Timeout));
        assert_eq!(late.count(), MOST_UNDER_WAY + 1);
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        // A waiter is told before its download has left its place.
        while !fetching.under_way.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
