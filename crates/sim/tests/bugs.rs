//! Bug seeding: the simulation finds what it is there to find. Each bug is switched on and has to be noticed in one of
//! its stored seeds, which are silent without it.
//!
//! `zimcache-sim <seed> --bug <name>` replays one. When the simulation changes its seeds do too, and seeds have to be
//! searched anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests report by panicking, and print what they did"
)]

use std::process::Command;

/// Seeds that caught each bug, the quickest first.
const CAUGHT: [(&str, &[u64]); 21] = [
    ("AcksBeforeSync", &[5, 9, 12, 32, 0, 3, 17, 25, 33, 42]),
    ("DropsHints", &[2, 6, 12, 5, 3, 15, 18, 21, 23, 25]),
    ("SettlesUndelivered", &[2, 5, 6, 12, 18, 21, 23, 27]),
    ("FetchesNothing", &[1, 4, 5, 6, 9, 11, 12, 13]),
    ("DeletesNothing", &[0, 6, 7, 8, 10, 12]),
    ("FindsEverything", &[1, 4, 5]),
    ("OwesNothing", &[3, 5, 11, 16, 18, 27, 35, 42]),
    ("PurgesBlobsOnly", &[10, 11, 24, 48, 54, 56, 57]),
    ("ServesAnotherValue", &[4, 1, 5]),
    ("CutsBodies", &[4, 1, 5]),
    ("FlipsBits", &[4, 1, 5]),
    ("KeepsNothing", &[4, 1, 5]),
    ("OlderReplacesNewer", &[6, 17, 9, 18, 22, 30, 36, 43]),
    ("ForgetsDeletions", &[4, 1, 5, 7, 8, 12, 15]),
    ("EvictsPinned", &[4, 1, 5, 6, 7, 8]),
    ("EvictsLeased", &[1, 6, 7, 8, 12, 13]),
    ("ClosesPreviousEarly", &[31, 38, 59]),
    ("FollowsStaleRing", &[6, 17, 21]),
    ("VersionsByWallClock", &[6, 16, 17, 22, 25, 30, 31, 36]),
    ("TakesSilenceForAbsence", &[7, 17, 33, 0, 40, 41, 43, 50]),
    ("CountsUnsentCopies", &[4, 1, 5]),
];

/// Whether a seed is silent, and what it said.
fn play(seed: u64, bug: Option<&str>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zimcache-sim"));
    command.arg(seed.to_string());
    if let Some(bug) = bug {
        command.args(["--bug", bug]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // A crash is no finding.
    let end = format!("seed {seed}: ");
    assert!(said.contains(&end), "{bug:?} in seed {seed}: {said}");
    (output.status.success(), said)
}

/// The bugs of a half of the table: two tests run beside one another.
fn catch(half: usize) {
    let mut missed = Vec::new();
    for (bug, seeds) in CAUGHT.iter().skip(half).step_by(2) {
        assert!(seeds.len() <= 10, "a short list for {bug}");
        match seeds.iter().find(|seed| !play(**seed, Some(bug)).0) {
            Some(seed) => {
                let (is_silent, said) = play(*seed, None);
                assert!(is_silent, "seed {seed} without {bug}: {said}");
                println!("{bug}: caught by seed {seed}");
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn every_bug_of_the_first_half_is_caught_and_without_it_all_is_silent() {
    catch(0);
}

#[test]
fn every_bug_of_the_second_half_is_caught_and_without_it_all_is_silent() {
    catch(1);
}
