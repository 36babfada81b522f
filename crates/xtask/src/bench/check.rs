//! Our generator against wrk: the same server, the same single URL, one after the other on the same core.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{
    Bench,
    corpus::{Blob, Payload},
    load::{self, Limit, Method, Pace, Plan, WorkList},
    peers,
    result::Sample,
    rows::Row,
    server::Server,
    steady,
    subject::Subject,
};

const CONNECTIONS: usize = 64;
const SIZE: u64 = 1 << 10;

/// Measures one server with both generators in turn.
pub(super) fn run(bench: &Bench, row: &Row, subject: Subject) -> Result<Vec<(String, Sample)>> {
    if peers::on_path("wrk").is_none() {
        println!("  wrk is not installed (package wrk): left out");
        return Ok(Vec::new());
    }
    let payload = Payload::new(SIZE);
    let blobs = payload.uniform(1, SIZE, 0);
    let folder = bench.folder(&row.id, subject);
    let server = Server::start(&bench.tools, subject, &folder)?;
    if subject != Subject::NullServer {
        steady::provide(&folder, &server, &payload, &blobs)?;
    }
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        let ours = with_ours(bench, &server, &payload, &blobs, round)?;
        let theirs = with_wrk(bench, &server, &blobs[0], round)?;
        for sample in [ours, theirs] {
            bench.say(&row.id, row.unit, &sample);
            samples.push((row.id.clone(), sample));
        }
    }
    Ok(samples)
}

fn with_ours(
    bench: &Bench,
    server: &Server,
    payload: &Payload,
    blobs: &[Blob],
    round: usize,
) -> Result<Sample> {
    let work = WorkList::new(server.address, Method::Get, payload, blobs, true);
    let plan = Plan {
        address: server.address,
        connections: CONNECTIONS,
        work: &work,
        pace: Pace::Closed,
        limit: Limit::Window {
            warm_up: bench.scale.warm_up,
            measure: bench.scale.measure,
        },
    };
    let watched = steady::watch(server, || load::run(&plan))?;
    let per_second = watched.outcome.per_second();
    Ok(watched.sample(Subject::Generator, round, per_second))
}

/// wrk inherits the generator's core.
fn with_wrk(bench: &Bench, server: &Server, blob: &Blob, round: usize) -> Result<Sample> {
    let seconds = bench.scale.measure.as_secs().max(1);
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s")])
        .args([
            "--latency",
            &format!("http://{}/cas/{}", server.address, blob.hash),
        ])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk ended with {}", output.status);
    ensure!(!text.contains("Non-2xx"), "wrk met errors: {text}");
    let field = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        line.and_then(|line| line.split_whitespace().last())
    };
    let per_second: f64 = field("Requests/sec:")
        .and_then(|number| number.parse().ok())
        .context("wrk gave no rate")?;
    let mut sample = Sample::new(Subject::Wrk, round, per_second);
    for (name, key) in [("50%", "p50_us"), ("99%", "p99_us")] {
        if let Some(micros) = field(name).and_then(micros) {
            sample = sample.with(key, micros);
        }
    }
    Ok(sample)
}

/// Microseconds of a time as wrk writes it.
fn micros(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let factor = match &text[split..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(text[..split].parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_wrk_are_read() {
        assert_eq!(micros("615.00us"), Some(615.0));
        assert_eq!(micros("1.50ms"), Some(1500.0));
        assert_eq!(micros("2m"), None);
    }
}
