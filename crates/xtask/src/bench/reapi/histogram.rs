//! Uploads, then downloads, of the size histogram, with 1, 16 and 128 clients.
//!
//! Every server begins each round with an empty folder of its own, so that a round takes the disk one server needs and
//! nobody deletes while it is measured. Everything is read twice: first what was just uploaded, which not every server
//! has in memory (a figure beside), then again in another order, from memory on every server (the row's value).

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{
    super::{
        Bench,
        corpus::{Blob, Payload, histogram_lengths},
        load::grpc::CallList,
        random::Random,
        result::Sample,
        rows::{Row, Unit},
        server::Server,
        steady::{self, Watched},
    },
    once, rows, servers,
};

/// One client alone is given so many times fewer blobs.
const LONE_SHARE: usize = 4;

/// What one number of clients uploads and reads.
struct Work {
    clients: usize,
    ids: [String; 2],
    blobs: Vec<Blob>,
    /// The same in other orders.
    first: Vec<Blob>,
    again: Vec<Blob>,
}

/// Measures all rows of one kind of body.
pub(super) fn run(bench: &Bench, row: &Row, text: bool) -> Result<Vec<(String, Sample)>> {
    let lengths = histogram_lengths(bench.scale.reapi_blobs, 1);
    let largest = lengths.iter().copied().max().unwrap_or_default();
    let payload = if text {
        Payload::text(largest)
    } else {
        Payload::new(largest)
    };
    let all = rows::all();
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let works = works(bench, &payload, &lengths, text, round);
        for subject in bench.chosen_of(&all, &row.experiment) {
            let folder = bench.folder(&row.id, subject);
            let server = servers::start(&bench.tools, subject, &folder)?;
            for work in &works {
                let wanted = |row: &Row| row.id == work.ids[0] && row.subjects.contains(&subject);
                if all.iter().any(wanted) {
                    let measured = measure(bench, &server, &payload, work, round)
                        .with_context(|| subject.name().to_owned())?;
                    samples.extend(measured);
                }
            }
            drop(server);
            fs::remove_dir_all(folder)?;
            // What this server left to be written is not written while the next one is measured.
            rustix::fs::sync();
        }
    }
    Ok(samples)
}

fn works(bench: &Bench, payload: &Payload, lengths: &[u64], text: bool, round: usize) -> Vec<Work> {
    let wanted = |clients: &usize| {
        let ids = rows::histogram_ids(text, *clients);
        ids.iter().any(|id| bench.wants(id))
    };
    rows::CLIENTS
        .into_iter()
        .filter(wanted)
        .map(|clients| {
            let count = if clients == 1 {
                lengths.len() / LONE_SHARE
            } else {
                lengths.len()
            };
            let seed = (round * 1_000 + clients) as u64;
            let blobs = payload.blobs(&lengths[..count], seed);
            let [first, again] = [seed, !seed].map(|seed| {
                let mut shuffled = blobs.clone();
                Random::new(seed).shuffle(&mut shuffled);
                shuffled
            });
            Work {
                clients,
                ids: rows::histogram_ids(text, clients),
                blobs,
                first,
                again,
            }
        })
        .collect()
}

fn measure(
    bench: &Bench,
    server: &Server,
    payload: &Payload,
    work: &Work,
    round: usize,
) -> Result<Vec<(String, Sample)>> {
    let mut up = CallList::new(payload, false);
    for blob in &work.blobs {
        up.upload(blob);
    }
    let [first, again] = [&work.first, &work.again].map(|blobs| {
        let mut down = CallList::new(payload, false);
        for blob in blobs {
            down.download(blob);
        }
        down
    });
    let [up_id, down_id] = &work.ids;
    let row = |id: &str, watched: &Watched| {
        let rate = watched.outcome.mib_per_second();
        let sample = watched
            .sample(server.subject, round, rate)
            .with("per_server_core_s", watched.per_server_core(rate));
        (id.to_owned(), sample)
    };
    let run = |calls: &CallList<'_>| steady::watch(server, || once(server, calls, work.clients));
    let up = row(up_id, &run(&up)?);
    let first = run(&first)?.outcome;
    ensure!(
        first.errors == 0,
        "the first reads failed {} times",
        first.errors
    );
    let (down_id, down) = row(down_id, &run(&again)?);
    let down = down.with("first_mib_per_s", first.mib_per_second());
    let samples = vec![up, (down_id, down)];
    for (id, sample) in &samples {
        bench.say(id, Unit::MibPerSecond, sample);
    }
    Ok(samples)
}
