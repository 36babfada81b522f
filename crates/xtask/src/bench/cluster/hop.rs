//! Reads through a gateway and of one process, in turn.

use anyhow::{Context, Result};

use super::{
    super::{
        Bench,
        corpus::Payload,
        result::Sample,
        rows::{Ask, Row},
        server::Server,
        steady,
        subject::Subject,
    },
    Hop,
    system::System,
};

/// Who serves.
enum Serving {
    Cluster(System),
    Alone(Server),
}

impl Serving {
    fn server(&self) -> Result<&Server> {
        match self {
            Serving::Cluster(system) => system.gateway(),
            Serving::Alone(server) => Ok(server),
        }
    }
}

/// Measures a row.
pub(super) fn run(bench: &Bench, row: &Row, hop: Hop) -> Result<Vec<(String, Sample)>> {
    let load = hop.load;
    let Ask::Get { blobs } = load.ask else {
        return Ok(Vec::new());
    };
    let payload = Payload::new(load.size);
    let blobs = payload.uniform(blobs, load.size, steady::READ_SEED);
    let mut all = Vec::new();
    for subject in bench.chosen(row) {
        let folder = bench.folder(&row.id, subject);
        let serving = start(bench, subject, &folder, hop)?;
        steady::provide(&folder, serving.server()?, &payload, &blobs)?;
        all.push(serving);
    }
    for serving in &all {
        if let Serving::Cluster(system) = serving {
            // What is still to be uploaded would take its share of the core.
            system.wait_until_clean()?;
        }
    }
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let blobs = steady::repeated_shuffle(&blobs, round);
        for serving in &all {
            let server = serving.server()?;
            let mut sample = steady::measure(bench, server, load, &payload, &blobs, round)
                .with_context(|| format!("{}, round {}", server.subject.name(), round + 1))?;
            if hop.is_per_core {
                let per_core = sample.extra.get("per_server_core_s").copied();
                sample.value = per_core.unwrap_or_default();
            }
            bench.say(&row.id, row.unit, &sample);
            samples.push((row.id.clone(), sample));
        }
    }
    Ok(samples)
}

fn start(bench: &Bench, subject: Subject, folder: &std::path::Path, hop: Hop) -> Result<Serving> {
    if subject != Subject::Cluster {
        return Ok(Serving::Alone(Server::start(
            &bench.tools,
            subject,
            folder,
        )?));
    }
    let flags: &[&str] = if hop.has_ram {
        &[]
    } else {
        &["--ram-cache", "0"]
    };
    Ok(Serving::Cluster(System::start(
        &bench.tools,
        folder,
        flags,
    )?))
}
