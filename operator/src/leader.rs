//! Who of several operators works: a Lease, a pure decision about it, and a loop that ends the process when in doubt.
//!
//! Invariants: whoever holds the Lease renews it or is gone before another may take it (`renew_deadline` is below
//! `duration`); a lease is taken only after it was seen unchanged for its whole duration on the own monotonic clock, for
//! the times that others wrote into it may be wrong; every write names the version that was read, so that a conflict is
//! a lost race and nothing is overwritten. A leader that was held up (a stopped process, a partition) may have sent a
//! last write before it noticed: what must never be written twice, the ring document, is written with a version too.
//! Needs `get`, `create` and `update` of Leases. Not here: what the leader does.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout_at};
use zimcache_types::Clock;

use crate::server::Health;

/// How a Lease is held.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who asks for it: the name of the pod and something random, for a restarted container is somebody else.
    pub identity: String,
    /// After how much silence others may take it.
    pub duration: Duration,
    /// After how much failing its holder ends itself. Below `duration`.
    pub renew_deadline: Duration,
    /// Between two attempts.
    pub retry: Duration,
}

impl Settings {
    /// The usual times: 15 s, 10 s and 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Settings {
        Settings {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What is known of a Lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    holder: String,
    duration: Duration,
    /// Changes with every write.
    version: Option<String>,
    /// When this version was first seen here.
    since: Instant,
}

impl Seen {
    /// What is known after looking at it again.
    pub fn look(before: Option<&Seen>, lease: &Lease, now: Instant) -> Seen {
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let unchanged = before.filter(|before| before.version == version);
        let seconds = spec.lease_duration_seconds.unwrap_or(0);
        Seen {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            since: unchanged.map_or(now, |before| before.since),
            version,
        }
    }
}

/// What to do about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nobody holds it any more: take it.
    Acquire,
    /// It is held here: say so again.
    Renew,
    /// Somebody else holds it, at least until then if he says nothing more.
    Wait(Instant),
}

/// What `me` has to do about the Lease, or about there being none.
pub fn decide(lease: Option<&Seen>, me: &str, now: Instant) -> Decision {
    let Some(lease) = lease else {
        return Decision::Acquire;
    };
    if lease.holder == me {
        return Decision::Renew;
    }
    let until = lease.since + lease.duration;
    if lease.holder.is_empty() || now >= until {
        return Decision::Acquire;
    }
    Decision::Wait(until)
}

/// What came out of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// The Lease is held here.
    Held,
    /// Somebody else was quicker with a write.
    Raced,
    /// Somebody else holds it.
    Taken,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Slow,
}

/// How being the leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was given back.
    Released,
    /// It could not be renewed in time, or somebody else has it. The process must end at once.
    Lost,
}

/// A candidate. One at a time looks at the Lease.
#[derive(Debug)]
pub struct Elector {
    leases: Api<Lease>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    health: Health,
    /// The Lease as it was last read or written, for the next write.
    lease: Option<Lease>,
    seen: Option<Seen>,
}

/// A client that says at once when the API server refuses: a retry inside the client would hide a missed deadline.
///
/// # Errors
/// When the configuration cannot be used.
pub fn client_without_retries(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    Client::try_from(config)
}

impl Elector {
    /// A candidate that beats the pulse of `health` in every round. The client should be one without retries.
    pub fn new(
        client: Client,
        settings: Settings,
        clock: Arc<dyn Clock>,
        health: Health,
    ) -> Elector {
        Elector {
            leases: Api::namespaced(client, &settings.namespace),
            settings,
            clock,
            health,
            lease: None,
            seen: None,
        }
    }

    /// Waits until it is the leader, for as long as it takes.
    pub async fn acquire(&mut self) {
        loop {
            let deadline = Instant::now() + self.settings.renew_deadline;
            match self.round(deadline).await {
                Ok(Round::Held) => {
                    tracing::info!(identity = %self.settings.identity, "this operator leads");
                    self.health.set_leader(true);
                    return;
                }
                Ok(Round::Raced | Round::Taken) => {}
                // A standby keeps trying: it does no harm, and the API server may come back.
                Err(error) => tracing::warn!(%error, "the lease could not be looked at"),
            }
            self.health.beat();
            sleep(self.settings.retry).await;
        }
    }

    /// Holds on to the Lease until `stop` ends, and gives it back then; or until it is lost.
    pub async fn keep(mut self, stop: impl Future<Output = ()>) -> Ended {
        tokio::pin!(stop);
        let mut renewed = Instant::now();
        loop {
            let deadline = renewed + self.settings.renew_deadline;
            tokio::select! {
                () = &mut stop => {
                    self.release().await;
                    return Ended::Released;
                }
                () = sleep(self.settings.retry) => {}
            }
            let began = Instant::now();
            if began >= deadline {
                return self.lost("the time to renew it has passed");
            }
            match self.round(deadline).await {
                // Counted from before the write, for that is the earliest time at which others may have seen it.
                Ok(Round::Held) => renewed = began,
                // Somebody wrote in between; the next look tells whether it was a person or another operator.
                Ok(Round::Raced) => tracing::info!("the lease was written by somebody else"),
                Ok(Round::Taken) => return self.lost("somebody else holds it"),
                Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            }
            self.health.beat();
        }
    }

    fn lost(&self, why: &str) -> Ended {
        self.health.set_leader(false);
        tracing::error!(why, "the lease is lost");
        Ended::Lost
    }

    /// Looks at the Lease and does what has to be done about it.
    async fn round(&mut self, deadline: Instant) -> Result<Round, Error> {
        let work = self.look_and_act();
        timeout_at(deadline, work).await.unwrap_or(Err(Error::Slow))
    }

    async fn look_and_act(&mut self) -> Result<Round, Error> {
        self.lease = self.leases.get_opt(&self.settings.name).await?;
        let now = Instant::now();
        let lease = self.lease.as_ref();
        self.seen = lease.map(|lease| Seen::look(self.seen.as_ref(), lease, now));
        let me = &self.settings.identity;
        if let Decision::Wait(_) = decide(self.seen.as_ref(), me, now) {
            return Ok(Round::Taken);
        }
        match self.write(me, self.settings.duration).await {
            Ok(_) => Ok(Round::Held),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Round::Raced)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it back, so that a successor need not wait. Failing only makes him wait.
    async fn release(&mut self) {
        self.health.set_leader(false);
        let soon = Instant::now() + self.settings.retry;
        let given_back = timeout_at(soon, async {
            self.lease = self.leases.get_opt(&self.settings.name).await?;
            let holder = self.lease.as_ref().and_then(|lease| lease.spec.as_ref());
            let holder = holder.and_then(|spec| spec.holder_identity.as_deref());
            if holder == Some(&self.settings.identity) {
                self.write("", Duration::from_secs(1)).await?;
            }
            Ok::<_, kube::Error>(())
        })
        .await;
        match given_back {
            Ok(Ok(())) => tracing::info!("the lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given back"),
            Err(_) => tracing::warn!("the lease could not be given back in time"),
        }
    }

    /// Creates or replaces it: an apply would not notice that another was quicker.
    async fn write(&self, holder: &str, duration: Duration) -> Result<Lease, kube::Error> {
        let lease = self.next(holder, duration);
        let params = PostParams::default();
        match &self.lease {
            Some(_) => {
                let name = &self.settings.name;
                self.leases.replace(name, &params, &lease).await
            }
            None => self.leases.create(&params, &lease).await,
        }
    }

    fn next(&self, holder: &str, duration: Duration) -> Lease {
        let before = self.lease.clone().unwrap_or_default();
        let spec = before.spec.unwrap_or_default();
        let taken_over = !holder.is_empty() && spec.holder_identity.as_deref() != Some(holder);
        let now = self.wall_clock();
        let metadata = ObjectMeta {
            name: Some(self.settings.name.clone()),
            ..before.metadata
        };
        let transitions = spec.lease_transitions.unwrap_or(0);
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
                acquire_time: if taken_over {
                    Some(now.clone())
                } else {
                    spec.acquire_time
                },
                renew_time: Some(now),
                lease_transitions: Some(
                    transitions + i32::from(taken_over && self.lease.is_some()),
                ),
                ..LeaseSpec::default()
            }),
        }
    }

    fn wall_clock(&self) -> MicroTime {
        let millis = i64::try_from(self.clock.now().0).unwrap_or(i64::MAX);
        MicroTime(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use tokio::sync::{Mutex, oneshot};
    use zimcache_telemetry::task;
    use zimcache_types::SystemClock;

    use super::*;

    /// An API server that knows one Lease.
    #[derive(Debug, Default)]
    struct Server {
        lease: Mutex<Option<Lease>>,
        version: AtomicU64,
        is_away: AtomicBool,
    }

    impl Server {
        fn client(self: &Arc<Self>) -> Client {
            let server = Arc::clone(self);
            let answer = move |request: Request<Body>| {
                let server = Arc::clone(&server);
                async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
            };
            Client::new(tower::service_fn(answer), "zim")
        }

        async fn answer(&self, request: Request<Body>) -> Response<Body> {
            if self.is_away.load(Ordering::SeqCst) {
                return refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
            }
            let mut kept = self.lease.lock().await;
            if request.method() == Method::GET {
                return match &*kept {
                    Some(lease) => Response::new(serde_json::to_vec(lease).unwrap().into()),
                    None => refusal(StatusCode::NOT_FOUND, "NotFound"),
                };
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut lease: Lease = serde_json::from_slice(&body).unwrap();
            let known = kept.as_ref().map(|kept| &kept.metadata.resource_version);
            if known.is_some_and(|known| *known != lease.metadata.resource_version) {
                return refusal(StatusCode::CONFLICT, "Conflict");
            }
            let version = self.version.fetch_add(1, Ordering::SeqCst);
            lease.metadata.resource_version = Some(version.to_string());
            *kept = Some(lease.clone());
            Response::new(serde_json::to_vec(&lease).unwrap().into())
        }

        async fn holder(&self) -> String {
            let spec = self.lease.lock().await.clone().unwrap().spec.unwrap();
            spec.holder_identity.unwrap()
        }
    }

    fn refusal(code: StatusCode, reason: &str) -> Response<Body> {
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": reason, "reason": reason, "code": code.as_u16(),
        });
        let answer = Response::builder().status(code);
        answer
            .body(serde_json::to_vec(&status).unwrap().into())
            .unwrap()
    }

    fn elector(server: &Arc<Server>, me: &str) -> Elector {
        let settings = Settings::new("zim", "operator", me);
        Elector::new(
            server.client(),
            settings,
            Arc::new(SystemClock),
            Health::default(),
        )
    }

    fn seen(holder: &str, version: &str, at: Instant) -> Seen {
        let lease = Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
        };
        Seen::look(None, &lease, at)
    }

    #[test]
    fn a_lease_that_is_absent_or_given_back_is_taken_and_the_own_one_renewed() {
        let now = Instant::now();
        assert_eq!(decide(None, "me", now), Decision::Acquire);
        let free = seen("", "1", now);
        assert_eq!(decide(Some(&free), "me", now), Decision::Acquire);
        let mine = seen("me", "1", now);
        assert_eq!(decide(Some(&mine), "me", now), Decision::Renew);
    }

    #[test]
    fn the_lease_of_another_is_taken_after_its_duration_without_a_write_as_seen_from_here() {
        let start = Instant::now();
        let first = seen("other", "1", start);
        let until = start + Duration::from_secs(15);
        let just_before = until.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(
            decide(Some(&first), "me", just_before),
            Decision::Wait(until)
        );
        assert_eq!(decide(Some(&first), "me", until), Decision::Acquire);

        let renewed = Lease {
            metadata: ObjectMeta {
                resource_version: Some("2".to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some("other".to_owned()),
                lease_duration_seconds: Some(15),
                // What others write about the time is of no account.
                renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
                ..LeaseSpec::default()
            }),
        };
        let again = Seen::look(Some(&first), &renewed, just_before);
        assert!(matches!(
            decide(Some(&again), "me", until),
            Decision::Wait(_)
        ));
        let unchanged = Seen::look(Some(&again), &renewed, until);
        assert_eq!(unchanged.since, just_before);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_waits_until_the_first_gives_it_back() {
        let server = Arc::new(Server::default());
        let mut first = elector(&server, "first");
        first.acquire().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let kept = task::spawn("first", first.keep(async { stopped.await.unwrap() }));
        let mut second = elector(&server, "second");
        let early = tokio::time::timeout(Duration::from_mins(2), second.acquire()).await;
        assert!(early.is_err(), "two lead");
        assert_eq!(server.holder().await, "first");
        stop.send(()).unwrap();
        assert_eq!(kept.await.unwrap(), Ended::Released);
        assert_eq!(server.holder().await, "");
        second.acquire().await;
        assert_eq!(server.holder().await, "second");
        let spec = server.lease.lock().await.clone().unwrap().spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_ends_before_another_may_lead() {
        let server = Arc::new(Server::default());
        let mut first = elector(&server, "first");
        first.acquire().await;
        let last_write = Instant::now();
        server.is_away.store(true, Ordering::SeqCst);
        assert_eq!(first.keep(std::future::pending()).await, Ended::Lost);
        let took = last_write.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}");
        assert!(took >= Duration::from_secs(10), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_lease_was_taken_ends_and_one_that_was_only_disturbed_goes_on() {
        let server = Arc::new(Server::default());
        let mut leader = elector(&server, "leader");
        leader.acquire().await;
        let annotated = Arc::clone(&server);
        let (stop, stopped) = oneshot::channel::<()>();
        let kept = task::spawn("leader", leader.keep(async { stopped.await.unwrap() }));
        for _ in 0..10 {
            sleep(Duration::from_secs(1)).await;
            let mut lease = annotated.lease.lock().await;
            let version = annotated.version.fetch_add(1, Ordering::SeqCst);
            lease.as_mut().unwrap().metadata.resource_version = Some(version.to_string());
        }
        assert!(!kept.is_finished());
        let mut lease = server.lease.lock().await.clone().unwrap();
        lease.spec.as_mut().unwrap().holder_identity = Some("thief".to_owned());
        *server.lease.lock().await = Some(lease);
        assert_eq!(kept.await.unwrap(), Ended::Lost);
        drop(stop);
    }
}
