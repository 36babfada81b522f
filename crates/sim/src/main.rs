//! Plays seeds of the simulation: `zimcache-sim 17` says what became of the 17th, and fails when a promise was broken.
//!
//! One seed a process: the runtime counts through a process, so that a second seed in it would depend on the first.
//! `--log zimcache=debug` shows the logs with virtual time, `--history <file>` keeps what clients saw, `--bug <name>`
//! switches a bug on.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a program of tests, which says what it did"
)]

use std::process::ExitCode;

use zimcache_sim::{Bug, Report, log, run};

/// What is wanted.
struct Args {
    seed: u64,
    log: Option<String>,
    history: Option<String>,
    bug: Option<Bug>,
}

fn args() -> Option<Args> {
    let mut words = std::env::args().skip(1);
    let mut args = Args {
        seed: words.next()?.parse().ok()?,
        log: None,
        history: None,
        bug: None,
    };
    while let Some(word) = words.next() {
        let value = Some(words.next()?);
        match word.as_str() {
            "--log" => args.log = value,
            "--history" => args.history = value,
            "--bug" => args.bug = Some(Bug::named(&value?)?),
            _ => return None,
        }
    }
    Some(args)
}

fn main() -> ExitCode {
    let Some(args) = args() else {
        println!("usage: zimcache-sim <seed> [--log <filter>] [--history <file>] [--bug <name>]");
        return ExitCode::from(2);
    };
    if let Some(filter) = &args.log {
        log(filter);
    }
    let report = run(args.seed, args.bug);
    if let Some(path) = &args.history {
        keep(&report, path);
    }
    for line in report.complaints() {
        println!("  {line}");
    }
    println!("{report}");
    if report.is_silent() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn keep(report: &Report, path: &str) {
    let file = std::fs::File::create(path).expect("the history's file can be made");
    let written = report.history.write(std::io::BufWriter::new(file));
    written.expect("the history can be written");
}
