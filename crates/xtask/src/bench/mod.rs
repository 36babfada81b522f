//! `cargo xtask bench`: measures our server and store beside others on this machine and writes the report.
//!
//! Not a test: nothing fails because a figure is low; a goal that is missed is written down as missed. Rules: one row
//! at a time on an otherwise idle machine, server and generator on a core each, all servers measured in turn round by
//! round, medians and spread kept together with every single sample. Everything started is stopped, everything
//! written is removed.
#![allow(
    clippy::print_stdout,
    reason = "a command line tool answers on its standard output"
)]

mod check;
mod client;
mod cluster;
mod compression;
mod corpus;
mod data;
mod goals;
mod load;
mod machine;
mod null;
mod peers;
mod plot;
mod presence;
mod random;
mod reapi;
mod report;
mod result;
mod rows;
mod scale;
mod server;
mod steady;
mod store;
mod subject;
mod text;
mod unit;
mod volume;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Result, ensure};
use zimcache_types::{Clock, SystemClock};

use data::{DataFolder, empty};
use machine::{Machine, Noise};
use peers::Tools;
use result::{Measured, Results, Sample};
use rows::{Experiment, Row, Unit};
use scale::Scale;
use subject::Subject;

/// Rounds when nothing else is asked for.
const ROUNDS: usize = 5;
/// How long to wait for the machine to become quiet before a row.
const PATIENCE: usize = 30;

/// Options of the benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rows to measure, or beginnings of their names; all if none is given.
    rows: Vec<String>,
    /// Rounds per row [default: 5, quick: 1].
    #[arg(long)]
    rounds: Option<usize>,
    /// Short windows and small volumes: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Small blobs held in the rows of the Remote Execution API [default: 1000000, quick: 20000].
    #[arg(long)]
    held: Option<usize>,
    /// Only names the rows.
    #[arg(long)]
    list: bool,
    /// Only writes the report again from the results at hand.
    #[arg(long)]
    render: bool,
    /// Measure only these subjects.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Subject>,
    /// Our binary [default: target/release/zim].
    #[arg(long, env = "ZIM_BIN")]
    zim: Option<PathBuf>,
    /// Folder of test tools [default: ~/.cache/zimcache]; the peers' binaries are in its `bin`.
    #[arg(long, env = "ZIMCACHE_CACHE")]
    cache: Option<PathBuf>,
    /// Folder for data while measuring, on a real disk [default: target].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder that receives the report [default: docs; quick or held: target/bench].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only answers requests, to find the generator's own limit.
    #[arg(long, hide = true)]
    null_server: bool,
}

/// What every experiment needs.
#[derive(Debug)]
struct Bench {
    tools: Tools,
    scale: Scale,
    only: Vec<Subject>,
    /// Names of the rows that were asked for.
    wanted: BTreeSet<String>,
    data: PathBuf,
}

impl Bench {
    /// The subjects of a row that are wanted.
    fn chosen(&self, row: &Row) -> Vec<Subject> {
        let wanted = |subject: &Subject| {
            (self.only.is_empty() || self.only.contains(subject)) && self.tools.has(*subject)
        };
        row.subjects.iter().copied().filter(wanted).collect()
    }

    /// The subjects that are wanted by any row of an experiment.
    fn chosen_of(&self, rows: &[Row], experiment: &Experiment) -> Vec<Subject> {
        let mut chosen = Vec::new();
        for row in rows
            .iter()
            .filter(|row| row.experiment == *experiment && self.wants(&row.id))
        {
            for subject in self.chosen(row) {
                if !chosen.contains(&subject) {
                    chosen.push(subject);
                }
            }
        }
        chosen
    }

    /// Whether a row was asked for: experiments that give several leave out what they can.
    fn wants(&self, id: &str) -> bool {
        self.wanted.contains(id)
    }

    /// The folder of a subject in a row.
    fn folder(&self, row: &str, subject: Subject) -> PathBuf {
        self.data
            .join(row)
            .join(subject.name().replace([' ', '\''], "-"))
    }

    /// Prints a figure as soon as it is there.
    fn say(&self, id: &str, unit: Unit, sample: &Sample) {
        let extras: Vec<String> = sample
            .extra
            .iter()
            .map(|(name, value)| format!("{name} {}", text::number(*value)))
            .collect();
        println!(
            "  {}/{} {id:<24} {:<21} {:>10} {:<16} {}",
            sample.round + 1,
            self.scale.rounds,
            sample.subject.name(),
            text::number(sample.value),
            unit.name(),
            extras.join("  "),
        );
    }
}

/// Runs the benchmark for the checkout at `root`.
pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode> {
    if args.null_server {
        return null::serve();
    }
    let rows = chosen_rows(&args.rows)?;
    if args.list {
        for row in rows {
            println!("{:<24} {}", row.id, row.title);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if cfg!(debug_assertions) && !args.render {
        return run_optimised();
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None if args.quick || args.held.is_some() => root.join("target/bench"),
        None => root.join("docs"),
    };
    fs::create_dir_all(out.join("benchmarks"))?;
    let file = out.join("benchmarks/results.json");
    if args.render {
        let results: Results = serde_json::from_str(&fs::read_to_string(&file)?)?;
        report::write(&results, &out)?;
        return Ok(ExitCode::SUCCESS);
    }
    measure_all(root, args, &rows, &out, &file)?;
    Ok(ExitCode::SUCCESS)
}

/// The compiler's debug settings would measure themselves: starts this again in release mode.
fn run_optimised() -> Result<ExitCode> {
    let status = Command::new("cargo")
        .args([
            "run",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "zimcache-xtask",
            "--",
        ])
        .args(std::env::args_os().skip(1))
        .status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn chosen_rows(names: &[String]) -> Result<Vec<Row>> {
    let all = rows::all();
    for name in names {
        ensure!(
            all.iter().any(|row| row.id.starts_with(name.as_str())),
            "no row begins with {name:?}; --list names them"
        );
    }
    let wanted =
        |row: &Row| names.is_empty() || names.iter().any(|n| row.id.starts_with(n.as_str()));
    Ok(all.into_iter().filter(wanted).collect())
}

fn measure_all(root: &Path, args: &Args, rows: &[Row], out: &Path, file: &Path) -> Result<()> {
    let data = args.data.clone().unwrap_or_else(|| root.join("target"));
    let data = DataFolder::create(&data)?;
    let data = data.path();
    let kind = machine::file_system(data)?;
    ensure!(
        kind != "tmpfs" && kind != "ramfs",
        "the data would lie in memory ({kind}); give --data on a disk"
    );
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { ROUNDS });
    let zim = args
        .zim
        .clone()
        .unwrap_or_else(|| root.join("target/release/zim"));
    let bench = Bench {
        tools: Tools::find(zim, args.cache.clone())?,
        scale: scale(args, rounds),
        wanted: rows.iter().map(|row| row.id.clone()).collect(),
        only: args.only.clone(),
        data: data.to_owned(),
    };
    require_programs(&bench, rows)?;
    let machine = Machine::describe(data)?;
    let mut results = Results::load(file, &machine)?;
    results.versions = versions(&bench);
    machine::pin_generator()?;
    let mut failed = Vec::new();
    for (experiment, row) in experiments(rows) {
        match measure(&bench, &experiment, &row) {
            Ok(measured) => results.rows.extend(measured),
            Err(error) => {
                println!("  FAILED: {error:#}");
                failed.push(row.id);
                empty(&bench.data)?;
            }
        }
        results.save(file)?;
        report::write(&results, out)?;
    }
    println!("report: {}", out.join("benchmarks.md").display());
    ensure!(failed.is_empty(), "rows that failed: {}", failed.join(", "));
    Ok(())
}

fn scale(args: &Args, rounds: usize) -> Scale {
    let mut scale = if args.quick {
        Scale::quick(rounds)
    } else {
        Scale::full(rounds)
    };
    if let Some(held) = args.held {
        scale.quick |= held < scale.held;
        scale.held = held;
    }
    scale
}

/// Each experiment once, with the first of its rows.
fn experiments(rows: &[Row]) -> Vec<(Experiment, Row)> {
    let mut found: Vec<(Experiment, Row)> = Vec::new();
    for row in rows {
        if !found.iter().any(|(known, _)| *known == row.experiment) {
            found.push((row.experiment, row.clone()));
        }
    }
    found
}

fn require_programs(bench: &Bench, rows: &[Row]) -> Result<()> {
    let mut needed = BTreeSet::new();
    for row in rows {
        needed.extend(bench.chosen(row));
        if let Experiment::CrossCheck(server) = row.experiment {
            needed.insert(server);
        }
    }
    if needed.contains(&Subject::Cluster) {
        peers::require(&bench.tools.s3, ".ci/needs cluster makes it")?;
    }
    if needed.contains(&Subject::Zimcache) || needed.contains(&Subject::Cluster) {
        peers::require(
            &bench.tools.zimcache,
            "cargo build --release --locked --bin zim",
        )?;
    }
    if needed.contains(&Subject::Nginx) {
        peers::require(&bench.tools.nginx, "install nginx-light")?;
    }
    if needed.contains(&Subject::BazelRemote) {
        bench.tools.ensure_bazel_remote()?;
    }
    Ok(())
}

fn versions(bench: &Bench) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::from([
        (
            "bazel-remote".to_owned(),
            peers::BAZEL_REMOTE_VERSION.to_owned(),
        ),
        ("nginx".to_owned(), bench.tools.nginx_version()),
    ]);
    for (subject, version) in [
        (Subject::BbStorage, peers::BB_STORAGE_VERSION),
        (Subject::NativeLink, peers::NATIVELINK_VERSION),
    ] {
        if bench.tools.has(subject) {
            versions.insert(subject.name().to_owned(), version.to_owned());
        }
    }
    versions
}

/// Runs one experiment on as quiet a machine as can be had and removes its data.
fn measure(
    bench: &Bench,
    experiment: &Experiment,
    row: &Row,
) -> Result<BTreeMap<String, Measured>> {
    let noise = wait_for_quiet(bench.scale.quick)?;
    println!("{}: {}", row.id, row.title);
    println!(
        "  load average {:.2}, {:.0} % of the processors busy with other things{}",
        noise.load,
        noise.busy * 100.0,
        if noise.is_quiet() {
            ""
        } else {
            ": TOO BUSY, do not keep these figures"
        }
    );
    let samples = match *experiment {
        Experiment::Steady(load) => steady::run(bench, row, load),
        Experiment::Many => volume::many(bench, row),
        Experiment::Streaming => volume::streaming(bench, row),
        Experiment::Histogram => volume::histogram(bench, row),
        Experiment::Index => store::index(bench, row),
        Experiment::StorePut { writers, size } => store::put(bench, row, writers, size),
        Experiment::StoreMissing => presence::run(bench, row),
        Experiment::StoreGet { readers } => store::get(bench, row, readers),
        Experiment::Codec(mode) => compression::run(bench, row, mode),
        Experiment::CrossCheck(server) => check::run(bench, row, server),
        Experiment::Reapi(experiment) => reapi::run(bench, row, experiment),
        Experiment::Cluster(experiment) => cluster::run(bench, row, experiment),
    }?;
    let mut measured = BTreeMap::new();
    for (id, sample) in samples {
        let row = measured.entry(id).or_insert_with(|| Measured {
            taken_at: SystemClock.now().0,
            noise,
            quick: bench.scale.quick,
            samples: Vec::new(),
        });
        row.samples.push(sample);
    }
    empty(&bench.data)?;
    Ok(measured)
}

fn wait_for_quiet(hurry: bool) -> Result<Noise> {
    let mut noise = Noise::measure()?;
    let patience = if hurry { 0 } else { PATIENCE };
    for _ in 0..patience {
        if noise.is_quiet() {
            break;
        }
        noise = Noise::measure()?;
    }
    Ok(noise)
}
