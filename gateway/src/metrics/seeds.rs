//! The names under which the projects that ZimCache replaces published the same figures: `zim_cache_*`,
//! `builder_cache_*`, `plasma_*`.
//!
//! All of it is derived when the page is made, so a request pays for none. Units and bounds are those of the
//! originals: Builder's durations are milliseconds, its hit rate lies between 0 and 1.

use std::fmt::{Display, Write};

use zimcache_store::StoreStats;
use zimcache_telemetry::metrics::{Counter, buckets};

use super::{Metrics, Outcome, Verb};

/// Builder's bounds in milliseconds. Each is a bound of `zimcache_request_seconds` too.
const BOUNDS_MILLIS: [u32; 10] = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000];

/// Writes all families onto the page.
pub(super) fn write(metrics: &Metrics, store: &StoreStats, page: &mut String) {
    let mut page = Page(page);
    zim(metrics, store, &mut page);
    builder_requests(metrics, &mut page);
    builder_cache(metrics, store, &mut page);
    builder_durations(metrics, &mut page);
    plasma(metrics, store, &mut page);
}

struct Page<'a>(&'a mut String);

impl Page<'_> {
    fn family(&mut self, kind: &str, name: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn sample(&mut self, series: impl Display, value: impl Display) {
        writeln!(self.0, "{series} {value}").ok();
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family("counter", name, help);
        self.sample(name, value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family("gauge", name, help);
        self.sample(name, value);
    }
}

fn zim(metrics: &Metrics, store: &StoreStats, page: &mut Page<'_>) {
    let counts = metrics.totals().counts;
    let name = "zim_cache_hits_total";
    page.family("counter", name, "Look-ups by result.");
    page.sample(format_args!("{name}{{status=\"hit\"}}"), counts.hits);
    page.sample(format_args!("{name}{{status=\"miss\"}}"), counts.misses);
    page.gauge("zim_cache_size_bytes", "Bytes held.", store.live_bytes);
}

fn builder_requests(metrics: &Metrics, page: &mut Page<'_>) {
    let count = |wanted: &dyn Fn(Verb, Outcome) -> bool| -> u64 {
        let verbs = metrics
            .dialects
            .iter()
            .flat_map(|it| Verb::ALL.iter().zip(&it.verbs));
        let counters = verbs.flat_map(|(verb, figures)| {
            let outcomes = Outcome::ALL.iter().zip(&figures.requests);
            outcomes.map(move |(outcome, counter)| (*verb, *outcome, counter))
        });
        let wanted = counters.filter(|(verb, outcome, _)| wanted(*verb, *outcome));
        wanted.map(|(_, _, counter)| Counter::get(counter)).sum()
    };
    page.counter(
        "builder_cache_requests_total",
        "Requests that ended.",
        count(&|_, _| true),
    );
    let name = "builder_cache_requests_method_total";
    page.family("counter", name, "Requests that ended, by method.");
    for verb in Verb::ALL {
        let method = verb.as_str().to_ascii_uppercase();
        let requests = count(&|own, _| own == verb);
        page.sample(format_args!("{name}{{method=\"{method}\"}}"), requests);
    }
    for (class, help, outcomes) in [
        (
            "success",
            "Answers with 2xx or 3xx.",
            &[Outcome::Success, Outcome::Redirect][..],
        ),
        ("client_error", "Answers with 4xx.", &[Outcome::ClientError]),
        ("server_error", "Answers with 5xx.", &[Outcome::ServerError]),
    ] {
        let name = format!("builder_cache_responses_{class}_total");
        page.counter(
            &name,
            help,
            count(&|_, outcome| outcomes.contains(&outcome)),
        );
    }
}

fn builder_cache(metrics: &Metrics, store: &StoreStats, page: &mut Page<'_>) {
    let counts = metrics.totals().counts;
    page.counter(
        "builder_cache_hits_total",
        "Look-ups that found something.",
        counts.hits,
    );
    page.counter(
        "builder_cache_misses_total",
        "Look-ups that found nothing.",
        counts.misses,
    );
    page.gauge(
        "builder_cache_hit_rate",
        "Share of look-ups that found something, from 0 to 1.",
        counts.hit_rate().unwrap_or(0.0),
    );
    page.gauge(
        "builder_cache_storage_bytes_used",
        "Bytes held.",
        store.live_bytes,
    );
    page.gauge(
        "builder_cache_storage_bytes_total",
        "Most bytes the store may take.",
        store.capacity_bytes,
    );
    let share = store.live_bytes as f64 / store.capacity_bytes.max(1) as f64;
    page.gauge(
        "builder_cache_storage_utilization",
        "Share of the capacity that is used, from 0 to 1.",
        share,
    );
    page.counter(
        "builder_cache_bytes_uploaded_total",
        "Bytes of values taken in.",
        counts.stored_bytes,
    );
    page.counter(
        "builder_cache_bytes_downloaded_total",
        "Bytes of values served.",
        counts.served_bytes,
    );
    page.counter(
        "builder_cache_evictions_total",
        "Records evicted to make room.",
        store.evicted_records,
    );
}

fn builder_durations(metrics: &Metrics, page: &mut Page<'_>) {
    let name = "builder_cache_request_duration_milliseconds";
    page.family(
        "histogram",
        name,
        "How long requests took, in milliseconds.",
    );
    let mut within = [0; BOUNDS_MILLIS.len()];
    let (mut sum_seconds, mut count) = (0.0, 0);
    for verb in metrics.dialects.iter().flat_map(|dialect| &dialect.verbs) {
        let buckets = buckets(&verb.latency);
        sum_seconds += verb.latency.get_sample_sum();
        count += verb.latency.get_sample_count();
        for (within, bound) in within.iter_mut().zip(BOUNDS_MILLIS) {
            let bound_seconds = f64::from(bound) / 1e3;
            let mut fitting = buckets.iter().filter(|(upper, _)| *upper <= bound_seconds);
            *within += fitting.next_back().map_or(0, |(_, cumulative)| *cumulative);
        }
    }
    for (within, bound) in within.into_iter().zip(BOUNDS_MILLIS) {
        page.sample(format_args!("{name}_bucket{{le=\"{bound}\"}}"), within);
    }
    page.sample(format_args!("{name}_bucket{{le=\"+Inf\"}}"), count);
    page.sample(format_args!("{name}_sum"), sum_seconds * 1e3);
    page.sample(format_args!("{name}_count"), count);
}

fn plasma(metrics: &Metrics, store: &StoreStats, page: &mut Page<'_>) {
    let totals = metrics.totals();
    page.counter(
        "plasma_requests_total",
        "Requests that ended.",
        totals.requests,
    );
    page.counter(
        "plasma_cache_hits_total",
        "Look-ups that found something.",
        totals.counts.hits,
    );
    page.counter(
        "plasma_cache_misses_total",
        "Look-ups that found nothing.",
        totals.counts.misses,
    );
    page.gauge("plasma_cache_size_bytes", "Bytes held.", store.live_bytes);
    page.gauge(
        "plasma_cache_max_size_bytes",
        "Most bytes the store may take.",
        store.capacity_bytes,
    );
    page.counter(
        "plasma_cache_evictions_total",
        "Records evicted to make room.",
        store.evicted_records,
    );
}
