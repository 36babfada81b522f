//! `zim cache stats`: hit rates and storage figures, of a running server or of a store in a folder.
//!
//! Look-ups are counted by a server since it started; a folder has none. In JSON, both sides use the same names.

use std::{process::ExitCode, time::Duration};

use serde::{Deserialize, Serialize};
use zimcache_config::human::duration_text;
use zimcache_store::StoreStats;

use crate::{
    args::{Metric, StatsArgs},
    error::{Error, Result},
    output,
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
    if offline && args.metric == Some(Metric::HitRate) {
        return Err(Error::OfflineHitRate);
    }
    let stats = match Target::of(&args.target)? {
        Target::Server(server) => parse(&server.get("/api/v1/stats")?)?,
        Target::Store(store) => Stats {
            lookups: None,
            store: store.run(async |admin| Ok(admin.stats()))?,
        },
    };
    match (args.target.json, args.metric) {
        (true, None) => output::print_json(&stats)?,
        (true, Some(Metric::HitRate)) => output::print_json(&stats.lookups)?,
        (true, Some(Metric::Storage)) => output::print_json(&stats.store)?,
        (false, metric) => output::print(&describe(&stats, metric))?,
    }
    Ok(ExitCode::SUCCESS)
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
    vec![
        ("", format!("Hit rate since the start, {uptime} ago")),
        ("hit rate", output::percent(lookups.hits, all)),
        ("hits", output::count(lookups.hits)),
        ("misses", output::count(lookups.misses)),
        ("requests", output::count(lookups.requests)),
        ("connections", output::count(lookups.connections)),
    ]
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
