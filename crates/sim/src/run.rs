//! A run from its seed to its verdict.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use turmoil::Sim;
use zimcache_history::{History, Violation, check};

use crate::{
    bug::Bug,
    copies, gateway,
    journal::trace,
    nemesis::Nemesis,
    operator::{self, Operator},
    plan::Plan,
    world::{Stage, World, gateway_name, node_name},
};

/// How finely time is cut: messages arrive and hosts run in such steps.
const TICK: Duration = Duration::from_millis(5);
/// Steps between two looks at faults and rings.
const LOOK_EVERY: u64 = 20;
/// How long everything may take to converge.
const CONVERGENCE: Duration = Duration::from_mins(1);
/// The same when the ring is changing.
const LONG_CONVERGENCE: Duration = Duration::from_mins(5);
/// How long the sweep may take.
const SWEEP: Duration = Duration::from_mins(5);
/// The stack of a simulation's thread.
const STACK_BYTES: usize = 16 << 20;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Which run.
    pub seed: u64,
    /// Calls that clients made.
    pub calls: usize,
    /// Faults that there were.
    pub faults: usize,
    /// A number that differs when anything that clients saw does.
    pub trace: u64,
    /// What clients saw.
    pub history: History,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
    /// Values that are not on all of their owners, after everything has converged.
    pub missing: Vec<String>,
    /// What did not come to an end after everything was healed.
    pub stuck: Option<String>,
}

impl Report {
    /// Whether nothing went wrong.
    pub fn is_silent(&self) -> bool {
        self.complaints().is_empty()
    }

    /// What went wrong, a line each.
    pub fn complaints(&self) -> Vec<String> {
        let stuck = self.stuck.iter();
        let stuck = stuck.map(|what| format!("not converged: {what}"));
        stuck
            .chain(self.missing.iter().map(|what| format!("missing: {what}")))
            .chain(self.violations.iter().map(ToString::to_string))
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            seed,
            calls,
            faults,
            trace,
            ..
        } = self;
        write!(
            f,
            "seed {seed}: {calls} calls, {faults} faults, trace {trace:016x}"
        )
    }
}

/// Plays a seed, once in a process, with a bug or without.
///
/// # Panics
/// The second time, and when the simulation cannot go on.
pub fn run(seed: u64, bug: Option<Bug>) -> Report {
    // Whatever asks the operating system for randomness gets it from the seed: hash maps, tokio.
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    // A thread of its own has made no hash map before, and has the stack that it needs.
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let played = thread.spawn(move || play(seed, bug));
    let played = played.expect("there are threads").join();
    played.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn play(seed: u64, bug: Option<Bug>) -> Report {
    let plan = Plan::of(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(plan.latency)
        .simulation_duration(Duration::from_hours(24))
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    let world = Arc::new(World::new(plan, bug));
    let mut nemesis = Nemesis::new(Arc::clone(&world));
    nemesis.skew_clocks();
    for number in 0..world.plan.nodes {
        operator::start(&mut sim, &world, &node_name(number));
    }
    for number in 0..world.plan.gateways {
        let world = Arc::clone(&world);
        sim.host(gateway_name(number), move || {
            gateway::run(Arc::clone(&world), number)
        });
    }
    let mut operator = Operator::new(Arc::clone(&world));
    let work = world.plan.work;
    until(&mut sim, work, |sim| {
        nemesis.look(sim, micros(sim));
        operator.look(sim, micros(sim));
        false
    });
    let stuck = converge(&mut sim, &world, &mut nemesis, &mut operator);
    let missing = copies::missing(&world, &world.journal.history());
    world.enter(Stage::Sweep);
    let gateways = u64::from(world.plan.gateways);
    let has_swept = until(&mut sim, SWEEP, |_| {
        world.swept.load(Ordering::Relaxed) == gateways
    });
    let stuck = stuck.or_else(|| (!has_swept).then(|| "the sweep".to_owned()));
    report(seed, &world, missing, stuck)
}

fn micros(sim: &Sim<'_>) -> u64 {
    u64::try_from(sim.elapsed().as_micros()).unwrap()
}

/// Goes on until something is so, or the time is over; whether it came to be so.
fn until(sim: &mut Sim<'_>, limit: Duration, mut is_so: impl FnMut(&mut Sim<'_>) -> bool) -> bool {
    let end = sim.elapsed() + limit;
    while sim.elapsed() < end {
        if is_so(sim) {
            return true;
        }
        for _ in 0..LOOK_EVERY {
            sim.step().expect("no host fails");
        }
    }
    is_so(sim)
}

/// Heals everything and waits until nothing is left to do; what is left after too long.
fn converge(
    sim: &mut Sim<'_>,
    world: &World,
    nemesis: &mut Nemesis,
    operator: &mut Operator,
) -> Option<String> {
    nemesis.heal(sim, micros(sim));
    operator.stop();
    world.enter(Stage::Calm);
    let limit = if operator.is_done() {
        CONVERGENCE
    } else {
        LONG_CONVERGENCE
    };
    let deadline = sim.elapsed() + limit;
    world.set_deadline(u64::try_from(deadline.as_micros()).unwrap());
    let mut left = Some(String::new());
    until(sim, limit, |sim| {
        operator.look(sim, micros(sim));
        left = left_to_do(world, operator);
        left.is_none()
    });
    left
}

/// What the nodes still have to do.
fn left_to_do(world: &World, operator: &Operator) -> Option<String> {
    if Arc::strong_count(&world.busy) > 1 {
        return Some("a client is still waiting".to_owned());
    }
    if !operator.is_done() {
        return Some("the previous placement is open".to_owned());
    }
    let members = world.members();
    let ring = world.ring();
    for member in ring.members() {
        let Some(running) = members.get(&member.id) else {
            return Some(format!("{} does not run", member.id));
        };
        let standing = running.standing();
        if standing.catching_up {
            return Some(format!("{} is catching up", member.id));
        }
        if standing.pinned.hints > 0 {
            return Some(format!("{} has {} hints", member.id, standing.pinned.hints));
        }
    }
    None
}

fn report(seed: u64, world: &World, missing: Vec<String>, stuck: Option<String>) -> Report {
    let history = world.journal.history();
    Report {
        seed,
        calls: history.events.len(),
        faults: history.faults.len(),
        trace: trace(&history),
        violations: check(&history),
        missing,
        stuck,
        history,
    }
}
