//! What is done to a cluster, by seed: one fault after the other, each for a while, some at the same time.
//!
//! Invariant: at most one disk lacks what it should have: the next one is wiped only when everything is on as many
//! disks as it should be. Whatever is broken is whole again when the run is over.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::client::Recorder;
use super::wire::Rule;
use super::{Cluster, REDIS, S3};
use crate::content::Random;
use crate::loop_disk::fill;
use crate::report::say;

const PAUSE: Duration = Duration::from_millis(20);
/// A line of a megabit.
const SLOW_BYTES_PER_SECOND: u64 = 125_000;
/// What a full disk has left.
const LEFT_BYTES: u64 = 256 << 10;

/// How long it takes, and how close faults come.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the first fault to the last.
    pub length: Duration,
    /// Between two faults.
    pub gap: (Duration, Duration),
    /// How long one lasts.
    pub lasts: (Duration, Duration),
}

impl Pace {
    /// For a run of this length: short faults in a short run.
    pub fn of(length: Duration) -> Pace {
        let seconds = Duration::from_secs;
        if length <= Duration::from_mins(2) {
            return Pace {
                length,
                gap: (seconds(2), seconds(6)),
                lasts: (seconds(1), seconds(7)),
            };
        }
        Pace {
            length,
            gap: (seconds(4), seconds(12)),
            lasts: (seconds(2), seconds(30)),
        }
    }
}

/// What can be done, each with how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillNode,
    RestartNode,
    PauseNode,
    KillGateway,
    PauseGateway,
    CutNodes,
    CutGateway,
    Isolate,
    Slow,
    Wipe,
    NoBucket,
    NoRedis,
    FullDisk,
}

const FAULTS: [(Fault, u64); 13] = [
    (Fault::KillNode, 6),
    (Fault::RestartNode, 2),
    (Fault::PauseNode, 4),
    (Fault::KillGateway, 2),
    (Fault::PauseGateway, 1),
    (Fault::CutNodes, 4),
    (Fault::CutGateway, 4),
    (Fault::Isolate, 3),
    (Fault::Slow, 2),
    (Fault::Wipe, 4),
    (Fault::NoBucket, 3),
    (Fault::NoRedis, 1),
    (Fault::FullDisk, 2),
];

/// How something is made whole again.
#[derive(Debug)]
enum Cure {
    StartNode(usize),
    GoOnNode(usize),
    StartGateway(usize),
    GoOnGateway(usize),
    Mend(Vec<(String, String)>),
    StartBucket,
    StartRedis,
    Free(PathBuf),
}

#[derive(Debug)]
struct Wound {
    what: String,
    /// Of what nobody else may break anything meanwhile.
    of: Vec<String>,
    since: u64,
    ends: Instant,
    cure: Cure,
}

/// The one who breaks things.
#[derive(Debug)]
pub struct Chaos<'a> {
    cluster: &'a mut Cluster,
    recorder: &'a Recorder,
    random: Random,
    wounds: Vec<Wound>,
    /// A disk of its own that can be filled: of which node, and where.
    small_disk: Option<(usize, PathBuf)>,
    /// Since a disk was wiped, not everything is where it should be.
    is_thin: bool,
    done: usize,
}

impl<'a> Chaos<'a> {
    /// Breaks nothing yet.
    pub fn new(cluster: &'a mut Cluster, recorder: &'a Recorder, seed: u64) -> Chaos<'a> {
        Chaos {
            cluster,
            recorder,
            random: Random::new(seed),
            wounds: Vec::new(),
            small_disk: None,
            is_thin: false,
            done: 0,
        }
    }

    /// The disk of this node is a file system of its own, which may be filled.
    #[must_use]
    pub fn may_fill(mut self, node: usize, disk: PathBuf) -> Chaos<'a> {
        self.small_disk = Some((node, disk));
        self
    }

    /// Breaks things until the time is over, then makes all of them whole; returns how many it broke.
    ///
    /// # Errors
    /// When something cannot be broken or mended: a process that died of its own accord, say.
    pub fn run(mut self, pace: Pace) -> Result<usize> {
        let end = Instant::now() + pace.length;
        let mut next = Instant::now() + self.between(pace.gap);
        while Instant::now() < end {
            self.cure_those_due(Instant::now())?;
            if Instant::now() >= next {
                let ends = (Instant::now() + self.between(pace.lasts)).min(end);
                self.strike(ends)?;
                next = Instant::now() + self.between(pace.gap);
            }
            std::thread::sleep(PAUSE);
        }
        self.cure_those_due(end + pace.length)?;
        self.cluster.heal()?;
        Ok(self.done)
    }

    fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        let spread = (most.saturating_sub(least)).as_millis() as u64;
        least + Duration::from_millis(self.random.below(spread.max(1)))
    }

    fn cure_those_due(&mut self, now: Instant) -> Result<()> {
        let (due, open) = std::mem::take(&mut self.wounds)
            .into_iter()
            .partition::<Vec<_>, _>(|wound| wound.ends <= now);
        self.wounds = open;
        for wound in due {
            self.cure(&wound.cure)
                .with_context(|| format!("after: {}", wound.what))?;
            self.recorder.was_broken(&wound.what, wound.since);
        }
        Ok(())
    }

    fn cure(&mut self, cure: &Cure) -> Result<()> {
        match cure {
            Cure::StartNode(node) => self.cluster.nodes[*node].start(),
            Cure::GoOnNode(node) => self.cluster.nodes[*node].process()?.go_on(),
            Cure::StartGateway(gateway) => self.cluster.gateways[*gateway].start(),
            Cure::GoOnGateway(gateway) => self.cluster.gateways[*gateway].process()?.go_on(),
            Cure::Mend(ways) => {
                for (from, to) in ways {
                    self.cluster.wires.put(from, to, Rule::default());
                }
                Ok(())
            }
            Cure::StartBucket => begin(self.cluster, S3),
            Cure::StartRedis => begin(self.cluster, REDIS),
            Cure::Free(ballast) => Ok(std::fs::remove_file(ballast)?),
        }
    }

    /// Breaks something that is whole; nothing when chance chose something that is broken already.
    fn strike(&mut self, ends: Instant) -> Result<()> {
        let since = self.recorder.now();
        let total: u64 = FAULTS.iter().map(|(_, often)| often).sum();
        let mut at = self.random.below(total);
        let mut faults = FAULTS.iter();
        let fault = faults.find(|(_, often)| {
            let found = at < *often;
            at = at.saturating_sub(*often);
            found
        });
        let Some((fault, _)) = fault else {
            return Ok(());
        };
        let Some((what, of, cure)) = self.inflict(*fault)? else {
            return Ok(());
        };
        say(&format!("{:>6.1} s: {what}", since as f64 / 1e6));
        self.done += 1;
        self.wounds.push(Wound {
            what,
            of,
            since,
            ends,
            cure,
        });
        Ok(())
    }

    fn is_whole(&self, name: &str) -> bool {
        let broken = |wound: &Wound| wound.of.iter().any(|of| of == name);
        !self.wounds.iter().any(broken)
    }

    /// A node or gateway of which nothing is broken.
    fn pick(&mut self, names: &[String]) -> Option<usize> {
        let whole = (0..names.len()).filter(|number| self.is_whole(&names[*number]));
        let whole: Vec<usize> = whole.collect();
        let count = whole.len() as u64;
        (count > 0).then(|| whole[self.random.below(count) as usize])
    }

    fn node_names(&self) -> Vec<String> {
        let nodes = self.cluster.nodes.iter();
        nodes.map(|node| node.name().to_owned()).collect()
    }

    fn gateway_names(&self) -> Vec<String> {
        let gateways = self.cluster.gateways.iter();
        gateways.map(|gateway| gateway.name().to_owned()).collect()
    }

    fn inflict(&mut self, fault: Fault) -> Result<Option<Inflicted>> {
        match fault {
            Fault::KillNode | Fault::RestartNode | Fault::PauseNode | Fault::Wipe => {
                self.break_node(fault)
            }
            Fault::KillGateway | Fault::PauseGateway => self.break_gateway(fault),
            Fault::CutNodes | Fault::CutGateway | Fault::Isolate | Fault::Slow => {
                Ok(self.break_wires(fault))
            }
            Fault::NoBucket | Fault::NoRedis => self.break_backing(fault),
            Fault::FullDisk => self.fill_disk(),
        }
    }

    fn break_node(&mut self, fault: Fault) -> Result<Option<Inflicted>> {
        let names = self.node_names();
        let Some(number) = self.pick(&names) else {
            return Ok(None);
        };
        if fault == Fault::Wipe && !self.may_wipe() {
            return Ok(None);
        }
        let (name, node) = (names[number].clone(), &mut self.cluster.nodes[number]);
        let (what, cure) = match fault {
            Fault::PauseNode => {
                node.process()?.stand_still()?;
                ("stands still", Cure::GoOnNode(number))
            }
            Fault::RestartNode => {
                node.stop()?;
                ("is stopped", Cure::StartNode(number))
            }
            Fault::Wipe => {
                node.kill_9()?;
                node.wipe()?;
                self.is_thin = true;
                ("is killed, and its disk wiped", Cure::StartNode(number))
            }
            _ => {
                node.kill_9()?;
                ("is killed", Cure::StartNode(number))
            }
        };
        Ok(Some((format!("{name} {what}"), vec![name], cure)))
    }

    /// Whether everything is on as many disks as it should be.
    fn may_wipe(&mut self) -> bool {
        if self.is_thin {
            let nodes = &self.cluster.nodes;
            self.is_thin = !nodes.iter().all(|node| {
                let standing = node.is_running().then(|| node.status().ok()).flatten();
                standing.is_some_and(|now| !now.catching_up && now.hints == 0)
            });
        }
        !self.is_thin
    }

    fn break_gateway(&mut self, fault: Fault) -> Result<Option<Inflicted>> {
        let names = self.gateway_names();
        let Some(number) = self.pick(&names) else {
            return Ok(None);
        };
        let (name, gateway) = (names[number].clone(), &mut self.cluster.gateways[number]);
        let (what, cure) = if fault == Fault::PauseGateway {
            gateway.process()?.stand_still()?;
            ("stands still", Cure::GoOnGateway(number))
        } else {
            gateway.kill_9()?;
            ("is killed", Cure::StartGateway(number))
        };
        Ok(Some((format!("{name} {what}"), vec![name], cure)))
    }

    fn break_wires(&mut self, fault: Fault) -> Option<Inflicted> {
        let (nodes, gateways) = (self.node_names(), self.gateway_names());
        let to = nodes[self.pick(&nodes)?].clone();
        let rules = [
            ("held", Rule::held()),
            ("held on its way back", Rule::held_back()),
            ("refused", Rule::refused()),
        ];
        let (mut how, mut rule) = rules[self.random.below(3) as usize];
        if fault == Fault::Slow {
            (how, rule) = ("slow", Rule::slow(SLOW_BYTES_PER_SECOND));
        }
        let from = match fault {
            Fault::CutGateway => {
                vec![gateways[self.random.below(gateways.len() as u64) as usize].clone()]
            }
            Fault::CutNodes => {
                let others = nodes.iter().filter(|node| **node != to);
                let others: Vec<_> = others.cloned().collect();
                vec![others[self.random.below(others.len() as u64) as usize].clone()]
            }
            _ => {
                let others = nodes.iter().chain(&gateways).filter(|node| **node != to);
                others.cloned().collect()
            }
        };
        let mut ways: Vec<_> = from.iter().map(|from| (from.clone(), to.clone())).collect();
        let what = match &*from {
            [from] => format!("from {from} to {to} everything is {how}"),
            _ => format!("to {to} everything is {how}"),
        };
        // Half of the partitions are in both directions.
        let is_mutual = fault == Fault::Isolate && self.random.below(2) == 0;
        if is_mutual {
            let others = nodes.iter().filter(|node| **node != to);
            ways.extend(others.map(|other| (to.clone(), other.clone())));
            ways.push((to.clone(), S3.to_owned()));
        }
        for (from, to) in &ways {
            self.cluster.wires.put(from, to, rule);
        }
        let what = what + if is_mutual { ", and from there" } else { "" };
        Some((what, vec![to], Cure::Mend(ways)))
    }

    fn break_backing(&mut self, fault: Fault) -> Result<Option<Inflicted>> {
        let (name, from, start) = match fault {
            Fault::NoBucket => (S3, self.node_names(), Cure::StartBucket),
            _ => (REDIS, self.gateway_names(), Cure::StartRedis),
        };
        if !self.is_whole(name) {
            return Ok(None);
        }
        let is_killed = self.random.below(2) == 0;
        let backing = if name == S3 {
            &mut self.cluster.s3
        } else {
            &mut self.cluster.redis
        };
        let Some(backing) = backing else {
            return Ok(None);
        };
        if is_killed {
            backing.kill()?;
            return Ok(Some((
                format!("{name} is killed"),
                vec![name.to_owned()],
                start,
            )));
        }
        let ways = from.into_iter().map(|from| (from, name.to_owned()));
        let ways: Vec<_> = ways.collect();
        for (from, to) in &ways {
            self.cluster.wires.put(from, to, Rule::held());
        }
        let what = format!("to {name} everything is held");
        Ok(Some((what, vec![name.to_owned()], Cure::Mend(ways))))
    }

    fn fill_disk(&mut self) -> Result<Option<Inflicted>> {
        let Some((node, disk)) = self.small_disk.clone() else {
            return Ok(None);
        };
        let name = self.cluster.nodes[node].name().to_owned();
        let of = format!("disk of {name}");
        if !self.is_whole(&name) || !self.is_whole(&of) {
            return Ok(None);
        }
        let ballast = fill(&disk, LEFT_BYTES)?;
        Ok(Some((
            format!("the {of} is full"),
            vec![of],
            Cure::Free(ballast),
        )))
    }
}

/// What was done, to whom, and how it is mended.
type Inflicted = (String, Vec<String>, Cure);

fn begin(cluster: &mut Cluster, name: &str) -> Result<()> {
    let backing = if name == S3 {
        &mut cluster.s3
    } else {
        &mut cluster.redis
    };
    let backing = backing.as_mut().context("it is not there")?;
    backing.begin()?;
    cluster.wires.is_at(name, backing.id(), backing.address());
    Ok(())
}
