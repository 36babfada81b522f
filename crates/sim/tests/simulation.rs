//! Rows 20 to 26 of the test plan: a cluster under faults keeps its promises, seed by seed.
//!
//! `ZIMCACHE_SIM_SEED=n` replays one seed; `cargo run -p zimcache-sim -- n --log zimcache=debug` shows its logs.
//! `ZIMCACHE_TEST_SCALE` multiplies the number of seeds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests report by panicking, and print what they did"
)]

use std::process::{Command, Output};

/// Seeds of a run at scale 1.
const SEEDS: u64 = 250;
/// Tests that share them, so that they run beside one another.
const PARTS: u64 = 5;

/// Reads a variable that only tests know.
#[allow(
    clippy::disallowed_methods,
    reason = "volumes of tests come from the environment, not from configuration"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The seeds of a part, or the one that is to be replayed.
fn seeds(part: u64) -> Vec<u64> {
    if let Some(seed) = variable("ZIMCACHE_SIM_SEED") {
        return vec![seed.parse().expect("ZIMCACHE_SIM_SEED is a number")];
    }
    let scale = variable("ZIMCACHE_TEST_SCALE").map_or(1.0, |text| {
        text.parse().expect("ZIMCACHE_TEST_SCALE is a number")
    });
    #[allow(clippy::cast_sign_loss, reason = "scales are positive")]
    let count = (SEEDS as f64 * scale) as u64;
    (0..count).filter(|seed| seed % PARTS == part).collect()
}

/// Plays a seed in a process of its own.
fn run(seed: u64) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zimcache-sim"));
    command.arg(seed.to_string()).output().unwrap()
}

/// What a run said.
fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn play(part: u64) {
    let seeds = seeds(part);
    let mut failed = Vec::new();
    for seed in &seeds {
        let output = run(*seed);
        if !output.status.success() {
            let binary = env!("CARGO_BIN_EXE_zimcache-sim");
            println!(
                "SEED={seed}: replay with {binary} {seed}\n{}",
                said(&output)
            );
            failed.push(*seed);
        }
    }
    println!("rows 20-26: {} seeds", seeds.len());
    assert!(failed.is_empty(), "seeds {failed:?} broke a promise");
}

#[test]
fn every_promise_is_kept_in_the_first_part_of_the_seeds() {
    play(0);
}

#[test]
fn every_promise_is_kept_in_the_second_part_of_the_seeds() {
    play(1);
}

#[test]
fn every_promise_is_kept_in_the_third_part_of_the_seeds() {
    play(2);
}

#[test]
fn every_promise_is_kept_in_the_fourth_part_of_the_seeds() {
    play(3);
}

#[test]
fn every_promise_is_kept_in_the_fifth_part_of_the_seeds() {
    play(4);
}

#[test]
fn a_seed_plays_the_same_every_time() {
    for seed in 1000..1005 {
        let (first, second) = (said(&run(seed)), said(&run(seed)));
        assert_eq!(first, second, "seed {seed}");
        assert!(first.contains("trace"), "{first}");
    }
}
