//! A million small blobs held by three nodes and in S3: FindMissing through a gateway, and what misses ask of S3.
//!
//! The nodes are filled before they are told of the bucket, and the objects are laid beside one that was uploaded: to
//! upload a million takes the S3 server most of an hour.

use anyhow::{Context, Result};

use super::{
    super::{
        Bench, client,
        corpus::{Blob, Payload},
        reapi,
        result::Sample,
        rows::Row,
        rows::{self as all_rows, Ask, KIB, Unit},
        steady,
        subject::Subject,
    },
    rows, s3,
    system::System,
};

/// Size of the blobs held, in bytes.
const SMALL: u64 = 64;
/// Connections that ask for what is nowhere.
const CONNECTIONS: usize = 64;

/// Fills, then measures look-ups and misses.
pub(super) fn run(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    let payload = Payload::new(SMALL);
    let held = payload.uniform(bench.scale.held, SMALL, 0);
    let system = filled(bench, row, &payload, &held)?;
    let mut samples = Vec::new();
    for present in rows::PRESENT {
        if bench.wants(&rows::find_missing_id(present)) {
            samples.extend(look_ups(bench, &system, &payload, &held, present)?);
        }
    }
    if bench.wants(rows::MISS) {
        samples.extend(misses(bench, &system)?);
    }
    Ok(samples)
}

/// A cluster that holds all these blobs, twice on nodes and in the bucket.
fn filled(bench: &Bench, row: &Row, payload: &Payload, held: &[Blob]) -> Result<System> {
    let mut system = System::start(&bench.tools, &bench.folder("held", row.judged), &[])?;
    let first = held.first().context("nothing is to be held")?;
    client::fill(system.gateway()?.address, payload, &[*first])?;
    system.wait_until_clean()?;
    system.restart(false)?;
    reapi::fill(system.gateway()?, payload, held, &[]).context("filling")?;
    s3::lay(&system.bucket(), first, payload, held).context("filling the bucket")?;
    system.restart(true)?;
    system.wait_until_listed()?;
    Ok(system)
}

fn look_ups(
    bench: &Bench,
    system: &System,
    payload: &Payload,
    held: &[Blob],
    present: usize,
) -> Result<Vec<(String, Sample)>> {
    let absent = payload.uniform(held.len().min(reapi::LOOKED_UP), SMALL, 1);
    let calls = reapi::look_ups(payload, held, &absent, present);
    let id = rows::find_missing_id(present);
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let watched = reapi::window(bench, system.gateway()?, &calls, 1)?;
        let per_second = watched.outcome.per_second();
        let sample = watched
            .sample(Subject::Cluster, round, per_second)
            .with("per_server_core_s", watched.per_server_core(per_second));
        bench.say(&id, Unit::PerSecond, &sample);
        samples.push((id.clone(), sample));
    }
    Ok(samples)
}

/// Asks for blobs and for action results that are nowhere, and counts what the S3 server was asked meanwhile.
fn misses(bench: &Bench, system: &System) -> Result<Vec<(String, Sample)>> {
    let payload = Payload::new(KIB);
    let absent = payload.uniform(steady::MISSES, KIB, steady::MISS_SEED);
    let requests = system.s3_requests();
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let absent = steady::repeated_shuffle(&absent, round);
        requests.since_last()?;
        let ask = |what| {
            let load = all_rows::closed(what, KIB, CONNECTIONS);
            steady::measure(bench, system.gateway()?, load, &payload, &absent, round)
        };
        let (blobs, results) = (ask(Ask::Miss)?, ask(Ask::MissResult)?);
        let asked = requests.since_last()?;
        if let Some(first) = asked.first() {
            println!("    {} S3 requests, the first: {first}", asked.len());
        }
        let figure = |sample: &Sample, name| sample.extra.get(name).copied().unwrap_or_default();
        let sample = Sample::new(Subject::Cluster, round, asked.len() as f64)
            .with("blob_misses_per_s", blobs.value)
            .with("result_misses_per_s", results.value)
            .with(
                "errors",
                figure(&blobs, "errors") + figure(&results, "errors"),
            );
        bench.say(rows::MISS, Unit::S3Requests, &sample);
        samples.push((rows::MISS.to_owned(), sample));
    }
    Ok(samples)
}
