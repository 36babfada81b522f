//! Reads of 64 MiB by ByteStream, a blob for each client, from memory.

use anyhow::{Context, Result};

use super::{
    super::{
        Bench,
        corpus::Payload,
        load::grpc::CallList,
        result::Sample,
        rows::{Row, Unit},
    },
    must, rows, servers, window,
};

/// Size of each blob in bytes.
const LARGE: u64 = 64 << 20;

/// Measures all rows of large reads.
pub(super) fn run(bench: &Bench, row: &Row) -> Result<Vec<(String, Sample)>> {
    let most = rows::STREAM_CLIENTS.into_iter().max().unwrap_or_default();
    let payload = Payload::new(LARGE);
    let blobs = payload.uniform(most, LARGE, 0);
    let mut up = CallList::new(&payload, false);
    for blob in &blobs {
        up.upload(blob);
    }
    let mut servers = Vec::new();
    for subject in bench.chosen_of(&rows::all(), &row.experiment) {
        let server = servers::start(&bench.tools, subject, &bench.folder(&row.id, subject))?;
        must(&server, &up, most)?;
        servers.push(server);
    }
    let mut samples = Vec::new();
    for clients in rows::STREAM_CLIENTS {
        let id = rows::stream_id(clients);
        if !bench.wants(&id) {
            continue;
        }
        let mut down = CallList::new(&payload, true);
        for blob in &blobs[..clients] {
            down.download(blob);
        }
        for round in 0..bench.scale.rounds {
            for server in &servers {
                let watched = window(bench, server, &down, clients)
                    .with_context(|| server.subject.name().to_owned())?;
                // A read may take longer than the window is precise: bytes are counted as they come.
                let rate = watched.outcome.mib_per_second();
                let sample = watched
                    .sample(server.subject, round, rate)
                    .with("per_server_core_s", watched.per_server_core(rate));
                bench.say(&id, Unit::MibPerSecond, &sample);
                samples.push((id.clone(), sample));
            }
        }
    }
    Ok(samples)
}
