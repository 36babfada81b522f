//! Writes the report: `benchmarks.md` (only what lies between its markers) and the plot beside it.
//!
//! Everything in it comes from the results file, so it can be written again at any time. Rows that lose stay in.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use zimcache_types::Timestamp;

use super::{
    goals, plot,
    result::{Results, Spread},
    rows::{self, Experiment, Row, Unit},
    subject::Subject,
    text::{day, number},
};

const BEGIN: &str = "<!-- bench: begin; written by `make bench`, do not edit -->";
const END: &str = "<!-- bench: end -->";
const SERVERS: [Subject; 3] = [Subject::Zimcache, Subject::BazelRemote, Subject::Nginx];
const REAPI_SERVERS: [Subject; 5] = [
    Subject::Zimcache,
    Subject::BazelRemote,
    Subject::BbStorage,
    Subject::BbStorageSecond,
    Subject::NativeLink,
];

const CLUSTER_SERVERS: [Subject; 3] = [Subject::Cluster, Subject::Zimcache, Subject::S3];

/// Writes report and plot into `out`.
pub(super) fn write(results: &Results, out: &Path) -> Result<()> {
    let rows = rows::all();
    for (name, wanted) in [
        ("goals", Part::Server),
        ("reapi", Part::Reapi),
        ("cluster", Part::Cluster),
    ] {
        let rows: Vec<Row> = rows
            .iter()
            .filter(|row| part(row) == wanted)
            .cloned()
            .collect();
        let plot = plot::goals(results, &rows);
        fs::write(out.join(format!("benchmarks/{name}.svg")), plot)?;
    }
    let page = out.join("benchmarks.md");
    let old =
        fs::read_to_string(&page).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
    let (before, rest) = old
        .split_once(BEGIN)
        .context("the report has lost its first marker")?;
    let (_, after) = rest
        .split_once(END)
        .context("the report has lost its last marker")?;
    let body = generated(results, &rows);
    fs::write(page, format!("{before}{BEGIN}\n\n{body}\n{END}{after}"))?;
    Ok(())
}

fn generated(results: &Results, rows: &[Row]) -> String {
    [
        machine_section(results),
        promise_section(results, rows),
        reapi_section(results, rows),
        cluster_section(results, rows),
        acknowledgement_section(),
        detail_section(results, rows),
        store_section(results, rows),
        check_section(results, rows),
        condition_section(results, rows),
    ]
    .join("\n")
}

fn machine_section(results: &Results) -> String {
    let machine = &results.machine;
    let versions: Vec<String> = results
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let quick = if results.rows.values().any(|row| row.quick) {
        "\n**Some rows come from a shortened run (`--quick`): they show that the tool works, not how fast anything is.**\n"
    } else {
        ""
    };
    format!(
        "Machine: {}, {} cores, {:.0} GiB RAM, Linux {}, {} for the data. Server on core 0, generator on core 1.\n\
         Beside ours: {}.\n{quick}",
        machine.processor,
        machine.cores,
        machine.ram_gib,
        machine.kernel,
        machine.file_system,
        versions.join(", "),
    )
}

const SPREAD: &str = "Median of all rounds; in brackets least and most. A ratio is formed inside each round; shown is \
                      the median of the ratios.\n";

fn promise_section(results: &Results, rows: &[Row]) -> String {
    [
        "## What it must reach\n",
        "![Each goal and what was reached](benchmarks/goals.svg)\n",
        SPREAD,
        &goals::table(
            results,
            rows.iter().filter(|row| part(row) == Part::Server),
            &SERVERS,
        ),
    ]
    .join("\n")
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Server,
    Reapi,
    Cluster,
}

const fn part(row: &Row) -> Part {
    match row.experiment {
        Experiment::Reapi(_) => Part::Reapi,
        Experiment::Cluster(_) => Part::Cluster,
        _ => Part::Server,
    }
}

fn reapi_section(results: &Results, rows: &[Row]) -> String {
    [
        "## The Remote Execution API\n",
        "Over gRPC, one connection and one call in flight per client, frames of at most 16 KiB. Blobs of up to 1 MiB \
         go in batches of one, larger ones by ByteStream in messages of 1 MiB. Every answer's status and length is \
         checked, and one in 61 whole. NativeLink leaves Nagle's algorithm on, so that small calls of few clients \
         wait 40 ms for the kernel: it is measured with 128 clients there.\n",
        "![Each goal of the Remote Execution API and what was reached](benchmarks/reapi.svg)\n",
        SPREAD,
        &goals::table(results, rows.iter().filter(|row| part(row) == Part::Reapi), &REAPI_SERVERS),
    ]
    .join("\n")
}

fn cluster_section(results: &Results, rows: &[Row]) -> String {
    [
        "## A cluster\n",
        "Three nodes with two copies of everything, gateways and an S3 server, all of them on the server core, as \
         `zim cache serve` beside them is: what a gateway and a node do for a request is added up. \"Per core used\" \
         divides by the processor time of gateway and nodes. A cold object is in S3 only, and the time to a reader's \
         first byte begins before it connects; the S3 server is asked in the same way, with signed requests, by one \
         reader and by as many as the gateway has. On this machine that is a server without a network; one more row has \
         a way to it on which every byte is 10 ms under way, for nodes and for the reader alike. S3 requests are \
         counted in the S3 server's own log.\n",
        "![Each goal of a cluster and what was reached](benchmarks/cluster.svg)\n",
        SPREAD,
        &goals::table(results, rows.iter().filter(|row| part(row) == Part::Cluster), &CLUSTER_SERVERS),
    ]
    .join("\n")
}

fn acknowledgement_section() -> String {
    let mut lines = vec![
        "## What an acknowledgement means\n".to_owned(),
        "| server | when it says \"stored\" | checked on a read |".to_owned(),
        "| --- | --- | --- |".to_owned(),
    ];
    for subject in [
        Subject::Zimcache,
        Subject::Cluster,
        Subject::BazelRemote,
        Subject::BbStorage,
        Subject::BbStorageSecond,
        Subject::NativeLink,
        Subject::Nginx,
        Subject::FilePerBlob,
    ] {
        lines.push(format!(
            "| {} | {} | {} |",
            subject.name(),
            subject.acknowledgement(),
            subject.read_check()
        ));
    }
    lines.join("\n") + "\n"
}

/// The figures beside a sample that the table of all server rows shows: name, title.
const DETAILS: [(&str, &str); 8] = [
    ("requests_per_s", "requests/s"),
    ("mib_per_s", "MiB/s"),
    ("p50_us", "p50 µs"),
    ("p99_us", "p99 µs"),
    ("p999_us", "p99.9 µs"),
    ("server_cores", "server core"),
    ("per_server_core_s", "÷ server core"),
    ("generator_cores", "generator core"),
];

fn detail_section(results: &Results, rows: &[Row]) -> String {
    let titles: Vec<&str> = DETAILS.iter().map(|(_, title)| *title).collect();
    let mut lines = vec![
        "## Rates, latency, and who was the limit\n".to_owned(),
        "A server core near 1 means that the server was the limit; a generator core near 1 with an idle server core \
         would mean that the generator was. \"÷ server core\" is the row's rate over the server core used. Open loop: requests come at random times at the given rate whatever the \
         server does, and latency counts from the time a request was due.\n"
            .to_owned(),
        format!("| row | server | {} | failed |", titles.join(" | ")),
        format!("| --- | --- |{} --- |", " --- |".repeat(DETAILS.len())),
    ];
    for row in rows {
        let steady = matches!(
            row.experiment,
            Experiment::Steady(_)
                | Experiment::Histogram
                | Experiment::Reapi(_)
                | Experiment::Cluster(_)
        );
        let Some(measured) = results.rows.get(&row.id).filter(|_| steady) else {
            continue;
        };
        let loaded = |subject: Subject| measured.extra(subject, "requests_per_s").is_some();
        for &subject in row.subjects.iter().filter(|&&subject| loaded(subject)) {
            let figures = DETAILS.map(|(name, _)| optional(measured.extra(subject, name)));
            lines.push(format!(
                "| {} | {} | {} | {} |",
                row.title,
                subject.name(),
                figures.join(" | "),
                optional(measured.extra(subject, "errors")),
            ));
        }
    }
    lines.extend(first_read_lines(results, rows));
    lines.extend(memory_lines(results));
    lines.join("\n") + "\n"
}

/// How fast what was just uploaded is read: not every server has it in memory.
fn first_read_lines(results: &Results, rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| part(row) == Part::Reapi) {
        let Some(measured) = results.rows.get(&row.id) else {
            continue;
        };
        let rates: Vec<String> = row
            .subjects
            .iter()
            .filter_map(|&subject| {
                let rate = measured.extra(subject, "first_mib_per_s")?;
                Some(format!("{} {}", subject.name(), number(rate)))
            })
            .collect();
        if !rates.is_empty() {
            let rates = rates.join(", ");
            lines.push(format!(
                "- `{}`, first read after the upload, MiB/s: {rates}",
                row.id
            ));
        }
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// What the memory rows noted beside their figure, as sentences.
fn memory_lines(results: &Results) -> Vec<String> {
    let mut lines = vec![String::new()];
    for id in [
        "index-10m",
        "rss-1m",
        "rss-1m-restarted",
        "rss-streaming",
        "compression-zstd",
        "compression-lz4",
        "reapi-rss-1m",
        "reapi-build",
        "cluster-cold",
        "cluster-cold-far",
        "cluster-miss",
    ] {
        let Some(measured) = results.rows.get(id) else {
            continue;
        };
        for subject in [
            Subject::Store,
            Subject::Zimcache,
            Subject::Cluster,
            Subject::S3,
            Subject::S3Crowd,
            Subject::BazelRemote,
            Subject::BbStorage,
            Subject::NativeLink,
        ] {
            let Some(spread) = measured.of(subject) else {
                continue;
            };
            let names = measured
                .samples
                .iter()
                .flat_map(|sample| sample.extra.keys());
            let mut names: Vec<&String> = names.collect();
            names.sort();
            names.dedup();
            let notes: Vec<String> = names
                .into_iter()
                .filter_map(|name| {
                    Some(format!("{name} {}", number(measured.extra(subject, name)?)))
                })
                .collect();
            lines.push(format!(
                "- `{id}`, {}: {}; {}",
                subject.name(),
                number(spread.median),
                or_dash(&notes.join(", "))
            ));
        }
    }
    lines
}

fn store_section(results: &Results, rows: &[Row]) -> String {
    let mut lines = vec![
        "## The store alone\n".to_owned(),
        "The engine called directly, threads on all cores, against one file per blob (create, write, fdatasync, \
         rename, fsync of the folder). Both hash the body before they acknowledge.\n"
            .to_owned(),
        "| row | store | p50 / p99 µs | bytes written ÷ payload | syncs/s | file per blob | p50 / p99 µs | ratio |"
            .to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    let ours = Subject::Store;
    let files = Subject::FilePerBlob;
    for row in rows {
        let is_store = matches!(
            row.experiment,
            Experiment::StorePut { .. } | Experiment::StoreGet { .. }
        );
        let Some(measured) = results.rows.get(&row.id).filter(|_| is_store) else {
            continue;
        };
        let latency = |subject| {
            let at = |name| optional(measured.extra(subject, name));
            format!("{} / {}", at("p50_us"), at("p99_us"))
        };
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.title,
            cell(row.unit, measured.of(ours)),
            latency(ours),
            optional(measured.extra(ours, "written_per_payload")),
            optional(measured.extra(ours, "syncs_per_s")),
            cell(row.unit, measured.of(files)),
            latency(files),
            times(measured.ratio(ours, files)),
        ));
    }
    lines.join("\n") + "\n"
}

fn check_section(results: &Results, rows: &[Row]) -> String {
    let mut lines = vec![
        "## Is the generator right?\n".to_owned(),
        "The same server and URL, our generator and wrk in turn on the same core.\n".to_owned(),
        "| row | ours | generator core | wrk | ours ÷ wrk |".to_owned(),
        "| --- | --- | --- | --- | --- |".to_owned(),
    ];
    for row in rows {
        let is_check = matches!(row.experiment, Experiment::CrossCheck(_));
        let Some(measured) = results.rows.get(&row.id).filter(|_| is_check) else {
            continue;
        };
        lines.push(format!(
            "| {} | {} | {} | {} | {} |",
            row.title,
            cell(row.unit, measured.of(Subject::Generator)),
            optional(measured.extra(Subject::Generator, "generator_cores")),
            cell(row.unit, measured.of(Subject::Wrk)),
            times(measured.ratio(Subject::Generator, Subject::Wrk)),
        ));
    }
    lines.join("\n") + "\n"
}

fn condition_section(results: &Results, rows: &[Row]) -> String {
    let mut lines = vec![
        "## Each row: how to measure it again, and what else went on\n".to_owned(),
        "Every sample of every round is in [results.json](benchmarks/results.json).\n".to_owned(),
        "| command | taken | rounds | load average before | processors busy otherwise |".to_owned(),
        "| --- | --- | --- | --- | --- |".to_owned(),
    ];
    for row in rows {
        let Some(measured) = results.rows.get(&row.id) else {
            continue;
        };
        let rounds = measured.samples.iter().map(|sample| sample.round + 1).max();
        lines.push(format!(
            "| `cargo xtask bench {}` | {}{} | {} | {:.2} | {:.0} %{} |",
            row.id,
            day(Timestamp(measured.taken_at)),
            if measured.quick { " (quick)" } else { "" },
            rounds.unwrap_or_default(),
            measured.noise.load,
            measured.noise.busy * 100.0,
            if measured.noise.is_quiet() {
                ""
            } else {
                " (too busy)"
            },
        ));
    }
    lines.join("\n") + "\n"
}

/// Median with bounds, and the unit.
pub(super) fn cell(unit: Unit, spread: Option<Spread>) -> String {
    let Some(Spread {
        median,
        least,
        most,
        count,
    }) = spread
    else {
        return "–".to_owned();
    };
    let unit = match unit {
        Unit::PerSecond => "/s".to_owned(),
        other => format!(" {}", other.name()),
    };
    if count == 1 {
        return format!("{}{unit}", number(median));
    }
    format!(
        "{}{unit} ({}–{})",
        number(median),
        number(least),
        number(most)
    )
}

fn times(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |spread| {
            format!(
                "{}× ({}–{})",
                number(spread.median),
                number(spread.least),
                number(spread.most)
            )
        },
    )
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

/// A dash for nothing.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_around_the_markers_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("benchmarks")).unwrap();
        let page = folder.path().join("benchmarks.md");
        fs::write(
            &page,
            format!("above\n{BEGIN}\nstale words\n{END}\nbelow\n"),
        )
        .unwrap();
        for _ in 0..2 {
            write(&Results::default(), folder.path()).unwrap();
            let text = fs::read_to_string(&page).unwrap();
            assert!(text.starts_with("above\n") && text.ends_with("\nbelow\n"));
            assert!(!text.contains("stale words") && text.contains("not measured"));
        }
    }
}
