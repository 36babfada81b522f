//! The rows and what they must reach.

use super::{
    super::{
        rows::{Experiment as AnyExperiment, Row, Unit},
        subject::Subject,
    },
    Experiment,
};

use Subject::{BazelRemote, BbStorage, BbStorageSecond, NativeLink, Zimcache};

/// Clients of a row, each with a connection and one call at a time.
pub(super) const CLIENTS: [usize; 3] = [1, 16, 128];
/// Shares of the digests asked for that are there, in percent.
pub(super) const PRESENT: [usize; 3] = [0, 50, 100];
/// Clients that ask for action results.
pub(super) const RESULT_CLIENTS: [usize; 2] = [16, 128];
/// Clients that read large blobs.
pub(super) const STREAM_CLIENTS: [usize; 2] = [1, 4];
/// The row of memory.
pub(super) const MEMORY: &str = "reapi-rss-1m";
/// The row of the build.
pub(super) const BUILD: &str = "reapi-build";

const FEW: [Subject; 3] = [Zimcache, BazelRemote, BbStorage];
const MANY: [Subject; 4] = [Zimcache, BazelRemote, BbStorage, NativeLink];
const UPLOAD: [Subject; 5] = [
    Zimcache,
    BazelRemote,
    BbStorage,
    BbStorageSecond,
    NativeLink,
];

/// Every row, in the order of the report.
pub(in super::super) fn all() -> Vec<Row> {
    let mut rows = find_missing();
    rows.extend(histogram());
    rows.extend(STREAM_CLIENTS.map(stream));
    rows.extend(RESULT_CLIENTS.map(action_result));
    rows.push(memory());
    rows.push(build());
    rows
}

fn row(id: &str, title: &str, unit: Unit, subjects: &[Subject], experiment: Experiment) -> Row {
    let experiment = AnyExperiment::Reapi(experiment);
    Row::new(id, title, unit, subjects, experiment)
}

fn count(clients: usize) -> String {
    match clients {
        1 => "1 client".to_owned(),
        more => format!("{more} clients"),
    }
}

/// Few clients and small calls: without NativeLink.
const fn peers(clients: usize) -> &'static [Subject] {
    if clients < 128 { &FEW } else { &MANY }
}

/// Name of a look-up row.
pub(super) fn find_missing_id(present: usize, clients: usize) -> String {
    format!("reapi-findmissing-{present}-{clients}")
}

fn find_missing() -> Vec<Row> {
    let mut rows = Vec::new();
    for clients in [16, 128, 1] {
        for present in PRESENT {
            let title = format!(
                "FindMissing of 1,000 digests, {present} % present, {}",
                count(clients)
            );
            let id = find_missing_id(present, clients);
            let new = row(
                &id,
                &title,
                Unit::PerSecond,
                peers(clients),
                Experiment::Held,
            );
            rows.push(match clients {
                1 => new.figure_goal(None, "p50_us", 400.0).promised(),
                16 => new
                    .goal(Some(BazelRemote), 6.0)
                    .goal(Some(BbStorage), 6.0)
                    .figure_goal(Some(BazelRemote), "p99_us", 0.25)
                    .figure_goal(Some(BbStorage), "p99_us", 0.25)
                    .promised(),
                _ => new.goal(Some(NativeLink), 6.0).promised(),
            });
        }
    }
    rows
}

/// Names of the two rows of a histogram.
pub(super) fn histogram_ids(text: bool, clients: usize) -> [String; 2] {
    let kind = if text { "text-" } else { "" };
    ["upload", "download"].map(|way| format!("reapi-{way}-{kind}{clients}"))
}

fn histogram() -> Vec<Row> {
    let mut rows = Vec::new();
    for clients in CLIENTS {
        rows.extend(histogram_pair(clients));
    }
    let [up, down] = histogram_ids(true, 16);
    for (id, way) in [(up, "upload"), (down, "download")] {
        let title = format!("{way} of the size histogram, compressible, 16 clients");
        let experiment = Experiment::TextHistogram;
        rows.push(row(&id, &title, Unit::MibPerSecond, &MANY, experiment));
    }
    rows
}

fn histogram_pair(clients: usize) -> [Row; 2] {
    let [up, down] = histogram_ids(false, clients);
    let subjects = if clients == 1 { &UPLOAD[..4] } else { &UPLOAD };
    let new = |id: &str, way: &str| {
        let title = format!("{way} of the size histogram, {}", count(clients));
        row(
            id,
            &title,
            Unit::MibPerSecond,
            subjects,
            Experiment::Histogram,
        )
    };
    let (up, down) = (new(&up, "upload"), new(&down, "download"));
    if clients != 16 {
        return [up, down];
    }
    [
        up.goal(Some(BazelRemote), 3.0)
            .goal(Some(NativeLink), 3.0)
            .promised(),
        down.goal(Some(BazelRemote), 1.4).promised(),
    ]
}

/// Name of a row of large reads.
pub(super) fn stream_id(clients: usize) -> String {
    format!("reapi-read-64m-{clients}")
}

fn stream(clients: usize) -> Row {
    let title = format!("ByteStream Read of 64 MiB, {}", count(clients));
    let unit = Unit::MibPerSecond;
    let new = row(&stream_id(clients), &title, unit, &MANY, Experiment::Stream);
    if clients == 1 {
        return new;
    }
    new.goal(Some(BazelRemote), 1.1)
        .goal(Some(NativeLink), 2.7)
        .promised()
}

/// Name of a row of action results.
pub(super) fn action_result_id(clients: usize) -> String {
    format!("reapi-actionresult-{clients}")
}

fn action_result(clients: usize) -> Row {
    let title = format!(
        "GetActionResult naming 10 outputs, checked for completeness, {}",
        count(clients)
    );
    let unit = Unit::PerSecond;
    let id = action_result_id(clients);
    let new = row(&id, &title, unit, peers(clients), Experiment::Held);
    if clients > 16 {
        return new;
    }
    new.goal(Some(BazelRemote), 1.4)
        .goal(Some(BbStorage), 5.0)
        .promised()
}

fn memory() -> Row {
    let title = "RSS with 1 M blobs held, after look-ups, uploads and downloads";
    row(MEMORY, title, Unit::Mib, &MANY, Experiment::Held)
        .goal(Some(BazelRemote), 0.2)
        .promised()
}

fn build() -> Row {
    let title = "Bazel 4 building 300 small targets, everything cached, over gRPC";
    let subjects = [Zimcache, BazelRemote];
    row(BUILD, title, Unit::Seconds, &subjects, Experiment::Build)
}
