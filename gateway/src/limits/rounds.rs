//! The task that leases tokens from Redis: a round for whoever runs low, one for all that are in use every so often.
//!
//! A round is one call (of at most [`MOST_LIMITS`] limits) with a deadline. Whatever goes wrong ends the era: leases are
//! void, each gateway keeps to its share, and the task tries again, ever more rarely. Cancellation: aborted with its
//! link; what it held then is filled up again by time. Not here: what a limit asks for (`lease`), the call (`script`).

use std::{mem, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use zimcache_config::RedisUrl;

use super::{
    lease::{Ask, Lease, Plan},
    link::{Caller, Line},
    script::{Failure, GatewayId, Redis},
};
use crate::metrics::LeaseFailure;

/// Longest that an answer may take.
const DEADLINE: Duration = Duration::from_millis(50);
/// Longest that connecting may take, sentinels and TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// Between rounds for all limits in use: twice within a lease, and never at the same beat as another gateway.
const BEAT: Duration = Duration::from_millis(40);
const BEAT_JITTER: Duration = Duration::from_millis(15);
/// Between signs of life while no limit is in use.
const IDLE: Duration = Duration::from_secs(1);
/// Shortest time from one round to the next, so that calls gather.
const GATHER: Duration = Duration::from_millis(2);
/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Limits in one call: it takes Redis a few milliseconds.
const MOST_LIMITS: usize = 1_000;

/// Keeps to this Redis until it is aborted.
pub(super) async fn run(line: Arc<Line>, url: RedisUrl) {
    let id = GatewayId::random();
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let failure = match connect(&url).await {
            Ok(redis) => {
                let rounds = Rounds {
                    line: &line,
                    redis,
                    id: &id,
                    active: Vec::new(),
                    told_of_strange_keys: false,
                };
                rounds.serve(&url).await
            }
            Err(failure) => failure,
        };
        if line.went_down(&failure) {
            pause = FIRST_PAUSE;
            told = false;
        }
        if !told {
            told = true;
            tracing::warn!(
                redis = %url, error = %failure, gateways = line.gateways(),
                "no rate limits from Redis: this gateway keeps to its share of them until there are"
            );
        }
        sleep(pause + jitter(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(url: &RedisUrl) -> Result<Redis, Failure> {
    let connected = timeout(CONNECT, Redis::connect(url)).await;
    connected.unwrap_or(Err(Failure::Timeout(CONNECT)))
}

/// Up to this much, at random: gateways must not fall into step.
fn jitter(most: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// The rounds of one connection.
struct Rounds<'a> {
    line: &'a Line,
    redis: Redis,
    id: &'a GatewayId,
    /// Every limit in use.
    active: Vec<Arc<Lease>>,
    told_of_strange_keys: bool,
}

/// A limit and what it asks for.
type Asked = (Arc<Lease>, Ask);

impl Rounds<'_> {
    /// Serves until something fails.
    async fn serve(mut self, url: &RedisUrl) -> Failure {
        if let Err(failure) = self.ask(&[], 0).await {
            return failure;
        }
        self.line.came_up();
        let gateways = self.line.gateways();
        tracing::info!(redis = %url, gateways, "rate limits are shared through Redis");
        let mut last = Instant::now();
        let mut due = last + IDLE;
        loop {
            self.wait(due).await;
            sleep_until(last + GATHER).await;
            last = Instant::now();
            let all = last >= due;
            if let Err(failure) = self.round(all).await {
                return failure;
            }
            if all {
                due = last + IDLE;
            }
            if !self.active.is_empty() {
                due = due.min(last + BEAT + jitter(BEAT_JITTER));
            }
        }
    }

    async fn wait(&self, due: Instant) {
        let called = pin!(self.line.wake.notified());
        tokio::select! {
            () = called => {}
            () = sleep_until(due) => {}
        }
    }

    /// One round: for every limit in use, or for those that called.
    async fn round(&mut self, all: bool) -> Result<(), Failure> {
        let Some(era) = self.line.era() else {
            return Ok(());
        };
        let asked = self.collect(era, all);
        if asked.is_empty() && all {
            return self.ask(&[], era).await;
        }
        for some in asked.chunks(MOST_LIMITS) {
            self.ask(some, era).await?;
        }
        Ok(())
    }

    fn collect(&mut self, era: u64, all: bool) -> Vec<Asked> {
        let now = self.line.now();
        let calls = self.line.calls();
        let mut calling = Vec::with_capacity(calls.len());
        for Caller { lease, new, .. } in calls.into_iter().filter(|call| call.era == era) {
            if new {
                self.active.push(Arc::clone(&lease));
            }
            calling.push(lease);
        }
        let mut asked = Vec::new();
        if !all {
            for lease in calling {
                if let Plan::Ask(ask) = lease.plan(era, now, false) {
                    asked.push((lease, ask));
                }
            }
            return asked;
        }
        self.active
            .retain(|lease| match lease.plan(era, now, true) {
                Plan::Leave => false,
                Plan::Wait => true,
                Plan::Ask(ask) => {
                    asked.push((Arc::clone(lease), ask));
                    true
                }
            });
        asked
    }

    /// One call.
    async fn ask(&mut self, asked: &[Asked], era: u64) -> Result<(), Failure> {
        let line = self.line;
        let begun = Instant::now();
        let sent = line.now();
        let limits: Vec<_> = asked
            .iter()
            .map(|(lease, ask)| (&*lease.key, *ask))
            .collect();
        let answer = timeout(DEADLINE, self.redis.lease(self.id, &limits)).await;
        let answer = answer.unwrap_or(Err(Failure::Timeout(DEADLINE)))?;
        line.figures.round(begun.elapsed(), asked.len());
        line.count_gateways(answer.gateways);
        let now = line.now();
        for ((lease, ask), grant) in asked.iter().zip(answer.grants) {
            match grant.tokens {
                Some(tokens) => line.figures.tokens.inc_by(u64::from(tokens)),
                None => self.found_strange(&lease.key),
            }
            lease.granted(era, *ask, grant, sent, now);
        }
        Ok(())
    }

    fn found_strange(&mut self, key: &str) {
        self.line.figures.failed(LeaseFailure::WrongType);
        if !mem::replace(&mut self.told_of_strange_keys, true) {
            tracing::warn!(
                key,
                "a key of a rate limit held something else; such keys are made anew"
            );
        }
    }
}
