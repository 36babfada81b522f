//! The gateway's figures: requests, hits, latency, traffic, connections, and the store's own.
//!
//! Every handle is made at start-up and found by array index; a request touches a handful of atomics. Not here: the
//! page's format (`telemetry`). Invariant: labels are the closed sets [`Dialect`], [`Verb`] and [`Outcome`].

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use zimcache_store::StoreAdmin;
use zimcache_telemetry::metrics::{Counter, Figure, Gauge, Kind, LatencyHistogram, Registry};

use crate::protocol::Dialect;

/// The method of a request, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Head,
    Put,
    Delete,
    Other,
}

impl Verb {
    const ALL: [Verb; 5] = [Verb::Get, Verb::Head, Verb::Put, Verb::Delete, Verb::Other];

    pub(crate) fn of(method: &Method) -> Verb {
        match *method {
            Method::GET => Verb::Get,
            Method::HEAD => Verb::Head,
            Method::PUT => Verb::Put,
            Method::DELETE => Verb::Delete,
            _ => Verb::Other,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Head => "head",
            Verb::Put => "put",
            Verb::Delete => "delete",
            Verb::Other => "other",
        }
    }
}

/// How a request ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Redirect,
    ClientError,
    ServerError,
    Aborted,
}

impl Outcome {
    const ALL: [Outcome; 5] = [
        Outcome::Success,
        Outcome::Redirect,
        Outcome::ClientError,
        Outcome::ServerError,
        Outcome::Aborted,
    ];

    /// `None`: the connection ended before there was an answer.
    pub(crate) fn of(status: Option<StatusCode>) -> Outcome {
        match status.map(|status| status.as_u16() / 100) {
            None => Outcome::Aborted,
            Some(3) => Outcome::Redirect,
            Some(4) => Outcome::ClientError,
            Some(5) => Outcome::ServerError,
            Some(_) => Outcome::Success,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "2xx",
            Outcome::Redirect => "3xx",
            Outcome::ClientError => "4xx",
            Outcome::ServerError => "5xx",
            Outcome::Aborted => "aborted",
        }
    }
}

/// Bytes on sockets.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

#[derive(Debug)]
struct PerVerb {
    requests: [Counter; Outcome::ALL.len()],
    latency: LatencyHistogram,
}

#[derive(Debug)]
struct PerDialect {
    verbs: [PerVerb; Verb::ALL.len()],
    hits: Counter,
    misses: Counter,
}

/// Every figure of one gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    dialects: Vec<PerDialect>,
    pub(crate) traffic: Traffic,
    pub(crate) connections: Gauge,
}

/// Sums over all dialects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

impl Metrics {
    pub(crate) fn new(registry: Registry, admin: Arc<dyn StoreAdmin>) -> Metrics {
        registry.figures(STORE_FIGURES, move || store_values(admin.as_ref()));
        let counter = |name, help| registry.counter(name, help, &[]);
        let traffic = Traffic {
            received: counter(
                "zimcache_received_bytes_total",
                "Bytes read from client sockets.",
            ),
            sent: counter(
                "zimcache_sent_bytes_total",
                "Bytes written to client sockets.",
            ),
        };
        let open = registry.gauge("zimcache_connections", "Client connections open now.", &[]);
        Metrics {
            dialects: Dialect::ALL
                .iter()
                .map(|dialect| PerDialect::new(&registry, *dialect))
                .collect(),
            traffic,
            connections: open,
            registry,
        }
    }

    /// Records a request that ended.
    pub(crate) fn record(
        &self,
        dialect: Dialect,
        verb: Verb,
        status: Option<StatusCode>,
        took: Duration,
    ) {
        let dialect = &self.dialects[dialect as usize];
        let per_verb = &dialect.verbs[verb as usize];
        let outcome = Outcome::of(status);
        per_verb.requests[outcome as usize].inc();
        per_verb.latency.observe(took.as_secs_f64());
        if verb != Verb::Get {
            return;
        }
        match outcome {
            Outcome::Success | Outcome::Redirect => dialect.hits.inc(),
            _ if status == Some(StatusCode::NOT_FOUND) => dialect.misses.inc(),
            Outcome::ClientError | Outcome::ServerError | Outcome::Aborted => {}
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (dialect, figures) in Dialect::ALL.iter().zip(&self.dialects) {
            let verbs = figures.verbs.iter();
            let requests = verbs.flat_map(|verb| verb.requests.iter().map(Counter::get));
            totals.requests += requests.sum::<u64>();
            if dialect.is_cache() {
                totals.hits += figures.hits.get();
                totals.misses += figures.misses.get();
            }
        }
        totals
    }

    /// The page for Prometheus.
    pub(crate) fn page(&self) -> String {
        self.registry.render()
    }
}

impl PerDialect {
    fn new(registry: &Registry, dialect: Dialect) -> PerDialect {
        let label = ("dialect", dialect.as_str());
        PerDialect {
            verbs: Verb::ALL.map(|verb| PerVerb::new(registry, dialect, verb)),
            hits: registry.counter(
                "zimcache_hits_total",
                "GET requests that found something.",
                &[label],
            ),
            misses: registry.counter(
                "zimcache_misses_total",
                "GET requests that found nothing.",
                &[label],
            ),
        }
    }
}

impl PerVerb {
    fn new(registry: &Registry, dialect: Dialect, verb: Verb) -> PerVerb {
        let labels = [("dialect", dialect.as_str()), ("method", verb.as_str())];
        PerVerb {
            requests: Outcome::ALL.map(|outcome| {
                registry.counter(
                    "zimcache_requests_total",
                    "Requests that ended, by dialect, method and status class.",
                    &[labels[0], labels[1], ("status", outcome.as_str())],
                )
            }),
            latency: registry.latency(
                "zimcache_request_seconds",
                "Time from a request's header to the end of its answer.",
                &labels,
            ),
        }
    }
}

const fn figure(kind: Kind, name: &'static str, help: &'static str) -> Figure {
    Figure { kind, name, help }
}

const STORE_FIGURES: &[Figure] = &[
    figure(
        Kind::Gauge,
        "zimcache_store_capacity_bytes",
        "Most bytes the store may take on disk.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_live_bytes",
        "Bytes of live records, headers included.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_disk_bytes",
        "Bytes the store's files take on disk.",
    ),
    figure(Kind::Gauge, "zimcache_store_blobs", "Live blobs."),
    figure(Kind::Gauge, "zimcache_store_entries", "Live entries."),
    figure(
        Kind::Gauge,
        "zimcache_store_index_bytes",
        "RAM taken by the index.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_pinned_bytes",
        "Bytes that must not be evicted.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_written_payload_bytes_total",
        "Payload bytes accepted.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_written_disk_bytes_total",
        "Bytes written to the disk, padding, headers and moves included.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_syncs_total",
        "Syncs of the disk.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_evicted_records_total",
        "Records evicted to make room.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_evicted_bytes_total",
        "Bytes of records evicted.",
    ),
    figure(
        Kind::Counter,
        "zimcache_leases_broken_total",
        "Leases ended early because the store was full of leased data.",
    ),
    figure(
        Kind::Counter,
        "zimcache_store_corrupt_records_total",
        "Records found corrupt.",
    ),
    figure(
        Kind::Gauge,
        "zimcache_store_read_only",
        "1 while the store refuses writes.",
    ),
];

/// The values of [`STORE_FIGURES`], in their order.
fn store_values(admin: &dyn StoreAdmin) -> Vec<u64> {
    let stats = admin.stats();
    vec![
        stats.capacity_bytes,
        stats.live_bytes,
        stats.disk_bytes,
        stats.blobs,
        stats.entries,
        stats.index_bytes,
        stats.pinned_bytes,
        stats.written_payload_bytes,
        stats.written_disk_bytes,
        stats.syncs,
        stats.evicted_records,
        stats.evicted_bytes,
        stats.leases_broken,
        stats.corrupt_records,
        u64::from(stats.read_only.is_some()),
    ]
}

#[cfg(test)]
mod tests {
    use zimcache_store::memory::MemoryStore;

    use super::*;

    #[test]
    fn every_store_figure_has_a_value() {
        let values = store_values(&MemoryStore::default());
        assert_eq!(values.len(), STORE_FIGURES.len());
    }

    #[test]
    fn labels_are_indexed_in_the_order_they_are_listed() {
        for (index, verb) in Verb::ALL.into_iter().enumerate() {
            assert_eq!(verb as usize, index);
        }
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        for (index, dialect) in Dialect::ALL.iter().enumerate() {
            assert_eq!(*dialect as usize, index);
        }
    }

    #[test]
    fn a_hit_and_a_miss_are_told_apart_and_the_admin_pages_count_as_neither() {
        let metrics = Metrics::new(Registry::new(), Arc::new(MemoryStore::default()));
        let took = Duration::from_millis(1);
        metrics.record(Dialect::BazelHttp, Verb::Get, Some(StatusCode::OK), took);
        metrics.record(
            Dialect::BazelHttp,
            Verb::Get,
            Some(StatusCode::NOT_FOUND),
            took,
        );
        metrics.record(Dialect::BazelHttp, Verb::Put, Some(StatusCode::OK), took);
        metrics.record(Dialect::Admin, Verb::Get, Some(StatusCode::OK), took);
        let totals = metrics.totals();
        assert_eq!((totals.requests, totals.hits, totals.misses), (4, 1, 1));
        let page = metrics.page();
        let line =
            "zimcache_requests_total{dialect=\"bazel_http\",method=\"get\",status=\"2xx\"} 1";
        assert!(page.contains(line), "{page}");
    }
}
