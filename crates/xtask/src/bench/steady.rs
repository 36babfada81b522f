//! Rows of a steady load: every server is started once, filled alike and checked, then measured in turn, round by
//! round (A B C A B C), so that a change of the machine's mood meets all of them.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result};

use super::{
    Bench, client,
    corpus::{Blob, Payload},
    load::{self, Limit, Method, Outcome, Pace, Plan, WorkList},
    machine,
    random::Random,
    result::Sample,
    rows::{Ask, Load, Row},
    scale::{self, Scale},
    server::{self, Server},
    subject::Subject,
};

/// Seed of blobs that are read; uploads use the round.
pub(super) const READ_SEED: u64 = 1 << 40;
/// Seed of blobs that are nowhere.
pub(super) const MISS_SEED: u64 = 1 << 41;
/// Different keys that are asked for in vain.
pub(super) const MISSES: usize = 50_000;
/// How often a window without any answer is measured again.
const RETRIES: usize = 3;

/// Measures a row.
pub(super) fn run(bench: &Bench, row: &Row, load: Load) -> Result<Vec<(String, Sample)>> {
    let payload = Payload::new(load.size);
    let reads = match load.ask {
        Ask::Put => Vec::new(),
        Ask::Get { blobs } => payload.uniform(blobs, load.size, READ_SEED),
        Ask::Miss | Ask::MissResult => payload.uniform(MISSES, load.size, MISS_SEED),
    };
    let mut servers = Vec::new();
    for subject in bench.chosen(row) {
        let folder = bench.folder(&row.id, subject);
        let server = Server::start(&bench.tools, subject, &folder)?;
        if matches!(load.ask, Ask::Get { .. }) {
            provide(&folder, &server, &payload, &reads)?;
        }
        servers.push(server);
    }
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let blobs = match load.ask {
            Ask::Put => payload.uniform(upload_count(&bench.scale, load), load.size, round as u64),
            Ask::Get { .. } | Ask::Miss | Ask::MissResult => repeated_shuffle(&reads, round),
        };
        for server in &servers {
            let sample = measure(bench, server, load, &payload, &blobs, round)
                .with_context(|| format!("{}, round {}", server.subject.name(), round + 1))?;
            bench.say(&row.id, row.unit, &sample);
            samples.push((row.id.clone(), sample));
        }
    }
    Ok(samples)
}

/// Puts the blobs into a server and checks that it gives them back.
pub(super) fn provide(
    folder: &Path,
    server: &Server,
    payload: &Payload,
    blobs: &[Blob],
) -> Result<()> {
    if server.subject == Subject::Nginx {
        let folder = server::nginx_blobs(folder);
        for blob in blobs {
            fs::write(folder.join(blob.hash.to_hex()), payload.body(blob))?;
        }
    } else {
        client::fill(server.address, payload, blobs)?;
    }
    client::verify(server.address, blobs)
        .with_context(|| format!("{} does not give back what it took", server.subject.name()))
}

/// More uploads than any server manages in the time, within reason.
fn upload_count(scale: &Scale, load: Load) -> usize {
    let seconds = (scale.warm_up + scale.measure).as_secs_f64();
    let most_per_second = 80_000.0_f64.min((4_u64 << 30) as f64 / load.size as f64);
    let per_second = load.rate.map_or(most_per_second, |rate| rate * 1.2);
    (scale::whole(seconds * per_second) as usize).max(load.connections)
}

pub(super) fn repeated_shuffle(blobs: &[Blob], round: usize) -> Vec<Blob> {
    let mut shuffled = blobs.to_vec();
    Random::new(round as u64).shuffle(&mut shuffled);
    shuffled
}

/// One server under the load.
pub(super) fn measure(
    bench: &Bench,
    server: &Server,
    load: Load,
    payload: &Payload,
    blobs: &[Blob],
    round: usize,
) -> Result<Sample> {
    let (method, repeat) = match load.ask {
        Ask::Put => (Method::Put, false),
        Ask::Get { .. } => (Method::Get, true),
        Ask::Miss => (Method::Miss, true),
        Ask::MissResult => (Method::MissResult, true),
    };
    let work = WorkList::new(server.address, method, payload, blobs, repeat);
    let plan = Plan {
        address: server.address,
        connections: load.connections,
        work: &work,
        pace: load
            .rate
            .map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
        limit: Limit::Window {
            warm_up: bench.scale.warm_up,
            measure: bench.scale.measure,
        },
    };
    let watched = retried(server, &plan)?;
    // A large answer may take longer than the window is precise: its bytes are counted as they come.
    let rate = if load.size > 1 << 20 {
        watched.outcome.bytes_per_second() / load.size as f64
    } else {
        watched.outcome.per_second()
    };
    let value = load.rate.map_or(rate, |_| watched.outcome.micros_at(99.0));
    Ok(watched
        .sample(server.subject, round, value)
        .with("per_server_core_s", watched.per_server_core(rate)))
}

/// A window in which nothing came back says little about the server: measures again, a few times. One that never
/// answers, such as a writer the kernel holds back, keeps its zero.
fn retried(server: &Server, plan: &Plan<'_>) -> Result<Watched> {
    let mut watched = watch(server, || load::run(plan))?;
    for _ in 0..RETRIES {
        if watched.outcome.body_bytes + watched.outcome.requests > 0 {
            break;
        }
        println!("    nothing was answered in the window: again");
        watched = watch(server, || load::run(plan))?;
    }
    Ok(watched)
}

/// An outcome, with what both sides used of their cores.
pub(super) struct Watched {
    /// What the generator saw.
    pub(super) outcome: Outcome,
    server_cores: f64,
    generator_cores: f64,
}

/// Runs a load and watches both sides' processor time.
pub(super) fn watch(server: &Server, run: impl FnOnce() -> Result<Outcome>) -> Result<Watched> {
    let used = || -> f64 {
        let pids = server.pids();
        pids.into_iter().map(machine::processor_seconds).sum()
    };
    let server_before = used();
    let own_before = machine::own_processor_seconds();
    let start = Instant::now();
    let outcome = run()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Watched {
        outcome,
        server_cores: (used() - server_before) / seconds,
        generator_cores: (machine::own_processor_seconds() - own_before) / seconds,
    })
}

impl Watched {
    /// What one busy core would reach: comparable even when the server did not have its core to itself.
    pub(super) fn per_server_core(&self, rate: f64) -> f64 {
        if self.server_cores > 0.0 {
            rate / self.server_cores
        } else {
            0.0
        }
    }

    /// The sample, with everything beside the value.
    pub(super) fn sample(&self, subject: Subject, round: usize, value: f64) -> Sample {
        let outcome = &self.outcome;
        if let Some(error) = &outcome.first_error {
            println!("    first of {} errors: {error}", outcome.errors);
        }
        Sample::new(subject, round, value)
            .with("requests_per_s", outcome.per_second())
            .with("mib_per_s", outcome.mib_per_second())
            .with("p50_us", outcome.micros_at(50.0))
            .with("p99_us", outcome.micros_at(99.0))
            .with("p999_us", outcome.micros_at(99.9))
            .with("errors", outcome.errors as f64)
            .with("server_cores", self.server_cores)
            .with("generator_cores", self.generator_cores)
    }
}
