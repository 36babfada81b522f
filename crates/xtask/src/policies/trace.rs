//! Traces of requests: read from a file, or made from a seed in the likeness of continuous integration.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use zimcache_node::testing::SimRng;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) seconds: u64,
    /// Which object, counted from 0.
    pub(super) object: u32,
    pub(super) bytes: u64,
}

/// Requests in the order of time.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) requests: Vec<Request>,
    sizes: HashMap<u32, u64>,
}

/// Targets of the made-up repository.
const TARGETS: usize = 12_000;
/// Builds a day, and open branches.
const BUILDS_PER_DAY: u64 = 80;
const BRANCHES: usize = 25;
/// Targets that one change rebuilds, of a thousand.
const CHANGE_PERMILLE: usize = 12;
/// Targets that a build asks for, of a thousand: it names a few, and those need others.
const BUILD_PERMILLE: usize = 150;

impl Trace {
    pub(super) fn new(requests: Vec<Request>) -> Trace {
        let sizes = requests.iter().map(|r| (r.object, r.bytes)).collect();
        Trace { requests, sizes }
    }

    /// Reads `seconds key bytes` per line.
    pub(super) fn parse(text: &str) -> Result<Trace> {
        let mut objects: HashMap<&str, u32> = HashMap::new();
        let mut requests = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            ensure!(
                words.len() == 3,
                "line {number}: expected `seconds key bytes`"
            );
            let next = objects.len() as u32;
            requests.push(Request {
                seconds: words[0].parse().with_context(|| format!("line {number}"))?,
                object: *objects.entry(words[1]).or_insert(next),
                bytes: words[2].parse().with_context(|| format!("line {number}"))?,
            });
        }
        Ok(Trace::new(requests))
    }

    /// Some days of a repository with branches.
    pub(super) fn synthetic(seed: u64, days: u64) -> Trace {
        let mut repository = Repository::new(seed);
        let mut requests = Vec::new();
        for day in 0..days {
            for build in 0..BUILDS_PER_DAY {
                let seconds = day * 86_400 + build * 86_400 / BUILDS_PER_DAY;
                repository.build(seconds, &mut requests);
            }
            repository.nightly(day * 86_400 + 86_399, &mut requests);
        }
        Trace::new(requests)
    }

    /// How many objects there are; the highest number and one.
    pub(super) fn objects(&self) -> usize {
        self.sizes.keys().max().map_or(0, |most| *most as usize + 1)
    }

    /// Bytes of all objects, each counted once.
    pub(super) fn distinct_bytes(&self) -> u64 {
        self.sizes.values().sum()
    }
}

/// The outputs of every target, in one state of the sources.
#[derive(Debug, Clone)]
struct Line {
    outputs: Vec<u32>,
}

struct Repository {
    rng: SimRng,
    main: Line,
    branches: Vec<Line>,
    /// Bytes of every output made so far.
    sizes: Vec<u64>,
}

impl Repository {
    fn new(seed: u64) -> Repository {
        let mut repository = Repository {
            rng: SimRng::new(seed),
            main: Line {
                outputs: Vec::new(),
            },
            branches: Vec::new(),
            sizes: Vec::new(),
        };
        for _ in 0..TARGETS {
            let output = repository.output();
            repository.main.outputs.push(output);
        }
        repository.branches = vec![repository.main.clone(); BRANCHES];
        repository
    }

    /// A new output, with a size as build outputs have: half below 1 KiB, a few of several MiB.
    fn output(&mut self) -> u32 {
        let rng = &mut self.rng;
        let bytes = match rng.below(100) {
            0..45 => 80 + rng.below(944),
            45..75 => 1024 + rng.below(3072),
            75..92 => 4096 + rng.below(60 << 10),
            92..96 => (64 << 10) + rng.below(2 << 20),
            _ => (2 << 20) + rng.below(6 << 20),
        };
        self.sizes.push(bytes);
        (self.sizes.len() - 1) as u32
    }

    /// New outputs for a target and those behind it, as a change of a source has them.
    fn change(&mut self, line: &mut Line) {
        let count = 1 + self.rng.index(TARGETS * CHANGE_PERMILLE / 500);
        let first = self.popular();
        for target in first..(first + count).min(TARGETS) {
            line.outputs[target] = self.output();
        }
    }

    /// A target; low numbers are drawn far more often.
    #[allow(clippy::cast_sign_loss, reason = "between 0 and the number of targets")]
    fn popular(&mut self) -> usize {
        let skewed = (TARGETS as f64).powf(self.rng.unit());
        (skewed as usize).min(TARGETS - 1)
    }

    /// A branch moves on and is built; now and then it is merged and another begins.
    fn build(&mut self, seconds: u64, requests: &mut Vec<Request>) {
        let at = self.rng.index(BRANCHES);
        let mut branch = self.branches[at].clone();
        match self.rng.below(10) {
            0 => {
                let mut main = self.main.clone();
                self.change(&mut main);
                self.main = main.clone();
                branch = main;
            }
            1..6 => self.change(&mut branch),
            // The same again: a retry, or another job of the same commit.
            _ => {}
        }
        let wanted = TARGETS * BUILD_PERMILLE / 1000;
        let mut asked = vec![false; TARGETS];
        while asked.iter().filter(|asked| **asked).count() < wanted {
            let first = self.popular();
            let last = (first + 150).min(TARGETS);
            asked[first..last].fill(true);
        }
        for target in (0..TARGETS).filter(|target| asked[*target]) {
            let object = branch.outputs[target];
            requests.push(Request {
                seconds,
                object,
                bytes: self.sizes[object as usize],
            });
        }
        self.branches[at] = branch;
    }

    /// A third of everything, built from nothing with other flags: asked for once and never again.
    fn nightly(&mut self, seconds: u64, requests: &mut Vec<Request>) {
        for _ in 0..TARGETS / 3 {
            let object = self.output();
            requests.push(Request {
                seconds,
                object,
                bytes: self.sizes[object as usize],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_reads_lines_and_skips_comments() {
        let trace = Trace::parse("# a trace\n0 a 10\n\n5 b 20 # again\n6 a 10\n").unwrap();
        let objects: Vec<u32> = trace.requests.iter().map(|r| r.object).collect();
        assert_eq!(objects, [0, 1, 0]);
        assert_eq!((trace.objects(), trace.distinct_bytes()), (2, 30));
        assert!(Trace::parse("0 a").is_err());
        assert!(Trace::parse("0 a many").is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_trace() {
        let (one, same, other) = (
            Trace::synthetic(1, 1),
            Trace::synthetic(1, 1),
            Trace::synthetic(2, 1),
        );
        assert_eq!(one.requests, same.requests);
        assert_ne!(one.requests, other.requests);
    }
}
