//! A million small blobs held: FindMissing and GetActionResult, then the memory each server takes after all of it.
//!
//! All servers are filled alike first and stay up until the end; then they are measured in turn, round by round.

use anyhow::{Context, Result};

use super::{
    super::{
        Bench,
        corpus::{Blob, Payload, histogram_lengths},
        load::grpc::CallList,
        machine,
        random::Random,
        result::Sample,
        rows::{Row, Unit},
        server::Server,
    },
    must, rows, servers, window,
};

/// Size of the blobs held, in bytes.
const SMALL: u64 = 64;
/// Blobs of a batch when filling.
const BATCH: usize = 1_000;
/// Clients that fill.
const FILLERS: usize = 64;
/// Digests of a look-up.
const DIGESTS: usize = 1_000;
/// Different look-ups.
const LOOK_UPS: usize = 256;
/// Digests that are not there, at most.
pub(in super::super) const LOOKED_UP: usize = LOOK_UPS * DIGESTS;
/// Different action results.
const RESULTS: usize = 2_000;
/// Outputs of each.
const OUTPUTS: usize = 10;
/// Bytes of each of the blobs that are read at last.
const LARGE: u64 = 64 << 20;
/// Clients of what comes at last.
const LAST_CLIENTS: usize = 16;
const MIB: f64 = (1_u64 << 20) as f64;

/// A kind of call, ready to be measured.
struct Load<'a> {
    id: String,
    clients: usize,
    calls: &'a CallList<'a>,
}

/// Fills, measures look-ups and action results, and looks at the memory at last.
pub(super) fn run(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    let payload = Payload::new(SMALL);
    let held = payload.uniform(bench.scale.held, SMALL, 0);
    let absent = payload.uniform(bench.scale.held.min(LOOKED_UP), SMALL, 1);
    let results = results(&payload, &held);
    let mut filled = Vec::new();
    for subject in bench.chosen_of(&rows::all(), &row.experiment) {
        let server = servers::start(&bench.tools, subject, &bench.folder("held", subject))?;
        fill(&server, &payload, &held, &results)
            .with_context(|| format!("filling {}", subject.name()))?;
        filled.push(server);
    }
    let look_ups = rows::PRESENT.map(|share| (share, look_ups(&payload, &held, &absent, share)));
    let mut asked = CallList::new(&payload, true);
    for (action, outputs) in &results {
        asked.get_result(action, outputs);
    }
    let mut loads = Vec::new();
    for (share, calls) in &look_ups {
        loads.extend(rows::CLIENTS.map(|clients| Load {
            id: rows::find_missing_id(*share, clients),
            clients,
            calls,
        }));
    }
    loads.extend(rows::RESULT_CLIENTS.map(|clients| Load {
        id: rows::action_result_id(clients),
        clients,
        calls: &asked,
    }));
    let mut samples = measure(bench, &filled, &loads)?;
    if bench.wants(rows::MEMORY) {
        samples.extend(memory(bench, &filled)?);
    }
    Ok(samples)
}

fn measure(bench: &Bench, servers: &[Server], loads: &[Load<'_>]) -> Result<Vec<(String, Sample)>> {
    let all = rows::all();
    let mut samples = Vec::new();
    for load in loads.iter().filter(|load| bench.wants(&load.id)) {
        let row = all.iter().find(|row| row.id == load.id);
        let row = row.with_context(|| format!("{} is no row", load.id))?;
        for round in 0..bench.scale.rounds {
            for server in servers.iter().filter(|s| row.subjects.contains(&s.subject)) {
                let watched = window(bench, server, load.calls, load.clients)
                    .with_context(|| format!("{}, {}", load.id, server.subject.name()))?;
                let per_second = watched.outcome.per_second();
                let sample = watched
                    .sample(server.subject, round, per_second)
                    .with("per_server_core_s", watched.per_server_core(per_second));
                bench.say(&load.id, row.unit, &sample);
                samples.push((load.id.clone(), sample));
            }
        }
    }
    Ok(samples)
}

/// Actions with the outputs they made.
fn results(payload: &Payload, held: &[Blob]) -> Vec<(Blob, Vec<Blob>)> {
    let mut random = Random::new(5);
    payload
        .uniform(RESULTS, SMALL, 2)
        .into_iter()
        .map(|action| (action, draw(held, OUTPUTS, &mut random)))
        .collect()
}

fn draw(blobs: &[Blob], count: usize, random: &mut Random) -> Vec<Blob> {
    (0..count)
        .map(|_| blobs[random.below(blobs.len() as u64) as usize])
        .collect()
}

pub(in super::super) fn fill(
    server: &Server,
    payload: &Payload,
    held: &[Blob],
    results: &[(Blob, Vec<Blob>)],
) -> Result<()> {
    let mut calls = CallList::new(payload, false);
    for blobs in held.chunks(BATCH) {
        calls.batch_update(blobs);
    }
    must(server, &calls, FILLERS)?;
    let mut calls = CallList::new(payload, false);
    for (action, outputs) in results {
        calls.update_result(action, outputs);
    }
    must(server, &calls, FILLERS)
}

/// Look-ups of which so many percent of the digests are there, in random order.
pub(in super::super) fn look_ups<'a>(
    payload: &'a Payload,
    held: &[Blob],
    absent: &[Blob],
    present: usize,
) -> CallList<'a> {
    let mut random = Random::new(present as u64);
    let mut calls = CallList::new(payload, true);
    for _ in 0..LOOK_UPS {
        let mut asked = draw(held, DIGESTS * present / 100, &mut random);
        let first = random.below((absent.len() - DIGESTS) as u64 + 1) as usize;
        let missing = &absent[first..][..DIGESTS - asked.len()];
        asked.extend(missing);
        random.shuffle(&mut asked);
        calls.find_missing(&asked, missing);
    }
    calls
}

/// Uploads and reads the size histogram and large blobs, then looks at the memory.
fn memory(bench: &Bench, servers: &[Server]) -> Result<Vec<(String, Sample)>> {
    let mut lengths = histogram_lengths(bench.scale.reapi_blobs, 1);
    lengths.extend([LARGE; 4]);
    let payload = Payload::new(lengths.iter().copied().max().unwrap_or_default());
    let blobs = payload.blobs(&lengths, 7);
    let mut up = CallList::new(&payload, false);
    let mut down = CallList::new(&payload, false);
    for blob in &blobs {
        up.upload(blob);
        down.download(blob);
    }
    let mut samples = Vec::new();
    for server in servers {
        must(server, &up, LAST_CLIENTS)?;
        must(server, &down, LAST_CLIENTS)?;
        let resident = machine::settled_rss_bytes(server.pid())?;
        let peak = machine::peak_rss_bytes(server.pid())?;
        let sample = Sample::new(server.subject, 0, resident as f64 / MIB)
            .with("peak_mib", peak as f64 / MIB);
        bench.say(rows::MEMORY, Unit::Mib, &sample);
        samples.push((rows::MEMORY.to_owned(), sample));
    }
    Ok(samples)
}
