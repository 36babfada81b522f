//! `zim cache stats`: hit rates and storage figures, of a running server or of a store in a folder.
//!
//! Look-ups are counted by a server, since it started or over a window of its history; a folder has none. In JSON, both
//! sides use the same names.

use std::{process::ExitCode, time::Duration};

use serde::{Deserialize, Serialize};
use zimcache_config::human::duration_text;
use zimcache_store::StoreStats;

use crate::{
    args::{Metric, StatsArgs},
    error::{Error, Result},
    ls, output,
    target::Target,
};

/// What a server counted since it started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lookups {
    hits: u64,
    misses: u64,
    hit_rate: Option<f64>,
    requests: u64,
    connections: u64,
    uptime_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Windowed>,
}

/// What it counted over the last so many seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Windowed {
    seconds: u64,
    #[serde(flatten)]
    counted: Counted,
}

/// Counts of something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counted {
    hits: u64,
    misses: u64,
    hit_rate: Option<f64>,
    served_bytes: u64,
    stored_bytes: u64,
}

/// Who uses the cache most, the first the most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Top {
    tools: Vec<Ranked>,
    namespaces: Vec<Ranked>,
}

/// A tool or a namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ranked {
    name: String,
    #[serde(flatten)]
    counted: Counted,
}

/// Figures of a server or, without look-ups, of a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stats {
    #[serde(flatten)]
    lookups: Option<Lookups>,
    #[serde(flatten)]
    store: StoreStats,
}

/// Runs it.
pub(crate) fn run(args: &StatsArgs) -> Result<ExitCode> {
    let offline = args.target.storage.is_some();
    if offline && matches!(args.metric, Some(Metric::HitRate | Metric::Top)) {
        return Err(Error::OfflineHitRate);
    }
    let window = args.window.map(duration_text);
    let query = ls::query(&[("window", window.as_deref())]);
    let stats = match Target::of(&args.target)? {
        Target::Server(server) if args.metric == Some(Metric::Top) => {
            return print_top(
                &server.get(&format!("/api/v1/top{query}"))?,
                args.target.json,
            );
        }
        Target::Server(server) => parse(&server.get(&format!("/api/v1/stats{query}"))?)?,
        Target::Store(store) => Stats {
            lookups: None,
            store: store.run(async |admin| Ok(admin.stats()))?,
        },
    };
    match (args.target.json, args.metric) {
        (true, None | Some(Metric::Top)) => output::print_json(&stats)?,
        (true, Some(Metric::HitRate)) => output::print_json(&stats.lookups)?,
        (true, Some(Metric::Storage)) => output::print_json(&stats.store)?,
        (false, metric) => output::print(&describe(&stats, metric))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_top(answer: &[u8], as_json: bool) -> Result<ExitCode> {
    let top: Top =
        serde_json::from_slice(answer).map_err(|error| Error::Answer(error.to_string()))?;
    if as_json {
        output::print_json(&top)?;
    } else {
        output::print(&describe_top(&top))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe_top(top: &Top) -> String {
    let mut rows = vec![("", "Tools, most used first".to_owned())];
    rows.extend(top.tools.iter().map(ranked_row));
    rows.push(("", "Namespaces, most used first".to_owned()));
    rows.extend(top.namespaces.iter().map(ranked_row));
    output::table(&rows)
}

fn ranked_row(ranked: &Ranked) -> (&str, String) {
    let counted = &ranked.counted;
    let all = counted.hits + counted.misses;
    let text = format!(
        "{}, {} hits, {} served, {} stored",
        output::counted(all, "look-up", "look-ups"),
        output::percent(counted.hits, all),
        output::bytes(counted.served_bytes),
        output::bytes(counted.stored_bytes),
    );
    (&ranked.name, text)
}

fn parse(answer: &[u8]) -> Result<Stats> {
    let stats: Stats =
        serde_json::from_slice(answer).map_err(|error| Error::Answer(error.to_string()))?;
    if stats.lookups.is_none() {
        return Err(Error::Answer("it has no counts of look-ups".to_owned()));
    }
    Ok(stats)
}

fn describe(stats: &Stats, metric: Option<Metric>) -> String {
    let mut rows = Vec::new();
    if metric != Some(Metric::Storage) {
        rows.extend(stats.lookups.iter().flat_map(lookup_rows));
    }
    if metric != Some(Metric::HitRate) {
        rows.extend(storage_rows(&stats.store));
    }
    output::table(&rows)
}

fn lookup_rows(lookups: &Lookups) -> Vec<(&'static str, String)> {
    let all = lookups.hits + lookups.misses;
    let uptime = duration_text(Duration::from_secs(lookups.uptime_seconds));
    if let Some(window) = &lookups.window {
        return window_rows(window);
    }
    vec![
        ("", format!("Hit rate since the start, {uptime} ago")),
        ("hit rate", output::percent(lookups.hits, all)),
        ("hits", output::count(lookups.hits)),
        ("misses", output::count(lookups.misses)),
        ("requests", output::count(lookups.requests)),
        ("connections", output::count(lookups.connections)),
    ]
}

fn window_rows(window: &Windowed) -> Vec<(&'static str, String)> {
    let counted = &window.counted;
    let length = rough(window.seconds);
    vec![
        ("", format!("Hit rate of the last {length}")),
        (
            "hit rate",
            output::percent(counted.hits, counted.hits + counted.misses),
        ),
        ("hits", output::count(counted.hits)),
        ("misses", output::count(counted.misses)),
        ("served", output::bytes(counted.served_bytes)),
        ("stored", output::bytes(counted.stored_bytes)),
    ]
}

/// A window's length: a server counts in steps, so it is seldom exactly what was asked for.
fn rough(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = UNITS.into_iter().find(|(length, _)| seconds >= *length);
    let (length, name) = unit.unwrap_or((1, "s"));
    format!("{}{name}", (seconds + length / 2) / length)
}

fn storage_rows(store: &StoreStats) -> Vec<(&'static str, String)> {
    let used = output::percent(store.live_bytes, store.capacity_bytes);
    let evicted = format!(
        "{}, {}",
        output::counted(store.evicted_records, "record", "records"),
        output::bytes(store.evicted_bytes)
    );
    let mut rows = vec![
        ("", "Storage".to_owned()),
        ("blobs", output::count(store.blobs)),
        ("entries", output::count(store.entries)),
        (
            "live",
            format!("{}, {used}", output::bytes(store.live_bytes)),
        ),
        ("capacity", output::bytes(store.capacity_bytes)),
        ("on disk", output::bytes(store.disk_bytes)),
        ("index in RAM", output::bytes(store.index_bytes)),
        ("pinned", output::bytes(store.pinned_bytes)),
        ("evicted", evicted),
        ("accepted", output::bytes(store.written_payload_bytes)),
        ("written for it", output::bytes(store.written_disk_bytes)),
        ("corrupt records", output::count(store.corrupt_records)),
    ];
    if let Some(reason) = &store.read_only {
        rows.push(("read-only", reason.clone()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"version":"0.1.0","uptime_seconds":90,"connections":2,"requests":5,"hits":3,"misses":1,
        "hit_rate":0.75,"capacity_bytes":4096,"live_bytes":1024,"blobs":7,"read_only":"a sync failed"}"#;

    #[test]
    fn the_answer_is_shown_in_parts() {
        let stats = parse(ANSWER.as_bytes()).unwrap();
        let all = describe(&stats, None);
        for text in ["90s ago", "75.0 %", "1KiB, 25.0 %", "read-only"] {
            assert!(all.contains(text), "{text}: {all}");
        }
        let hits = describe(&stats, Some(Metric::HitRate));
        let storage = describe(&stats, Some(Metric::Storage));
        assert!(hits.contains("hits") && !hits.contains("blobs"), "{hits}");
        assert!(
            storage.contains("blobs") && !storage.contains("hits"),
            "{storage}"
        );
    }

    #[test]
    fn a_window_takes_the_place_of_the_start_and_the_most_used_come_with_their_figures() {
        let counted = r#""hits":1,"misses":3,"hit_rate":0.25,"served_bytes":2048,"stored_bytes":0"#;
        let windowed = format!(r#","window":{{"seconds":606941,{counted}}}}}"#);
        let answer = ANSWER.trim_end_matches('}').to_owned() + &windowed;
        let text = describe(&parse(answer.as_bytes()).unwrap(), Some(Metric::HitRate));
        assert!(
            text.contains("last 7d") && text.contains("25.0 %"),
            "{text}"
        );
        let top = format!(r#"{{"tools":[{{"name":"gradle",{counted}}}],"namespaces":[]}}"#);
        let text = describe_top(&serde_json::from_str(&top).unwrap());
        let row = "gradle  4 look-ups, 25.0 % hits, 2KiB served, 0B stored";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn json_keeps_the_names_of_the_answer() {
        let stats = parse(ANSWER.as_bytes()).unwrap();
        let value = serde_json::to_value(&stats).unwrap();
        assert_eq!(
            (&value["hit_rate"], &value["blobs"]),
            (&0.75.into(), &7.into())
        );
    }

    #[test]
    fn an_answer_without_counts_is_not_taken_for_a_servers() {
        assert!(parse(b"{}").is_err());
        assert!(parse(b"<html>").is_err());
    }
}
