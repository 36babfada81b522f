//! The loop of the generator: waits for sockets, hands out requests, records what completes.
//!
//! Invariants: every request of a `Limit::Once` run is answered or counted as an error; a connection that failed is
//! replaced; nothing is recorded outside the measured window.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use super::{Channel, Limit, Outcome, Plan, Work, pace::Arrivals};

/// One read takes up to this many bytes; small enough for the second-level cache.
const READ_BYTES: usize = 256 << 10;
/// A run in which nothing is answered for this long has failed.
const STALL: Duration = Duration::from_mins(2);
/// A run with more errors than this has failed.
const ERROR_LIMIT: u64 = 1_000;
/// Longest wait for sockets before the clock is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Runs a plan to its end.
pub(in super::super) fn run<W: Work>(plan: &Plan<'_, W>) -> Result<Outcome> {
    let mut generator = Generator::new(plan)?;
    let mut events = Events::with_capacity(1024);
    generator.fill(Instant::now());
    while !generator.is_done() {
        let wait = generator.wait();
        match generator.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let slot = event.token().0;
            if let Err(error) = generator.advance(slot, event.is_writable()) {
                generator.fail(slot, &error)?;
            }
        }
        generator.fill(Instant::now());
        generator.check_health()?;
    }
    Ok(generator.finish())
}

/// The request a connection is busy with.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// Its place in the work list.
    index: usize,
    /// When it was due.
    due: Instant,
}

struct Generator<'a, W: Work> {
    plan: &'a Plan<'a, W>,
    poll: Poll,
    connections: Vec<W::Channel>,
    flights: Vec<Option<Flight>>,
    idle: VecDeque<usize>,
    arrivals: Option<Arrivals>,
    issued: usize,
    answered: usize,
    buffer: Vec<u8>,
    start: Instant,
    measure_from: Instant,
    measure_to: Option<Instant>,
    last_answer: Instant,
    outcome: Outcome,
}

impl<'a, W: Work> Generator<'a, W> {
    fn new(plan: &'a Plan<'a, W>) -> Result<Generator<'a, W>> {
        let poll = Poll::new()?;
        let connections = (0..plan.connections)
            .map(|slot| W::Channel::open(plan.address, poll.registry(), Token(slot)))
            .collect::<Result<Vec<W::Channel>>>()?;
        let start = Instant::now();
        let (measure_from, measure_to) = match plan.limit {
            Limit::Window { warm_up, measure } => {
                (start + warm_up, Some(start + warm_up + measure))
            }
            Limit::Once => (start, None),
        };
        Ok(Generator {
            plan,
            poll,
            idle: (0..connections.len()).collect(),
            flights: vec![None; connections.len()],
            connections,
            arrivals: Arrivals::new(plan.pace, start),
            issued: 0,
            answered: 0,
            buffer: vec![0; READ_BYTES],
            start,
            measure_from,
            measure_to,
            last_answer: start,
            outcome: Outcome {
                requests: 0,
                body_bytes: 0,
                elapsed: Duration::ZERO,
                latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
                errors: 0,
                first_error: None,
                reconnects: 0,
            },
        })
    }

    fn is_done(&self) -> bool {
        let all_answered =
            self.answered >= self.issued && self.plan.work.index(self.issued).is_none();
        all_answered || self.measure_to.is_some_and(|end| Instant::now() >= end)
    }

    fn wait(&self) -> Duration {
        match &self.arrivals {
            // The kernel's wait has a granularity of a millisecond: below two, spin.
            Some(arrivals) => match arrivals.wait(Instant::now()).min(TICK) {
                short if short < Duration::from_millis(2) => Duration::ZERO,
                long => long.saturating_sub(Duration::from_millis(1)),
            },
            None => TICK,
        }
    }

    /// Hands requests to idle connections, as the pace allows.
    fn fill(&mut self, now: Instant) {
        while let Some(&slot) = self.idle.front() {
            if self.plan.work.index(self.issued).is_none() {
                return;
            }
            let due = match &mut self.arrivals {
                None => now,
                Some(arrivals) => match arrivals.take_due(now) {
                    Some(due) => due,
                    None => return,
                },
            };
            self.idle.pop_front();
            self.issue(slot, due);
        }
    }

    fn issue(&mut self, slot: usize, due: Instant) {
        let Some(index) = self.plan.work.index(self.issued) else {
            self.idle.push_back(slot);
            return;
        };
        self.issued += 1;
        self.flights[slot] = Some(Flight { index, due });
        if let Err(error) = self.connections[slot].send(self.plan.work, index) {
            self.flights[slot] = None;
            self.count_error(&error);
            self.answered += 1;
            if let Err(error) = self.replace(slot) {
                self.count_error(&error);
            }
            self.idle.push_back(slot);
        }
    }

    /// Goes on with a connection whose socket is ready.
    fn advance(&mut self, slot: usize, writable: bool) -> Result<()> {
        let connection = &mut self.connections[slot];
        if writable {
            connection.send_on(self.plan.work)?;
        }
        let received = connection.receive(self.plan.work, &mut self.buffer)?;
        if received.closed {
            return self.reconnect(slot);
        }
        if received.body_bytes == 0 && received.answer.is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let measured = now >= self.measure_from && self.measure_to.is_none_or(|end| now <= end);
        if measured {
            self.outcome.body_bytes += received.body_bytes;
        }
        let Some(answer) = received.answer else {
            return Ok(());
        };
        let Some(flight) = self.flights[slot].take() else {
            bail!("an answer came without a request");
        };
        self.answered += 1;
        self.last_answer = now;
        match answer {
            Err(text) => self.count_error(&anyhow::Error::msg(text)),
            Ok(()) if measured => {
                self.outcome.requests += 1;
                self.outcome.body_bytes += self.plan.work.upload_bytes(flight.index);
                let waited = now.saturating_duration_since(flight.due).as_nanos() as u64;
                self.outcome.latency.saturating_record(waited);
            }
            Ok(()) => {}
        }
        if received.closing {
            self.replace(slot)?;
        }
        match self.arrivals {
            None => self.issue(slot, now),
            Some(_) => self.idle.push_back(slot),
        }
        Ok(())
    }

    /// The server closed a connection: opens it anew and sends again what had no answer.
    fn reconnect(&mut self, slot: usize) -> Result<()> {
        self.replace(slot)?;
        match self.flights[slot] {
            Some(flight) => self.connections[slot].send(self.plan.work, flight.index),
            None => Ok(()),
        }
    }

    fn replace(&mut self, slot: usize) -> Result<()> {
        self.outcome.reconnects += 1;
        if self.outcome.reconnects > self.outcome.requests + 10 * self.connections.len() as u64 {
            bail!("the server closes connections instead of answering");
        }
        self.connections[slot] =
            W::Channel::open(self.plan.address, self.poll.registry(), Token(slot))?;
        Ok(())
    }

    /// A connection broke: counts its request as an error and replaces it.
    fn fail(&mut self, slot: usize, error: &anyhow::Error) -> Result<()> {
        self.count_error(error);
        if self.flights[slot].take().is_some() {
            self.answered += 1;
            self.idle.push_back(slot);
        }
        self.replace(slot)
    }

    fn count_error(&mut self, error: &anyhow::Error) {
        self.outcome.errors += 1;
        if self.outcome.first_error.is_none() {
            self.outcome.first_error = Some(format!("{error:#}"));
        }
    }

    fn check_health(&self) -> Result<()> {
        let first = self.outcome.first_error.as_deref().unwrap_or_default();
        if self.outcome.errors > ERROR_LIMIT {
            bail!("too many errors, the first: {first}");
        }
        if self.answered < self.issued && self.last_answer.max(self.start).elapsed() > STALL {
            bail!("no answer for {} s {first}", STALL.as_secs());
        }
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        let end = match self.measure_to {
            Some(end) if self.plan.work.index(self.issued).is_some() => end,
            _ => self.last_answer,
        };
        self.outcome.elapsed = end.saturating_duration_since(self.measure_from);
        self.outcome
    }
}
