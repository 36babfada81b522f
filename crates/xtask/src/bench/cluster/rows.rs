//! The rows and what they must reach.

use std::time::Duration;

use super::{
    super::{
        rows::{Ask, Experiment as AnyExperiment, KIB, MIB, Row, Unit, closed},
        subject::Subject::{Cluster, S3, S3Crowd, Zimcache},
    },
    Experiment, Hop,
};

/// Shares of the digests asked for that are there, in percent.
pub(super) const PRESENT: [usize; 3] = [0, 50, 100];
/// The row of misses.
pub(super) const MISS: &str = "cluster-miss";

/// Every row, in the order of the report.
pub(in super::super) fn all() -> Vec<Row> {
    let mut rows = hops();
    rows.extend([cold(), far()]);
    rows.extend(PRESENT.map(find_missing));
    rows.push(miss());
    rows.push(moved());
    rows
}

/// Name of a look-up row.
pub(super) fn find_missing_id(present: usize) -> String {
    format!("cluster-findmissing-{present}")
}

fn hops() -> Vec<Row> {
    let row = |id, title, hop: Hop, bound| {
        let experiment = AnyExperiment::Cluster(Experiment::Hop(hop));
        Row::new(id, title, Unit::PerSecond, &[Cluster, Zimcache], experiment)
            .goal(Some(Zimcache), bound)
            .promised()
    };
    let small = closed(Ask::Get { blobs: 1_000 }, KIB, 64);
    vec![
        row(
            "cluster-ram-get-1k",
            "GET of 1 KiB from a gateway's RAM tier, 64 connections",
            Hop {
                load: small,
                has_ram: true,
                is_per_core: false,
            },
            0.9,
        ),
        row(
            "cluster-hop-get-1k",
            "GET of 1 KiB through a gateway, RAM tier off, 64 connections, per core used",
            Hop {
                load: small,
                has_ram: false,
                is_per_core: true,
            },
            0.3,
        ),
        row(
            "cluster-hop-get-64m",
            "GET of 64 MiB through a gateway, 8 connections",
            Hop {
                load: closed(Ask::Get { blobs: 4 }, 64 * MIB, 8),
                has_ram: false,
                is_per_core: false,
            },
            0.5,
        ),
    ]
}

fn cold() -> Row {
    let title = "first byte of a cold object of 64 MiB, 64 readers";
    let experiment = AnyExperiment::Cluster(Experiment::Cold(Duration::ZERO));
    let subjects = [Cluster, S3, S3Crowd];
    Row::new("cluster-cold", title, Unit::Micros, &subjects, experiment)
        .goal(Some(S3), 1.2)
        .goal(Some(S3Crowd), 1.2)
        .figure_goal(None, "s3_gets", 1.0)
        .promised()
}

/// An S3 server answers on the same core in less time than the readers need to come in; one that is bought does not.
fn far() -> Row {
    let title = "the same, S3 server 20 ms away (there and back)";
    let experiment = AnyExperiment::Cluster(Experiment::Cold(Duration::from_millis(10)));
    let subjects = [Cluster, S3];
    Row::new(
        "cluster-cold-far",
        title,
        Unit::Micros,
        &subjects,
        experiment,
    )
    .goal(Some(S3), 1.2)
    .figure_goal(None, "s3_gets", 1.0)
    .promised()
}

fn find_missing(present: usize) -> Row {
    let title = format!("FindMissing of 1,000 digests, 3 nodes, {present} % present, 1 client");
    let experiment = AnyExperiment::Cluster(Experiment::Held);
    Row::new(
        &find_missing_id(present),
        &title,
        Unit::PerSecond,
        &[Cluster],
        experiment,
    )
    .figure_goal(None, "p99_us", 3_000.0)
    .promised()
}

fn miss() -> Row {
    let title = "S3 requests of blobs and action results that are nowhere, 1 M blobs held";
    let experiment = AnyExperiment::Cluster(Experiment::Held);
    Row::new(MISS, title, Unit::S3Requests, &[Cluster], experiment)
        .goal(None, 0.0)
        .promised()
}

fn moved() -> Row {
    let title = "keys that move when a fourth node joins three";
    let experiment = AnyExperiment::Cluster(Experiment::Moved);
    Row::new(
        "cluster-moved",
        title,
        Unit::PercentOfKeys,
        &[Cluster],
        experiment,
    )
    .goal(None, 27.0)
    .promised()
}
