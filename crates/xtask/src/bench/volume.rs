//! Rows of volume: a million small entries (memory, restart), large streams at once (memory), the size histogram.

use std::{fs, time::Instant};

use anyhow::{Context, Result};

use super::{
    Bench, client,
    corpus::{Blob, Payload, histogram_lengths},
    load::{self, Limit, Method, Outcome, Pace, Plan, WorkList},
    machine,
    random::Random,
    result::Sample,
    rows::{Row, Unit},
    server::Server,
    steady,
    subject::Subject,
};

const CONNECTIONS: usize = 64;
/// Size of the small entries in bytes.
const SMALL: u64 = 64;
/// Entries whose bytes are checked after a restart.
const CHECKED: usize = 100;
const MIB: f64 = (1_u64 << 20) as f64;

/// Fills caches with small entries, then kills and restarts them in turn.
pub(super) fn many(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    let payload = Payload::new(SMALL);
    let blobs = payload.uniform(bench.scale.entries, SMALL, 0);
    let mut samples = Vec::new();
    let mut idle_bytes = Vec::new();
    for subject in bench.chosen(row) {
        let (idle, sample) = fill_and_kill(bench, subject, &payload, &blobs)?;
        bench.say("rss-1m", Unit::BytesPerEntry, &sample);
        idle_bytes.push((subject, idle));
        samples.push(("rss-1m".to_owned(), sample));
    }
    for round in 0..bench.scale.rounds {
        for &(subject, idle) in &idle_bytes {
            let (seconds, resident) = restart(bench, subject, &blobs, round)
                .with_context(|| format!("restart of {}", subject.name()))?;
            let per_entry = (resident as f64 - idle as f64) / blobs.len() as f64;
            let sample = Sample::new(subject, round, seconds);
            bench.say("restart-1m", Unit::Seconds, &sample);
            samples.push(("restart-1m".to_owned(), sample));
            samples.push((
                "rss-1m-restarted".to_owned(),
                Sample::new(subject, round, per_entry),
            ));
        }
    }
    Ok(samples)
}

fn many_folder(bench: &Bench, subject: Subject) -> std::path::PathBuf {
    bench.folder("many", subject)
}

fn fill_and_kill(
    bench: &Bench,
    subject: Subject,
    payload: &Payload,
    blobs: &[Blob],
) -> Result<(u64, Sample)> {
    let server = Server::start(&bench.tools, subject, &many_folder(bench, subject))?;
    let idle = machine::settled_rss_bytes(server.pid())?;
    let start = Instant::now();
    client::fill(server.address, payload, blobs)?;
    let fill_seconds = start.elapsed().as_secs_f64();
    let filled = machine::settled_rss_bytes(server.pid())?;
    server.kill()?;
    let per_entry = (filled as f64 - idle as f64) / blobs.len() as f64;
    let sample = Sample::new(subject, 0, per_entry)
        .with("idle_mib", idle as f64 / MIB)
        .with("filled_mib", filled as f64 / MIB)
        .with("fill_s", fill_seconds);
    Ok((idle, sample))
}

/// Seconds from the start of the process to the first hit, and the resident bytes afterwards. Ends with a kill.
fn restart(bench: &Bench, subject: Subject, blobs: &[Blob], round: usize) -> Result<(f64, u64)> {
    let mut random = Random::new(round as u64 + 1);
    let mut any = || blobs[random.below(blobs.len() as u64) as usize];
    let wanted = any();
    let start = Instant::now();
    let mut server = Server::spawn(&bench.tools, subject, &many_folder(bench, subject))?;
    server.wait_for(|address| client::has(address, &wanted))?;
    let seconds = start.elapsed().as_secs_f64();
    let resident = machine::settled_rss_bytes(server.pid())?;
    let checked: Vec<Blob> = (0..CHECKED).map(|_| any()).collect();
    client::verify(server.address, &checked)?;
    server.kill()?;
    Ok((seconds, resident))
}

/// Large uploads at once, then downloads at once, on a fresh server each round.
pub(super) fn streaming(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    let payload = Payload::new(bench.scale.stream_bytes);
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let blobs = payload.uniform(bench.scale.streams, bench.scale.stream_bytes, round as u64);
        for subject in bench.chosen(row) {
            let folder = bench.folder(&row.id, subject);
            let sample = stream(bench, subject, &payload, &blobs, round)?;
            fs::remove_dir_all(folder)?;
            bench.say(&row.id, row.unit, &sample);
            samples.push((row.id.clone(), sample));
        }
    }
    Ok(samples)
}

fn stream(
    bench: &Bench,
    subject: Subject,
    payload: &Payload,
    blobs: &[Blob],
    round: usize,
) -> Result<Sample> {
    let folder = bench.folder("rss-streaming", subject);
    let server = Server::start(&bench.tools, subject, &folder)?;
    let idle = machine::settled_rss_bytes(server.pid())?;
    let up = once(&server, Method::Put, payload, blobs)?;
    let up_peak = machine::peak_rss_bytes(server.pid())?;
    let down = once(&server, Method::Get, payload, blobs)?;
    let peak = machine::peak_rss_bytes(server.pid())?;
    let over_idle = |bytes: u64| (bytes as f64 - idle as f64) / MIB;
    Ok(Sample::new(subject, round, over_idle(peak))
        .with("idle_mib", idle as f64 / MIB)
        .with("upload_peak_mib", over_idle(up_peak))
        .with("upload_mib_per_s", up.mib_per_second())
        .with("download_mib_per_s", down.mib_per_second())
        .with("errors", (up.errors + down.errors) as f64))
}

fn once(server: &Server, method: Method, payload: &Payload, blobs: &[Blob]) -> Result<Outcome> {
    let work = WorkList::new(server.address, method, payload, blobs, false);
    load::run(&Plan {
        address: server.address,
        connections: CONNECTIONS.min(blobs.len()),
        work: &work,
        pace: Pace::Closed,
        limit: Limit::Once,
    })
}

/// Uploads the size histogram, then reads it in another order.
pub(super) fn histogram(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    let lengths = histogram_lengths(bench.scale.histogram_blobs, 1);
    let payload = Payload::new(lengths.iter().copied().max().unwrap_or_default());
    let mut servers = Vec::new();
    for subject in bench.chosen(row) {
        let folder = bench.folder("histogram", subject);
        servers.push(Server::start(&bench.tools, subject, &folder)?);
    }
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let blobs = payload.blobs(&lengths, round as u64);
        let mut reordered = blobs.clone();
        Random::new(round as u64).shuffle(&mut reordered);
        for (id, method, blobs) in [
            ("histogram-put", Method::Put, &blobs),
            ("histogram-get", Method::Get, &reordered),
        ] {
            for server in &servers {
                let watched = steady::watch(server, || once(server, method, &payload, blobs))?;
                let per_second = watched.outcome.per_second();
                let sample = watched.sample(server.subject, round, per_second);
                bench.say(id, Unit::PerSecond, &sample);
                samples.push((id.to_owned(), sample));
            }
        }
    }
    Ok(samples)
}
