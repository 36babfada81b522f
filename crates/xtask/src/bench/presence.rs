//! The store asked which of a thousand blobs it lacks, as a build's first request does: one thread, no server.
//!
//! Every blob is under a lease when the clock starts, so nothing is written: that is the steady state of a cache.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use zimcache_types::Digest;

use super::{
    Bench,
    corpus::{Blob, Payload},
    machine,
    random::Random,
    result::Sample,
    rows::Row,
    store::Segments,
};

/// Size of the blobs held.
const BLOB_BYTES: u64 = 64;
/// Digests asked for at once.
const DIGESTS: usize = 1_000;
/// Requests asked in turn, so that none finds what it needs in the processor's caches.
const REQUESTS: usize = 200;
/// Shares of the digests that are there, in percent.
pub(super) const SHARES: [usize; 3] = [0, 50, 100];

/// A row for each share: microseconds of a look-up.
pub(super) fn run(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    machine::unpin()?;
    let payload = Payload::new(BLOB_BYTES);
    let segments = Segments::open(&bench.folder(&row.id, row.judged), &payload, BLOB_BYTES)?;
    let held = payload.uniform(bench.scale.held, BLOB_BYTES, 0);
    segments.fill(&held)?;
    let others = payload.uniform(bench.scale.held, BLOB_BYTES, 1);
    machine::pin_generator()?;
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        for share in SHARES {
            let mut random = Random::new(round as u64);
            let mut draw = |_| request(&mut random, [&held, &others], share);
            let requests: Vec<Vec<Digest>> = (0..REQUESTS).map(&mut draw).collect();
            let latency = ask(&segments, &requests, share, bench.scale.store_measure)?;
            let micros = |percentile| latency.value_at_percentile(percentile) as f64 / 1e3;
            let sample = Sample::new(row.judged, round, micros(50.0)).with("p99_us", micros(99.0));
            let id = row_id(share);
            bench.say(&id, row.unit, &sample);
            samples.push((id, sample));
        }
    }
    segments.close();
    Ok(samples)
}

/// The name of the row of a share.
pub(super) fn row_id(share: usize) -> String {
    format!("store-missing-{share}")
}

/// Digests of which a share is held.
fn request(random: &mut Random, [held, others]: [&[Blob]; 2], share: usize) -> Vec<Digest> {
    let mut draw = |number: usize| {
        let from = if number % 100 < share { held } else { others };
        let blob = &from[random.below(from.len() as u64) as usize];
        Digest::sized(blob.hash, blob.length)
    };
    (0..DIGESTS).map(&mut draw).collect()
}

/// Asks in turn until the time is up; how long each answer took.
fn ask(
    segments: &Segments,
    requests: &[Vec<Digest>],
    share: usize,
    limit: Duration,
) -> Result<Histogram<u64>> {
    for request in requests {
        segments.missing(request)?;
    }
    let mut latency = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
    let start = Instant::now();
    for request in requests.iter().cycle() {
        let before = Instant::now();
        let missing = segments.missing(request)?;
        let now = Instant::now();
        latency.saturating_record(now.duration_since(before).as_nanos() as u64);
        let found = missing.iter().filter(|missing| !**missing).count();
        ensure!(found == DIGESTS * share / 100, "{found} of {DIGESTS} found");
        if now.duration_since(start) > limit {
            break;
        }
    }
    Ok(latency)
}
