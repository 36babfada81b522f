//! `cargo xtask policies`: which eviction policy hits most often, on a trace of requests.
//!
//! A trace is replayed through caches of several capacities; a miss is followed by an upload, as in a build. Without
//! a file the trace is made from a seed: branches built again and again, targets that differ in popularity, a main
//! line that moves on, nightly builds that touch everything once. Not here: the engine; its way of evicting whole
//! segments is rebuilt in `segments`.

mod exact;
mod segments;
mod trace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

use exact::{Fifo, Lfu, Lru};
use segments::Segments;
use trace::{Request, Trace};

/// Capacities, in hundredths of the bytes of all distinct objects.
const CAPACITIES: [u64; 5] = [2, 5, 10, 20, 40];
/// How long the TTL policy keeps an object, in seconds.
const TTL_SECONDS: u64 = 7 * 24 * 3600;

/// Options of the comparison.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A trace: a request per line as `seconds key bytes`, `#` starts a comment [default: one made from the seed].
    trace: Option<PathBuf>,
    /// Seed of the trace that is made.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Days of the trace that is made.
    #[arg(long, default_value_t = 21)]
    days: u64,
}

/// A cache that decides what it keeps.
trait Policy {
    /// Whether an object is there; counts as a use.
    fn get(&mut self, request: Request) -> bool;

    /// Takes in an object that was not there.
    fn put(&mut self, request: Request);
}

/// What a policy reached on a trace.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Score {
    requests: u64,
    hits: u64,
    bytes: u64,
    hit_bytes: u64,
}

impl Score {
    fn percent(part: u64, all: u64) -> f64 {
        part as f64 * 100.0 / all.max(1) as f64
    }
}

/// Replays the trace and prints a table.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let trace = match &args.trace {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Trace::parse(&text)?
        }
        None => Trace::synthetic(args.seed, args.days),
    };
    println!(
        "{} requests for {} objects of {} MiB in all",
        trace.requests.len(),
        trace.objects(),
        trace.distinct_bytes() >> 20
    );
    println!("\n| capacity | policy | hits | hits by bytes |\n| --- | --- | --- | --- |");
    for percent in CAPACITIES {
        let capacity = trace.distinct_bytes() * percent / 100;
        for (name, mut policy) in policies(&trace, capacity) {
            let score = replay(&trace, policy.as_mut());
            println!(
                "| {percent} % | {name} | {:.1} % | {:.1} % |",
                Score::percent(score.hits, score.requests),
                Score::percent(score.hit_bytes, score.bytes)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn policies(trace: &Trace, capacity: u64) -> [(&'static str, Box<dyn Policy>); 4] {
    let objects = trace.objects();
    [
        (
            "S3-FIFO by segments",
            Box::new(Segments::new(objects, capacity)),
        ),
        ("LRU", Box::new(Lru::new(objects, capacity))),
        ("LFU", Box::new(Lfu::new(objects, capacity))),
        (
            "TTL of 7 days, FIFO",
            Box::new(Fifo::new(objects, capacity, TTL_SECONDS)),
        ),
    ]
}

fn replay(trace: &Trace, policy: &mut dyn Policy) -> Score {
    let mut score = Score::default();
    for request in &trace.requests {
        score.requests += 1;
        score.bytes += request.bytes;
        if policy.get(*request) {
            score.hits += 1;
            score.hit_bytes += request.bytes;
        } else {
            policy.put(*request);
        }
    }
    score
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests for these objects in turn, a second apart, each of 100 bytes.
    fn trace_of(objects: &[u32]) -> Trace {
        let requests = objects.iter().zip(0..).map(|(object, seconds)| Request {
            seconds,
            object: *object,
            bytes: 100,
        });
        Trace::new(requests.collect())
    }

    #[test]
    fn lru_keeps_what_was_used_last_and_lfu_what_was_used_most() {
        let trace = trace_of(&[0, 0, 0, 1, 2, 0]);
        assert_eq!(replay(&trace, &mut Lru::new(3, 200)).hits, 2);
        assert_eq!(replay(&trace, &mut Lfu::new(3, 200)).hits, 3);
        let trace = trace_of(&[0, 1, 0, 2, 0, 1]);
        assert_eq!(replay(&trace, &mut Lru::new(3, 200)).hits, 2);
        assert_eq!(replay(&trace, &mut Fifo::new(3, 200, 1000)).hits, 1);
    }

    #[test]
    fn a_time_to_live_ends_hits() {
        let trace = trace_of(&[0, 0, 0, 0, 0, 0]);
        assert_eq!(replay(&trace, &mut Fifo::new(1, 1000, 3)).hits, 4);
    }

    #[test]
    fn segments_keep_used_objects_through_a_scan_that_lru_does_not_survive() {
        // Ten objects used again and again, and between two rounds a scan of more than fits.
        let mut order = Vec::new();
        for round in 0..50u32 {
            order.extend((0..10).chain(0..10));
            order.extend((0..2000).map(|n| 100 + round * 2000 + n));
        }
        let trace = trace_of(&order);
        let segments = replay(&trace, &mut Segments::new(trace.objects(), 100_000)).hits;
        let lru = replay(&trace, &mut Lru::new(trace.objects(), 100_000)).hits;
        assert!(segments > lru + 300, "{segments} {lru}");
    }

    #[test]
    fn every_policy_keeps_to_its_capacity() {
        let trace = Trace::synthetic(3, 1);
        let unlimited = trace.distinct_bytes() * 2;
        let most = replay(&trace, &mut Lru::new(trace.objects(), unlimited)).hits;
        for (name, mut policy) in policies(&trace, trace.distinct_bytes() / 20) {
            let hits = replay(&trace, policy.as_mut()).hits;
            assert!(hits < most, "{name}: {hits} of {most}");
        }
    }
}
