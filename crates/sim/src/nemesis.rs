//! Faults that come and go by seed.
//!
//! Invariants: at most one fault that loses data in a run, and never while something is lost already; a link has one
//! fault at a time; when all is over, nothing is left broken.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use turmoil::Sim;

use crate::{
    plan::pick,
    random::generator,
    world::{World, gateway_name},
};

/// Clocks are wrong by as much as this.
pub(crate) const SKEW_MILLIS: i64 = 5 * 60 * 1000;
/// How far behind a gateway's source of rings may be.
const MOST_LAG: usize = 3;

/// What is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// Nothing passes between two hosts.
    Partition(String, String),
    /// Nothing passes from one to the other.
    OneWay(String, String),
    /// Nothing passes between a host and all others.
    Isolation(String),
    /// What is sent to or from a host waits.
    Freeze(String),
    /// Messages between two hosts take longer.
    Delay(String, String),
    /// Messages between two hosts get lost.
    Loss(String, String),
    /// A host has crashed.
    Crash(String),
    /// It has, and its disk is gone.
    LostDisk(String),
    /// All nodes that ran have crashed at once.
    Blackout(Vec<String>),
    /// Syncs of a node take long.
    SlowDisk(String),
    /// A gateway's source of rings is behind.
    Lag(String),
}

/// A fault under way.
struct Running {
    fault: Fault,
    until: u64,
    window: usize,
}

/// What breaks things.
pub(crate) struct Nemesis {
    world: Arc<World>,
    random: StdRng,
    running: Vec<Running>,
    next: u64,
    has_lost_disk: bool,
}

impl Nemesis {
    pub(crate) fn new(world: Arc<World>) -> Nemesis {
        Nemesis {
            random: generator(world.plan.seed, "nemesis"),
            world,
            running: Vec::new(),
            next: 2_000_000,
            has_lost_disk: false,
        }
    }

    /// Sets clocks wrong, where the plan says so.
    pub(crate) fn skew_clocks(&mut self) {
        if !self.world.plan.has_skew {
            return;
        }
        for host in self.hosts() {
            let skew = self.random.random_range(-SKEW_MILLIS..=SKEW_MILLIS);
            self.world.clock(&host).skew(skew);
        }
    }

    /// Ends what is over, and begins what is due.
    pub(crate) fn look(&mut self, sim: &mut Sim<'_>, now: u64) {
        let over: Vec<usize> = (0..self.running.len())
            .rev()
            .filter(|number| self.running[*number].until <= now)
            .collect();
        for number in over {
            let running = self.running.remove(number);
            self.end(sim, running, now);
        }
        if now < self.next {
            return;
        }
        self.next = now + self.random.random_range(200_000..4_000_000);
        if self.running.len() < self.world.plan.faults {
            let fault = self.choose();
            if !self.is_in_the_way(&fault) {
                self.begin(sim, fault, now);
            }
        }
    }

    /// Ends everything.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>, now: u64) {
        for running in std::mem::take(&mut self.running) {
            self.end(sim, running, now);
        }
        for host in self.hosts() {
            self.world.clock(&host).skew(0);
        }
    }

    fn nodes(&self) -> Vec<String> {
        let ring = self.world.ring();
        ring.members().map(|member| member.id.clone()).collect()
    }

    fn hosts(&self) -> Vec<String> {
        let gateways = (0..self.world.plan.gateways).map(gateway_name);
        self.nodes().into_iter().chain(gateways).collect()
    }

    fn choose(&mut self) -> Fault {
        let nodes = self.nodes();
        let hosts = self.hosts();
        let node = pick(&mut self.random, &nodes).clone();
        let others: Vec<String> = hosts.into_iter().filter(|host| *host != node).collect();
        let other = pick(&mut self.random, &others).clone();
        let gateway = gateway_name(self.random.random_range(0..self.world.plan.gateways));
        match self.random.random_range(0..100) {
            0..12 => Fault::Partition(node, other),
            12..18 => Fault::OneWay(node, other),
            18..24 => Fault::OneWay(other, node),
            24..32 => Fault::Isolation(node),
            32..40 => Fault::Freeze(node),
            40..48 => Fault::Delay(node, other),
            48..58 => Fault::Loss(node, other),
            70..73 => Fault::Crash(gateway),
            73..76 => Fault::Blackout(self.world.members().into_keys().collect()),
            76..86 if !self.has_lost_disk => Fault::LostDisk(node),
            86..93 => Fault::SlowDisk(node),
            93..97 => Fault::Lag(gateway),
            _ => Fault::Crash(node),
        }
    }

    /// Whether another fault touches the same links or the same host.
    fn is_in_the_way(&self, fault: &Fault) -> bool {
        let all = self.hosts();
        let wanted = touched(fault, &all);
        self.running
            .iter()
            .any(|running| !touched(&running.fault, &all).is_disjoint(&wanted))
    }

    fn begin(&mut self, sim: &mut Sim<'_>, fault: Fault, now: u64) {
        let hosts = self.hosts();
        match &fault {
            Fault::Partition(a, b) => sim.partition(a.as_str(), b.as_str()),
            Fault::OneWay(from, to) => sim.partition_oneway(from.as_str(), to.as_str()),
            Fault::Isolation(host) => {
                others(host, &hosts).for_each(|other| sim.partition(host.as_str(), other));
            }
            Fault::Freeze(host) => {
                others(host, &hosts).for_each(|other| sim.hold(host.as_str(), other));
            }
            Fault::Delay(a, b) => {
                let latency = Duration::from_millis(*pick(&mut self.random, &[300, 1000, 3000]));
                sim.set_link_latency(a.as_str(), b.as_str(), latency);
            }
            Fault::Loss(a, b) => sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.05),
            Fault::Crash(host) => self.crash(sim, host),
            Fault::LostDisk(node) => {
                self.has_lost_disk = true;
                self.crash(sim, node);
                self.world.lose_disk(node);
            }
            Fault::Blackout(nodes) => nodes.iter().for_each(|node| self.crash(sim, node)),
            Fault::SlowDisk(node) => {
                let by = *pick(&mut self.random, &[100, 800, 5000]);
                self.world.disk(node).slow_down(Duration::from_millis(by));
            }
            Fault::Lag(gateway) => {
                let lag = self.random.random_range(1..=MOST_LAG);
                self.world.lag_behind(gateway, lag);
            }
        }
        let longest = *pick(&mut self.random, &[1_000_000, 5_000_000, 15_000_000]);
        let loses_disk = matches!(fault, Fault::LostDisk(_));
        let journal = &self.world.journal;
        let window = journal.fault_begins(&format!("{fault:?}"), loses_disk, now);
        self.running.push(Running {
            fault,
            until: now + self.random.random_range(100_000..longest),
            window,
        });
    }

    fn crash(&self, sim: &mut Sim<'_>, host: &str) {
        sim.crash(host);
        self.world.crashed(host);
    }

    fn end(&self, sim: &mut Sim<'_>, running: Running, now: u64) {
        let hosts = self.hosts();
        let is_there = |host: &String| hosts.contains(host);
        match &running.fault {
            Fault::Partition(a, b) => sim.repair(a.as_str(), b.as_str()),
            Fault::OneWay(from, to) => sim.repair_oneway(from.as_str(), to.as_str()),
            Fault::Isolation(host) => {
                others(host, &hosts).for_each(|other| sim.repair(host.as_str(), other));
            }
            Fault::Freeze(host) => {
                others(host, &hosts).for_each(|other| sim.release(host.as_str(), other));
            }
            Fault::Delay(a, b) => {
                let latency = self.world.plan.latency;
                sim.set_link_latency(a.as_str(), b.as_str(), Duration::from_millis(1));
                sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency);
            }
            Fault::Loss(a, b) => {
                sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0);
                sim.repair(a.as_str(), b.as_str());
            }
            Fault::Crash(host) | Fault::LostDisk(host) if is_there(host) => {
                sim.bounce(host.as_str());
            }
            Fault::Blackout(nodes) => {
                for node in nodes.iter().filter(|node| is_there(node)) {
                    sim.bounce(node.as_str());
                }
            }
            Fault::SlowDisk(node) if is_there(node) => {
                self.world.disk(node).slow_down(Duration::ZERO);
            }
            Fault::Crash(_) | Fault::LostDisk(_) | Fault::SlowDisk(_) => {}
            Fault::Lag(gateway) => self.world.lag_behind(gateway, 0),
        }
        self.world.journal.fault_ends(running.window, now);
    }
}

fn others<'a>(host: &'a str, hosts: &'a [String]) -> impl Iterator<Item = &'a str> {
    let others = hosts.iter().map(String::as_str);
    others.filter(move |other| *other != host)
}

/// The links that a fault is on, a host with itself for what is in it.
fn touched<'a>(fault: &'a Fault, hosts: &'a [String]) -> BTreeSet<(&'a str, &'a str)> {
    let pair = |a: &'a str, b: &'a str| if a < b { (a, b) } else { (b, a) };
    match fault {
        Fault::Partition(a, b) | Fault::OneWay(a, b) | Fault::Delay(a, b) | Fault::Loss(a, b) => {
            BTreeSet::from([pair(a, b)])
        }
        Fault::Isolation(host) | Fault::Freeze(host) => {
            others(host, hosts).map(|other| pair(host, other)).collect()
        }
        Fault::Blackout(nodes) => nodes
            .iter()
            .map(|node| (node.as_str(), node.as_str()))
            .collect(),
        Fault::Crash(host) | Fault::LostDisk(host) | Fault::SlowDisk(host) | Fault::Lag(host) => {
            BTreeSet::from([(host.as_str(), host.as_str())])
        }
    }
}
