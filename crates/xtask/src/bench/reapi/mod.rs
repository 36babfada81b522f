//! Rows of the Remote Execution API: our server beside bazel-remote, bb-storage and NativeLink, over gRPC.
//!
//! Each experiment gives several rows. Answers are checked on the way (`load::grpc`): a row with wrong answers has
//! failed requests and misses its goal. NativeLink leaves Nagle's algorithm on, so that small calls of few clients wait
//! for acknowledgements that the kernel delays by 40 ms: it takes part in them with 128 clients only.

mod build;
mod held;
mod histogram;
mod rows;
mod servers;
mod stream;

use anyhow::{Result, ensure};

use super::{
    Bench,
    load::{self, Limit, Outcome, Pace, Plan, grpc::CallList},
    result::Sample,
    rows::Row,
    server::Server,
    steady::{self, Watched},
};

pub(super) use held::{LOOKED_UP, fill, look_ups};
pub(super) use rows::all;

/// How a row's figure is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Experiment {
    /// A million small blobs held: look-ups, action results, memory after everything.
    Held,
    /// Uploads, then downloads, of the size histogram.
    Histogram,
    /// The same with bodies that compress like text.
    TextHistogram,
    /// Reads of large blobs.
    Stream,
    /// A real Bazel with everything cached.
    Build,
}

/// Runs an experiment.
pub(super) fn run(
    bench: &Bench,
    row: &Row,
    experiment: Experiment,
) -> Result<Vec<(String, Sample)>> {
    match experiment {
        Experiment::Held => held::run(bench, row),
        Experiment::Histogram => histogram::run(bench, row, false),
        Experiment::TextHistogram => histogram::run(bench, row, true),
        Experiment::Stream => stream::run(bench, row),
        Experiment::Build => build::run(bench, row),
    }
}

/// Makes calls for the measured time, over and over.
pub(super) fn window(
    bench: &Bench,
    server: &Server,
    calls: &CallList<'_>,
    clients: usize,
) -> Result<Watched> {
    let plan = Plan {
        address: server.address,
        connections: clients,
        work: calls,
        pace: Pace::Closed,
        limit: Limit::Window {
            warm_up: bench.scale.warm_up,
            measure: bench.scale.measure,
        },
    };
    steady::watch(server, || load::run(&plan))
}

/// Makes every call once.
fn once(server: &Server, calls: &CallList<'_>, clients: usize) -> Result<Outcome> {
    load::run(&Plan {
        address: server.address,
        connections: clients,
        work: calls,
        pace: Pace::Closed,
        limit: Limit::Once,
    })
}

/// Makes every call once, each of which must succeed.
fn must(server: &Server, calls: &CallList<'_>, clients: usize) -> Result<()> {
    let outcome = once(server, calls, clients)?;
    ensure!(
        outcome.errors == 0,
        "{} failed {} times, first: {}",
        server.subject.name(),
        outcome.errors,
        outcome.first_error.unwrap_or_default()
    );
    Ok(())
}
