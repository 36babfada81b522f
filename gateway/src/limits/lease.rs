//! What one gateway holds of a limit that several gateways share.
//!
//! Tokens are leased from Redis ahead of need and spent here, so that deciding is arithmetic under a short lock. A lease
//! holds for [`LEASE`]; what is not used by then goes back, a half at a time while the caller is busy. Where there is
//! no lease yet, a small credit is spent and owed: it is charged with the next round. Not here: talking to Redis
//! (`rounds`, `script`), what holds without it (`link`). Invariants: nothing is held that Redis does not count as
//! spent; no more is owed than the credit; a gateway alone never lets more pass than the limit, because every decision
//! also takes from the local bucket.

use std::mem;

use parking_lot::Mutex;

use super::bucket::{Bucket, LEASE, Pace, Standing};

/// Part of the burst that all gateways together may spend before Redis has answered.
const CREDIT_PART: u32 = 20;

/// What holds for a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Which stretch of time with Redis this is: they only grow, and nothing held outlives one.
    pub(super) era: u64,
    /// Gateways that share the limit.
    pub(super) gateways: u32,
}

/// What one limit asks of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    /// Nanoseconds in which a token comes back.
    pub(super) interval: u64,
    /// Tokens in a full bucket.
    pub(super) burst: u32,
    /// Tokens that were held.
    pub(super) back: u32,
    /// Of these, the ones that are held on to.
    pub(super) keep: u32,
    /// Tokens spent without a lease.
    pub(super) owed: u32,
    /// Tokens wanted at least; none: nobody needs any.
    pub(super) batch: u32,
}

/// What Redis said to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// Tokens leased anew; `None`: the key held something that is no bucket.
    pub(super) tokens: Option<u32>,
    /// Nanoseconds until the bucket is full, if no lease is given back.
    pub(super) full_in: u64,
}

/// What a limit has to say when a round is made up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing, this time.
    Wait,
    /// Nothing until somebody asks again.
    Leave,
    /// This.
    Ask(Ask),
}

/// What the task that talks to Redis should know after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Nothing.
    None,
    /// Tokens run low.
    Low,
    /// This limit is in use from now on.
    New,
}

/// One limit, as far as this gateway knows it.
#[derive(Debug)]
pub(super) struct Lease {
    /// Its name in Redis.
    pub(super) key: String,
    holding: Mutex<Holding>,
}

#[derive(Debug, Default)]
struct Holding {
    era: u64,
    pace: Pace,
    /// Tokens to spend.
    held: u32,
    /// Until when.
    until: u64,
    /// Tokens spent without a lease since the last round.
    owed: u32,
    /// Tokens spent since the last round.
    spent: u32,
    /// When the shared bucket would be full, as last heard.
    full_at: u64,
    /// Redis had not been asked yet, or had more than it gave.
    more: bool,
    /// From here on down, tokens run low.
    low: u32,
    used_at: u64,
    /// The task goes through it.
    listed: bool,
    /// The task has been called.
    called: bool,
    /// A round with it is under way.
    asking: bool,
    /// Redis holds something else under this name.
    strange: bool,
}

impl Lease {
    pub(super) fn new(key: String) -> Lease {
        Lease {
            key,
            holding: Mutex::default(),
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(
        &self,
        bucket: &Bucket,
        pace: Pace,
        now: u64,
        terms: Terms,
    ) -> (Standing, Call) {
        let mut holding = self.holding.lock();
        let own = &mut *holding;
        if terms.era < own.era {
            // A request that looked at the era before it changed: nobody would hear its call.
            return (own.decide(bucket, now, terms.gateways), Call::None);
        }
        if own.era < terms.era {
            *own = Holding {
                era: terms.era,
                more: true,
                // What was let pass while Redis was away.
                owed: bucket.missing(pace.shared_by(terms.gateways), now),
                ..Holding::default()
            };
        }
        own.pace = pace;
        own.used_at = now;
        let standing = own.decide(bucket, now, terms.gateways);
        if !mem::replace(&mut own.listed, true) {
            own.called = true;
            return (standing, Call::New);
        }
        let call = own.more && own.held <= own.low && !mem::replace(&mut own.called, true);
        (standing, if call { Call::Low } else { Call::None })
    }

    /// What it has to say in a round of this era. Only every so often all limits are asked, else those that called.
    pub(super) fn plan(&self, era: u64, now: u64, all: bool) -> Plan {
        let mut own = self.holding.lock();
        if own.era != era {
            return Plan::Leave;
        }
        if own.asking || !(all || own.called) {
            return Plan::Wait;
        }
        let idle = now.saturating_sub(own.used_at) >= LEASE;
        if idle && own.held == 0 && own.owed == 0 {
            own.listed = false;
            own.more = true;
            return Plan::Leave;
        }
        let batch = own.pace.in_a_lease();
        let wanted = batch.max(own.held / 2).max(own.spent.saturating_mul(2));
        let keep = if idle { 0 } else { own.held.min(wanted) };
        own.asking = true;
        own.spent = 0;
        Plan::Ask(Ask {
            interval: own.pace.interval(),
            burst: own.pace.burst().max(batch),
            back: mem::replace(&mut own.held, keep),
            keep,
            owed: mem::take(&mut own.owed),
            batch: if idle { 0 } else { batch },
        })
    }

    /// Takes over what Redis said to what it asked at `sent`.
    pub(super) fn granted(&self, era: u64, ask: Ask, grant: Grant, sent: u64, now: u64) {
        let mut own = self.holding.lock();
        if own.era != era {
            return;
        }
        own.asking = false;
        own.called = false;
        own.strange = grant.tokens.is_none();
        if own.strange {
            own.held = 0;
            own.more = false;
            return;
        }
        own.held += grant.tokens.unwrap_or(0);
        own.until = sent.saturating_add(LEASE);
        own.full_at = now.saturating_add(grant.full_in);
        own.low = own.held / 2;
        // Who asked for nothing knows nothing of what there is by the time it is needed.
        own.more = ask.batch == 0 || own.left(now) > 0;
    }
}

impl Holding {
    fn decide(&mut self, bucket: &Bucket, now: u64, gateways: u32) -> Standing {
        if self.strange {
            return bucket.take(self.pace.shared_by(gateways), now);
        }
        let leased = self.held > 0 && now < self.until;
        if !leased && self.credit(now, gateways) == 0 {
            return self.refusal(now);
        }
        let standing = bucket.take(self.pace, now);
        if standing.refused_for.is_some() {
            return standing;
        }
        if leased {
            self.held -= 1;
        } else {
            self.owed += 1;
        }
        self.spent = self.spent.saturating_add(1);
        let shared = self.standing(now);
        if shared.remaining < standing.remaining {
            shared
        } else {
            standing
        }
    }

    /// Tokens that may be spent before Redis is heard of: a batch and a part of the burst, if they seem to be there.
    fn credit(&self, now: u64, gateways: u32) -> u32 {
        if !self.more {
            return 0;
        }
        let burst = self.pace.burst();
        let most = match gateways {
            0 | 1 => burst,
            others => self.pace.in_a_lease() + burst / CREDIT_PART / others,
        };
        most.min(self.left(now)).saturating_sub(self.owed)
    }

    /// Tokens in the shared bucket, if nobody else has taken any since.
    fn left(&self, now: u64) -> u32 {
        let burst = self.pace.burst().max(self.pace.in_a_lease());
        let interval = self.pace.interval();
        let brim = now.saturating_add(interval.saturating_mul(u64::from(burst)));
        let left = brim.saturating_sub(self.full_at.max(now)) / interval;
        u32::try_from(left).map_or(burst, |left| left.min(burst))
    }

    fn standing(&self, now: u64) -> Standing {
        let interval = self.pace.interval();
        let of = |tokens: u32| interval.saturating_mul(u64::from(tokens));
        let left = self.left(now).saturating_add(self.held);
        let full_in = self.full_at.saturating_sub(now) + of(self.owed);
        Standing {
            limit: self.pace.burst(),
            remaining: left.saturating_sub(self.owed).min(self.pace.burst()),
            full_in: full_in.saturating_sub(of(self.held)),
            refused_for: None,
        }
    }

    fn refusal(&self, now: u64) -> Standing {
        let interval = self.pace.interval();
        let standing = self.standing(now);
        let depth = interval.saturating_mul(u64::from(self.pace.burst()));
        let wait = (standing.full_in.saturating_add(interval)).saturating_sub(depth);
        Standing {
            remaining: 0,
            // Where tokens seem to be left, a lease is on its way.
            refused_for: Some(wait.max(interval.min(LEASE))),
            ..standing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLI;
    const TWO: Terms = Terms {
        era: 1,
        gateways: 2,
    };

    fn pace(text: &str) -> Pace {
        text.parse::<zimcache_config::Rate>().unwrap().into()
    }

    /// A limit of 100/s and what this gateway has of it.
    struct Limit {
        lease: Lease,
        bucket: Bucket,
        pace: Pace,
    }

    impl Limit {
        fn new(rate: &str) -> Limit {
            Limit {
                lease: Lease::new("key".to_owned()),
                bucket: Bucket::default(),
                pace: pace(rate),
            }
        }

        /// How many of these requests pass.
        fn pass(&self, tries: u32, now: u64, terms: Terms) -> u32 {
            let tries = (0..tries).map(|_| self.lease.take(&self.bucket, self.pace, now, terms));
            tries.filter(|(it, _)| it.refused_for.is_none()).count() as u32
        }

        fn ask(&self, now: u64) -> Ask {
            match self.lease.plan(1, now, true) {
                Plan::Ask(ask) => ask,
                other => panic!("{other:?}"),
            }
        }

        fn grant(&self, ask: Ask, tokens: u32, full_in: u64, now: u64) {
            let grant = Grant {
                tokens: Some(tokens),
                full_in,
            };
            self.lease.granted(1, ask, grant, now, now);
        }
    }

    #[test]
    fn before_redis_answers_a_batch_and_a_part_of_the_burst_pass_and_are_owed() {
        let limit = Limit::new("100/s burst 1000");
        assert_eq!(limit.pass(500, 0, TWO), 10 + 1_000 / 20 / 2);
        let ask = limit.ask(0);
        assert_eq!((ask.owed, ask.back, ask.batch), (35, 0, 10));
        assert_eq!(limit.pass(1, 0, TWO), 1, "owed was handed over");
    }

    #[test]
    fn a_lone_gateway_has_the_whole_burst_at_once() {
        let limit = Limit::new("10/s burst 100");
        let alone = Terms {
            era: 1,
            gateways: 1,
        };
        assert_eq!(limit.pass(500, 0, alone), 100);
    }

    #[test]
    fn what_is_leased_is_spent_and_no_more_once_the_bucket_is_empty() {
        let limit = Limit::new("100/s");
        limit.pass(1, 0, TWO);
        let ask = limit.ask(0);
        limit.grant(ask, 40, SECOND, 0);
        assert_eq!(limit.pass(500, MILLI, TWO), 40);
        let (refused, _) = limit.lease.take(&limit.bucket, limit.pace, MILLI, TWO);
        assert_eq!((refused.remaining, refused.limit), (0, 100));
        assert_eq!(refused.refused_for, Some(10 * MILLI - MILLI + MILLI));
    }

    #[test]
    fn a_lease_ends_after_100_ms_and_goes_back() {
        let limit = Limit::new("100/s");
        limit.pass(1, 0, TWO);
        limit.grant(limit.ask(0), 40, SECOND, 0);
        assert_eq!(limit.pass(1, 99 * MILLI, TWO), 1);
        assert_eq!(limit.pass(1, 100 * MILLI, TWO), 0);
        let late = 300 * MILLI;
        let ask = limit.ask(late);
        assert_eq!((ask.back, ask.keep, ask.batch), (39, 0, 0));
        limit.grant(ask, 0, 0, late);
        assert_eq!(limit.lease.plan(1, late, true), Plan::Leave);
    }

    #[test]
    fn what_a_busy_caller_does_not_use_goes_back_by_halves() {
        let limit = Limit::new("100/s burst 1000");
        limit.pass(1, 0, TWO);
        limit.grant(limit.ask(0), 400, 5 * SECOND, 0);
        let mut kept = Vec::new();
        for round in 1..=6 {
            let now = round * 50 * MILLI;
            limit.pass(1, now, TWO);
            let ask = limit.ask(now);
            kept.push(ask.keep);
            limit.grant(ask, 0, 0, now);
        }
        assert_eq!(kept, [199, 99, 49, 24, 11, 10]);
    }

    #[test]
    fn a_caller_who_pauses_gets_no_credit_that_is_not_there() {
        let limit = Limit::new("100/s");
        limit.pass(1, 0, TWO);
        limit.grant(limit.ask(0), 0, 2 * SECOND, 0);
        let later = 500 * MILLI;
        assert_eq!(limit.lease.plan(1, later, true), Plan::Leave);
        assert_eq!(limit.pass(10, later, TWO), 0, "still in debt");
        let paid = 1_100 * MILLI;
        assert_eq!(limit.pass(100, paid, TWO), 10);
    }

    #[test]
    fn a_request_of_an_era_that_is_over_disturbs_nothing() {
        let limit = Limit::new("100/s");
        let next = Terms { era: 3, ..TWO };
        limit.pass(1, 0, next);
        let (_, call) = limit.lease.take(&limit.bucket, limit.pace, 0, TWO);
        assert_eq!(call, Call::None);
        let Plan::Ask(ask) = limit.lease.plan(3, 0, true) else {
            panic!("it is in use");
        };
        assert_eq!(ask.owed, 2);
    }

    #[test]
    fn the_task_is_called_when_tokens_run_low_and_once() {
        let limit = Limit::new("100/s");
        let take = |now| limit.lease.take(&limit.bucket, limit.pace, now, TWO).1;
        assert_eq!(take(0), Call::New);
        assert_eq!(take(0), Call::None, "it has been called");
        limit.grant(limit.ask(0), 4, SECOND / 2, 0);
        let calls: Vec<_> = (0..4).map(|_| take(MILLI)).collect();
        assert_eq!(calls, [Call::None, Call::Low, Call::None, Call::None]);
    }

    #[test]
    fn a_round_under_way_is_not_asked_for_twice() {
        let limit = Limit::new("100/s");
        limit.pass(1, 0, TWO);
        let ask = limit.ask(0);
        assert_eq!(limit.lease.plan(1, 0, true), Plan::Wait);
        limit.grant(ask, 10, 0, 0);
        assert_eq!(limit.ask(0).back, 10);
    }

    #[test]
    fn a_key_that_holds_something_else_means_the_local_share_until_it_is_mended() {
        let limit = Limit::new("100/s");
        limit.pass(1, 0, TWO);
        let strange = Grant {
            tokens: None,
            full_in: 0,
        };
        limit.lease.granted(1, limit.ask(0), strange, 0, 0);
        assert_eq!(limit.pass(500, 0, TWO), 49, "half of it, one was spent");
        let ask = limit.ask(0);
        assert_eq!((ask.owed, ask.back), (0, 0));
        limit.grant(ask, 7, SECOND, 0);
        assert_eq!(limit.pass(500, 80 * MILLI, TWO), 7);
    }

    #[test]
    fn another_era_charges_what_the_local_bucket_gave_and_keeps_no_lease() {
        let limit = Limit::new("100/s");
        limit.pass(1, 0, TWO);
        limit.grant(limit.ask(0), 50, SECOND, 0);
        let share = limit.pace.shared_by(2);
        for _ in 0..30 {
            limit.bucket.take(share, 0);
        }
        let next = Terms { era: 3, ..TWO };
        assert_eq!(limit.pass(500, 0, next), 0, "more is owed than the credit");
        assert_eq!(limit.lease.plan(1, 0, true), Plan::Leave);
        let Plan::Ask(ask) = limit.lease.plan(3, 0, true) else {
            panic!("it is in use");
        };
        assert_eq!((ask.owed, ask.back), (30, 0));
    }
}
