//! The metrics page: its format, the names under which others know the same figures, bounded labels.
#![allow(
    clippy::float_cmp,
    reason = "what is compared was written as a whole number or a quarter"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use crate::support::{Server, sha256};

/// A family as it stands on the page.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// Labels and value of each sample, in order, under the sample's own name.
    samples: Vec<(String, String, f64)>,
}

/// Reads a page in the Prometheus text format, and fails on whatever the format forbids.
fn parse(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut helped = BTreeSet::new();
    let mut seen = BTreeSet::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "TYPE before HELP: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            assert!(families.insert(name.to_owned(), family).is_none(), "{line}");
            current = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            assert!(seen.insert(series.to_owned()), "twice: {series}");
            assert!(labels.is_empty() || labels.ends_with("\"}"), "{line}");
            let family = families.get_mut(&current).unwrap();
            let suffixes: &[&str] = match &*family.kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let belongs = suffixes.iter().any(|end| name == format!("{current}{end}"));
            assert!(belongs, "{line} among {current}");
            assert!(
                family.kind != "counter" || name.ends_with("_total"),
                "{line}"
            );
            family
                .samples
                .push((name.to_owned(), labels.to_owned(), value.parse().unwrap()));
        }
    }
    families
}

/// The bounds of a histogram ascend, its counts do not fall, and the last one is the count.
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    let mut sums = 0;
    for (sample, labels, value) in &family.samples {
        match sample.strip_prefix(name) {
            Some("_bucket") => {
                let (others, bound) = labels.split_once("le=\"").unwrap();
                let bound = bound.trim_end_matches("\"}");
                let bound = if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().unwrap()
                };
                let others = others.trim_end_matches(',').to_owned();
                series.entry(others).or_default().push((bound, *value));
            }
            Some("_count") => {
                counts.insert(labels.trim_end_matches('}').to_owned(), *value);
            }
            _ => sums += 1,
        }
    }
    assert_eq!((series.len(), counts.len()), (sums, sums), "{name}");
    for (labels, buckets) in series {
        assert!(buckets.is_sorted(), "{name} {labels} {buckets:?}");
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        let (bound, last) = buckets.last().unwrap();
        assert!(
            bound.is_infinite() && counts[&labels] == *last,
            "{name} {labels}"
        );
    }
}

async fn used() -> (Server, String) {
    let server = Server::start().await;
    let path = format!("/cas/{}", sha256(b"hello"));
    assert_eq!(server.get(&path).await.status, 404);
    assert_eq!(server.put(&path, b"hello").await.status, 200);
    for _ in 0..3 {
        assert_eq!(server.get(&path).await.status, 200);
    }
    assert_eq!(server.get("/ns/team-a/cas/nothing").await.status, 400);
    let page = server.get("/metrics").await.text();
    (server, page)
}

fn value(families: &BTreeMap<String, Family>, name: &str, labels: &str) -> f64 {
    let samples = &families.get(name).expect(name).samples;
    let found = samples
        .iter()
        .find(|(_, own, _)| own.trim_end_matches('}') == labels);
    found.unwrap_or_else(|| panic!("{name} {labels}")).2
}

#[tokio::test]
async fn the_page_keeps_to_the_format() {
    let (_server, page) = used().await;
    let families = parse(&page);
    assert!(families.len() > 40, "{}", families.len());
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name}");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
}

#[tokio::test]
async fn a_reader_of_open_metrics_gets_the_same_figures_in_that_format() {
    let (server, page) = used().await;
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let request = crate::support::request("GET", "/metrics", &[accept], b"");
    let reply = server.ask(request).await;
    let format = reply.header("content-type").unwrap();
    assert!(format.starts_with("application/openmetrics-text; version=1.0.0"));
    let open = reply.text();
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    let families = |page: &str, kind: &str| -> Vec<String> {
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let of_kind = types.filter_map(|rest| rest.strip_suffix(kind));
        of_kind.map(|name| name.trim().to_owned()).collect()
    };
    let counters = families(&page, " counter");
    let expected: Vec<&str> = counters
        .iter()
        .map(|name| name.trim_end_matches("_total"))
        .collect();
    assert_eq!(families(&open, " counter"), expected);
    assert_eq!(families(&open, " histogram"), families(&page, " histogram"));
    let line = "zimcache_hits_total{dialect=\"bazel_http\"} 3";
    assert!(open.lines().any(|own| own == line), "{open}");
}

#[tokio::test]
async fn promtool_agrees_where_it_is_installed() {
    let (_server, page) = used().await;
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = started else {
        println!("promtool is not installed; the parser above has to do");
        return;
    };
    tool.stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let ended = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    // Builder's and Plasma's own names break its rules of style, which make it end with 3.
    let style_only = said
        .lines()
        .all(|line| line.starts_with("builder_cache_") || line.starts_with("plasma_"));
    assert!(
        ended.status.success() || (ended.status.code() == Some(3) && style_only),
        "{said}"
    );
}

#[tokio::test]
async fn the_names_of_the_seeds_tell_the_same_figures() {
    let (_server, page) = used().await;
    let families = parse(&page);
    for (name, labels, expected) in [
        ("zim_cache_hits_total", "status=\"hit\"", 3.0),
        ("zim_cache_hits_total", "status=\"miss\"", 1.0),
        ("builder_cache_requests_total", "", 6.0),
        ("builder_cache_requests_method_total", "method=\"GET\"", 5.0),
        ("builder_cache_requests_method_total", "method=\"PUT\"", 1.0),
        ("builder_cache_responses_success_total", "", 4.0),
        ("builder_cache_responses_client_error_total", "", 2.0),
        ("builder_cache_responses_server_error_total", "", 0.0),
        ("builder_cache_hits_total", "", 3.0),
        ("builder_cache_misses_total", "", 1.0),
        ("builder_cache_hit_rate", "", 0.75),
        ("builder_cache_bytes_uploaded_total", "", 5.0),
        ("builder_cache_bytes_downloaded_total", "", 15.0),
        ("builder_cache_evictions_total", "", 0.0),
        ("plasma_requests_total", "", 6.0),
        ("plasma_cache_hits_total", "", 3.0),
        ("plasma_cache_misses_total", "", 1.0),
        (
            "zimcache_namespace_hits_total",
            "namespace=\"default\"",
            3.0,
        ),
        (
            "zimcache_served_bytes_total",
            "dialect=\"bazel_http\"",
            15.0,
        ),
    ] {
        assert_eq!(value(&families, name, labels), expected, "{name} {labels}");
    }
    let held = value(&families, "zimcache_store_live_bytes", "");
    for name in [
        "zim_cache_size_bytes",
        "builder_cache_storage_bytes_used",
        "plasma_cache_size_bytes",
    ] {
        assert_eq!(value(&families, name, ""), held, "{name}");
    }
    let name = "builder_cache_request_duration_milliseconds";
    let samples = &families[name].samples;
    let bounds = samples.iter().filter(|(own, ..)| own.ends_with("_bucket"));
    let bounds: Vec<_> = bounds
        .map(|(_, labels, _)| labels.split('"').nth(1).unwrap())
        .collect();
    let expected = [
        "1", "5", "10", "25", "50", "100", "250", "500", "1000", "5000", "+Inf",
    ];
    assert_eq!(bounds, expected);
    assert!(families.contains_key("builder_cache_storage_bytes_total"));
    assert!(families.contains_key("builder_cache_storage_utilization"));
}

#[tokio::test]
async fn strangers_cannot_make_the_page_grow_without_end() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for number in 0..300 {
        let path = format!("/ns/n{number}/cas/{}", sha256(b"x"));
        client.send(crate::support::get(&path)).await;
        assert_eq!(client.reply().await.status, 404);
    }
    let families = parse(&server.get("/metrics").await.text());
    let misses = &families["zimcache_namespace_misses_total"].samples;
    assert_eq!(misses.len(), 101);
    assert_eq!(misses.iter().map(|(_, _, count)| count).sum::<f64>(), 300.0);
}

#[tokio::test]
async fn the_page_can_be_switched_off() {
    let server = Server::with(|config| config.metrics = false).await;
    assert_eq!(server.get("/metrics").await.status, 404);
    assert_eq!(server.get("/health").await.status, 200);
}
