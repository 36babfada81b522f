//! Many readers of one object that only the S3 server has, and one who asks the S3 server itself.
//!
//! Every round has an object of its own, put through the cluster while its disks were still good. The S3 server may be
//! far away for nodes and for the one who asks it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    super::{
        Bench, client,
        corpus::{Blob, Payload},
        result::{Sample, Spread},
        rows::Row,
        subject::Subject,
    },
    readers, s3,
    system::System,
};

/// Readers at the same time.
const READERS: usize = 64;
/// How often the S3 server is asked for an object by one reader.
const DIRECT_READS: usize = 5;

/// Measures the row.
pub(super) fn run(bench: &Bench, row: &Row, s3_delay: Duration) -> Result<Vec<(String, Sample)>> {
    let payload = Payload::new(bench.scale.cold_bytes);
    let blobs = payload.uniform(bench.scale.rounds, bench.scale.cold_bytes, 0);
    let folder = bench.folder(&row.id, row.judged);
    let mut system = System::start(&bench.tools, &folder, &[])?;
    client::fill(system.gateway()?.address, &payload, &blobs)?;
    system.wait_until_clean()?;
    if !s3_delay.is_zero() {
        system.move_s3_away(s3_delay)?;
    }
    system.lose_disks()?;
    let mut samples = Vec::new();
    for (round, blob) in blobs.iter().enumerate() {
        let mut measured = vec![directly(&system, blob, round)?];
        if row.subjects.contains(&Subject::S3Crowd) {
            measured.push(directly_in_a_crowd(&system, blob, round)?);
        }
        measured.push(through_a_gateway(&system, blob, round)?);
        for sample in measured {
            bench.say(&row.id, row.unit, &sample);
            samples.push((row.id.clone(), sample));
        }
    }
    Ok(samples)
}

fn directly(system: &System, blob: &Blob, round: usize) -> Result<Sample> {
    let mut firsts = Vec::new();
    for _ in 0..DIRECT_READS {
        firsts.extend(read_directly(system, blob, 1)?);
    }
    Ok(sample(Subject::S3, round, &firsts))
}

/// The same crowd as the gateway gets: here every reader costs a request.
fn directly_in_a_crowd(system: &System, blob: &Blob, round: usize) -> Result<Sample> {
    let firsts = read_directly(system, blob, READERS)?;
    Ok(sample(Subject::S3Crowd, round, &firsts))
}

fn read_directly(system: &System, blob: &Blob, readers: usize) -> Result<Vec<Duration>> {
    let key = s3::key_of(&system.bucket(), &blob.hash)?;
    let way = system.way_to_s3();
    let request = s3::signed_get(way, &key);
    readers::read(way, &request, readers, blob.length)
}

/// The figure is the middle one of all readers.
fn through_a_gateway(system: &System, blob: &Blob, round: usize) -> Result<Sample> {
    let address = system.gateway()?.address;
    let requests = system.s3_requests();
    requests.since_last()?;
    let request = format!("GET /cas/{} HTTP/1.1\r\nHost: {address}\r\n\r\n", blob.hash);
    let firsts = readers::read(address, &request, READERS, blob.length)?;
    let operations = requests.since_last()?;
    let gets = operations.iter().filter(|name| *name == "GetObject");
    let gets = gets.count();
    ensure!(gets > 0, "the object was not cold");
    client::verify(address, &[*blob])?;
    Ok(sample(Subject::Cluster, round, &firsts)
        .with("s3_gets", gets as f64)
        .with("s3_other_requests", (operations.len() - gets) as f64))
}

fn sample(subject: Subject, round: usize, firsts: &[Duration]) -> Sample {
    let micros = firsts.iter().map(|time| time.as_secs_f64() * 1e6);
    let spread = Spread::of(micros.collect()).unwrap_or_default();
    Sample::new(subject, round, spread.median)
        .with("least_us", spread.least)
        .with("most_us", spread.most)
}
