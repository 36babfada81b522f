//! The fuzz corpora as ordinary tests: every committed input, and mutations of it, through every decoder.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use zimcache_node::testing::{
    SimRng,
    decoders::{TARGETS, Target},
};

use crate::volume::Row;

/// Longest one input may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no corpus");
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

fn try_one(target: Target, data: &[u8]) -> Result<(), String> {
    let started = Instant::now();
    target(data);
    let took = started.elapsed();
    (took < PATIENCE)
        .then_some(())
        .ok_or_else(|| format!("{} bytes took {took:?}", data.len()))
}

#[test]
fn every_committed_input_passes_its_decoder() {
    for (name, target) in TARGETS {
        for (path, data) in corpus(name) {
            try_one(target, &data).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        }
    }
}

/// Flips, overwrites, repeats or cuts some of the bytes.
fn mutate(rng: &mut SimRng, data: &mut Vec<u8>) {
    for _ in 0..=rng.below(6) {
        let at = rng.index(data.len().max(1));
        match rng.below(5) {
            0 if at < data.len() => data[at] ^= 1 << rng.below(8),
            1 if at < data.len() => data[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => data.truncate(at),
            3 => {
                let more = rng.index(40);
                data.extend(rng.bytes(more));
            }
            _ => {
                let again = data[at.min(data.len())..].to_vec();
                data.extend(again.iter().take(64));
            }
        }
    }
}

#[test]
fn mutations_of_the_committed_inputs_break_no_decoder() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        let (wanted, seconds) = if name == "recovery" {
            (400, 10)
        } else {
            (20_000, 2)
        };
        Row::new(name, wanted, seconds).run(|seed| {
            let mut rng = SimRng::new(seed);
            let mut data = rng.pick(&inputs).1.clone();
            mutate(&mut rng, &mut data);
            try_one(target, &data)
        });
    }
}

#[test]
fn arbitrary_bytes_break_no_decoder() {
    for (name, target) in TARGETS {
        let (wanted, seconds) = if name == "recovery" {
            (400, 10)
        } else {
            (5000, 2)
        };
        Row::new(name, wanted, seconds).run(|seed| {
            let mut rng = SimRng::new(seed);
            let len = rng.index(2000);
            try_one(target, &rng.bytes(len))
        });
    }
}
