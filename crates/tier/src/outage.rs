//! Notices that the server is away, and lets one request at a time find out whether it is back.
//!
//! Three failures in a row close the way: requests fail at once instead of piling up behind timeouts. After a wait with
//! full jitter, which doubles with each failure, one request goes through as a probe; any success opens the way. No lock
//! is held across an await. A pass dropped without a report (its caller was cancelled) frees the place of the probe.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::jitter::Jitter;

/// Failures in a row that make an outage.
const THRESHOLD: u32 = 3;
/// Wait before the first probe, at most.
const FIRST: Duration = Duration::from_millis(500);
/// Wait before any probe, at most.
const MOST: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Outage {
    state: Mutex<State>,
    changed: Notify,
    jitter: Jitter,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// While the server is away: when the next probe may go.
    until: Option<Instant>,
    probing: bool,
    /// Outages that ended.
    ended: u64,
}

/// The right to send one request.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    outage: &'a Outage,
    probe: bool,
}

impl Outage {
    pub(crate) fn new(seed: u64) -> Outage {
        Outage {
            state: Mutex::default(),
            changed: Notify::new(),
            jitter: Jitter::new(seed),
        }
    }

    /// Whether the server is thought to be away.
    pub(crate) fn is_on(&self) -> bool {
        self.state.lock().until.is_some()
    }

    /// How many outages have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.state.lock().ended
    }

    /// Asks to send a request; `None` while the server is away and it is not the time for a probe.
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        let mut state = self.state.lock();
        let probe = match state.until {
            None => false,
            Some(until) if state.probing || Instant::now() < until => return None,
            Some(_) => true,
        };
        state.probing |= probe;
        Some(Pass {
            outage: self,
            probe,
        })
    }

    /// Ends when the server is thought to be away.
    pub(crate) async fn began(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_on() {
                return;
            }
            changed.await;
        }
    }

    /// Ends when a request may be sent.
    pub(crate) async fn ready(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let until = {
                let state = self.state.lock();
                match state.until {
                    None => return,
                    Some(_) if state.probing => None,
                    Some(until) => Some(until),
                }
            };
            match until {
                Some(until) if Instant::now() >= until => return,
                Some(until) => tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }
}

impl Pass<'_> {
    /// Says whether the server answered.
    pub(crate) fn report(self, answered: bool) {
        let outage = self.outage;
        let mut state = outage.state.lock();
        if answered {
            state.failures = 0;
            if state.until.take().is_some() {
                state.ended += 1;
                tracing::info!("the bucket answers again");
            }
        } else if self.probe || state.until.is_none() {
            state.failures = state.failures.saturating_add(1);
            if let Some(more) = state.failures.checked_sub(THRESHOLD) {
                if state.until.is_none() {
                    tracing::warn!("the bucket does not answer; uploads wait");
                }
                let wait = outage.jitter.wait(FIRST, more, MOST);
                state.until = Some(Instant::now() + wait);
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.outage.state.lock().probing = false;
        }
        self.outage.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(outage: &Outage) {
        outage.enter().unwrap().report(false);
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_close_the_way_and_one_probe_opens_it() {
        let outage = Outage::new(1);
        fail(&outage);
        fail(&outage);
        outage.enter().unwrap().report(true);
        fail(&outage);
        fail(&outage);
        assert!(!outage.is_on());
        fail(&outage);
        assert!(outage.is_on());

        tokio::time::sleep(FIRST).await;
        outage.ready().await;
        let probe = outage.enter().unwrap();
        assert!(outage.enter().is_none(), "one probe at a time");
        probe.report(true);
        assert!(!outage.is_on());
        assert_eq!(outage.ended(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_probe_of_another_and_takes_its_place_when_that_is_dropped() {
        let outage = Outage::new(1);
        (0..THRESHOLD).for_each(|_| fail(&outage));
        tokio::time::sleep(FIRST).await;
        let probe = outage.enter().unwrap();
        let waiter = outage.ready();
        tokio::pin!(waiter);
        assert!(futures_util::poll!(waiter.as_mut()).is_pending());
        drop(probe);
        waiter.await;
        assert!(outage.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn waits_get_longer_while_the_server_stays_away() {
        let outage = Outage::new(1);
        (0..THRESHOLD).for_each(|_| fail(&outage));
        let began = Instant::now();
        for _ in 0..20 {
            outage.ready().await;
            fail(&outage);
        }
        assert!(began.elapsed() > Duration::from_mins(1));
        assert!(began.elapsed() < MOST * 20);
    }
}
