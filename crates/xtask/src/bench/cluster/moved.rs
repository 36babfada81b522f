//! Keys that change their owners when a fourth node joins three: computed from the ring, no process is started.

use anyhow::Result;
use zimcache_ring::{Change, Document, Member, Point, Ring, next};

use super::super::{Bench, random::Random, result::Sample, rows::Row};

/// Keys looked at.
const KEYS: usize = 1_000_000;

/// Measures the row: a round is a set of names, which decide the places on the ring.
pub(super) fn run(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let sample = Sample::new(row.judged, round, 100.0 * moved(round)?);
        bench.say(&row.id, row.unit, &sample);
        samples.push((row.id.clone(), sample));
    }
    Ok(samples)
}

/// The share of copies that have to move.
fn moved(round: usize) -> Result<f64> {
    let member = |number| Member::new(format!("node-{round}-{number}"));
    let before = Document::first(2, (0..3).map(member).collect())?;
    let join = Change::Join {
        members: vec![member(3)],
    };
    let ring = Ring::new(&next(&before, &join)?);
    let mut random = Random::new(round as u64);
    let (mut copies, mut gained) = (0, 0);
    for _ in 0..KEYS {
        let owners = ring.read_set(Point(random.next()));
        copies += owners.current.len();
        let is_new = |node: &&_| !owners.previous.contains(node);
        gained += owners.current.iter().filter(is_new).count();
    }
    Ok(gained as f64 / copies as f64)
}
