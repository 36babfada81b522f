//! The gateway's figures: requests, hits, latency, traffic, connections, and the store's own.
//!
//! Every handle is made at start-up and found by array index; a request touches a handful of atomics. Other names for
//! the same figures (`seeds`) are derived when the page is made. Not here: the page's format (`telemetry`). Invariant:
//! labels are the closed sets [`Dialect`], [`Verb`] and [`Outcome`], and a bounded number of namespaces
//! (`namespaces`).

mod exemplars;
mod held;
mod limits;
mod namespaces;
mod seeds;
mod store;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use zimcache_store::{GcReport, StoreAdmin};
use zimcache_telemetry::metrics::{Counter, Gauge, LatencyHistogram, Registry};
use zimcache_types::Namespace;

pub(crate) use self::held::Held;
pub(crate) use self::limits::{LeaseFailure, SharedLimits};
pub(crate) use self::namespaces::{Counts, Namespaces, OTHER};
use self::{
    exemplars::{Exemplars, Last, open_metrics},
    store::{STORE_FIGURES, store_values},
};
use crate::protocol::Dialect;

/// The histogram that has exemplars.
const REQUEST_SECONDS: &str = "zimcache_request_seconds";

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
    traced: Last,
}

#[derive(Debug)]
struct PerDialect {
    verbs: [PerVerb; Verb::ALL.len()],
    limited: Counter,
    hits: Counter,
    misses: Counter,
    served_bytes: Counter,
    stored_bytes: Counter,
}

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    pub(crate) dialect: Dialect,
    /// Where it looked; a request that was refused before looked nowhere.
    pub(crate) namespace: Option<&'a Namespace>,
    pub(crate) verb: Verb,
    /// `None`: the connection ended before the answer did.
    pub(crate) status: Option<StatusCode>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) took: Duration,
    /// Its trace, if it is traced.
    pub(crate) trace: Option<&'a str>,
}

impl Ended<'_> {
    /// What it was to the cache; a request that looked nowhere was nothing.
    fn counts(&self, outcome: Outcome) -> Counts {
        // 204 is how the cache of GitHub Actions says that it has nothing; no dialect serves a value so.
        const NOTHING: [StatusCode; 2] = [StatusCode::NOT_FOUND, StatusCode::NO_CONTENT];
        let mut counts = Counts::default();
        let nothing = self.status.is_some_and(|status| NOTHING.contains(&status));
        let good = matches!(outcome, Outcome::Success | Outcome::Redirect);
        match self.verb {
            Verb::Get if good && !nothing => {
                counts.hits = 1;
                counts.served_bytes = self.sent_bytes;
            }
            Verb::Get => counts.misses = u64::from(nothing),
            _ if good => counts.stored_bytes = self.received_bytes,
            _ => {}
        }
        counts
    }
}

/// Every figure of one gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    admin: Arc<dyn StoreAdmin>,
    shared_limits: OnceLock<SharedLimits>,
    pub(crate) namespaces: Namespaces,
    pub(crate) held: Held,
    dialects: Vec<PerDialect>,
    pub(crate) traffic: Traffic,
    pub(crate) connections: Gauge,
    pub(crate) collections: Collections,
}

/// Garbage collections that somebody asked for. What a store evicts by itself is among its own figures.
#[derive(Debug)]
pub(crate) struct Collections {
    runs: Counter,
    freed_bytes: Counter,
    removed: Counter,
}

impl Collections {
    fn new(registry: &Registry) -> Collections {
        let counter = |name, help| registry.counter(name, help, &[]);
        Collections {
            runs: counter(
                "zimcache_gc_runs_total",
                "Garbage collections that were asked for and are done.",
            ),
            freed_bytes: counter(
                "zimcache_gc_freed_bytes_total",
                "Bytes that they gave back: evicted, too old, or dead already.",
            ),
            removed: counter(
                "zimcache_gc_removed_records_total",
                "Records that they evicted or removed for their age.",
            ),
        }
    }

    /// One is done.
    pub(crate) fn done(&self, report: &GcReport) {
        if report.dry_run {
            return;
        }
        self.runs.inc();
        let freed = report.evicted_bytes + report.expired_bytes + report.compacted_bytes;
        self.freed_bytes.inc_by(freed);
        let removed = report.evicted_records + report.expired_records;
        self.removed.inc_by(removed);
    }
}

/// Sums over all dialects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) counts: Counts,
}

/// Puts a store's own figures on a page.
pub fn register_store(registry: &Registry, admin: Arc<dyn StoreAdmin>) {
    registry.figures(STORE_FIGURES, move || store_values(admin.as_ref()));
}

impl Metrics {
    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn new(registry: Registry, admin: Arc<dyn StoreAdmin>) -> Metrics {
        register_store(&registry, Arc::clone(&admin));
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
            collections: Collections::new(&registry),
            registry,
            admin,
            shared_limits: OnceLock::new(),
            namespaces: Namespaces::default(),
            held: Held::default(),
        }
    }

    /// Records a request that ended.
    pub(crate) fn record(&self, ended: &Ended<'_>) {
        let dialect = &self.dialects[ended.dialect as usize];
        let per_verb = &dialect.verbs[ended.verb as usize];
        let outcome = Outcome::of(ended.status);
        per_verb.requests[outcome as usize].inc();
        per_verb.latency.observe(ended.took.as_secs_f64());
        if let Some(trace) = ended.trace {
            per_verb.traced.set(trace, ended.took);
        }
        if ended.status == Some(StatusCode::TOO_MANY_REQUESTS) {
            dialect.limited.inc();
        }
        let Some(namespace) = ended.namespace.filter(|_| ended.dialect.is_cache()) else {
            return;
        };
        let counts = ended.counts(outcome);
        dialect.add(counts);
        self.namespaces.add(namespace, counts);
    }

    /// What each dialect did so far.
    pub(crate) fn by_dialect(&self) -> impl Iterator<Item = (Dialect, Counts)> + '_ {
        let all = Dialect::ALL.iter().copied().zip(&self.dialects);
        let caches = all.filter(|(dialect, _)| dialect.is_cache());
        caches.map(|(dialect, figures)| (dialect, figures.counts()))
    }

    pub(crate) fn totals(&self) -> Totals {
        let verbs = self.dialects.iter().flat_map(|dialect| &dialect.verbs);
        let requests = verbs.flat_map(|verb| verb.requests.iter().map(Counter::get));
        Totals {
            requests: requests.sum(),
            counts: self.by_dialect().map(|(_, counts)| counts).sum(),
        }
    }

    /// Figures of limits that are shared; on the page from the first call on.
    pub(crate) fn shared_limits(&self) -> SharedLimits {
        let figures = || SharedLimits::new(&self.registry);
        self.shared_limits.get_or_init(figures).clone()
    }

    /// The page for Prometheus.
    pub(crate) fn page(&self) -> String {
        let mut page = self.registry.render();
        self.namespaces.write(&mut page);
        self.held.write(&mut page);
        seeds::write(self, &self.admin.stats(), &mut page);
        page
    }

    /// The page in the format that a reader with these headers wants, and its type.
    pub(crate) fn page_for(&self, headers: &HeaderMap) -> (HeaderValue, String) {
        const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
        const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let accepted = headers.get_all(header::ACCEPT).iter();
        let mut texts = accepted.filter_map(|value| value.to_str().ok());
        // Prometheus names all formats it knows, this one first.
        if texts.any(|text| text.contains("application/openmetrics-text")) {
            (HeaderValue::from_static(OPEN), self.open_page())
        } else {
            (HeaderValue::from_static(TEXT), self.page())
        }
    }

    /// The same in `OpenMetrics`, with traced requests as exemplars.
    fn open_page(&self) -> String {
        let dialects = Dialect::ALL.iter().zip(&self.dialects);
        let each = dialects.flat_map(|(dialect, figures)| {
            let verbs = Verb::ALL.iter().zip(&figures.verbs);
            verbs.map(move |(verb, figures)| (dialect, verb, figures))
        });
        let traced = each.filter_map(|(dialect, verb, figures)| {
            let (dialect, verb) = (dialect.as_str(), verb.as_str());
            let labels = format!("dialect=\"{dialect}\",method=\"{verb}\"");
            Some((labels, figures.traced.get()?))
        });
        let exemplars: Exemplars = traced.collect();
        open_metrics(&self.page(), REQUEST_SECONDS, exemplars)
    }
}

impl PerDialect {
    fn new(registry: &Registry, dialect: Dialect) -> PerDialect {
        let label = ("dialect", dialect.as_str());
        PerDialect {
            verbs: Verb::ALL.map(|verb| PerVerb::new(registry, dialect, verb)),
            limited: registry.counter(
                "zimcache_rate_limited_requests_total",
                "Requests refused because of a rate limit.",
                &[label],
            ),
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
            served_bytes: registry.counter(
                "zimcache_served_bytes_total",
                "Bytes of values served: what clients did not have to make again.",
                &[label],
            ),
            stored_bytes: registry.counter(
                "zimcache_stored_bytes_total",
                "Bytes of values taken in.",
                &[label],
            ),
        }
    }

    fn add(&self, counts: Counts) {
        let counters = [
            &self.hits,
            &self.misses,
            &self.served_bytes,
            &self.stored_bytes,
        ];
        for (counter, count) in counters.into_iter().zip(counts.each()) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            hits: self.hits.get(),
            misses: self.misses.get(),
            served_bytes: self.served_bytes.get(),
            stored_bytes: self.stored_bytes.get(),
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
                REQUEST_SECONDS,
                "Time from a request's header to the end of its answer.",
                &labels,
            ),
            traced: Last::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use zimcache_store::memory::MemoryStore;

    use super::*;

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

    fn ended(verb: Verb, status: StatusCode, namespace: &Namespace) -> Ended<'_> {
        Ended {
            dialect: Dialect::BazelHttp,
            namespace: Some(namespace),
            verb,
            status: Some(status),
            sent_bytes: 100,
            received_bytes: 7,
            took: Duration::from_millis(3),
            trace: None,
        }
    }

    fn metrics() -> Metrics {
        Metrics::new(Registry::new(), Arc::new(MemoryStore::default()))
    }

    #[test]
    fn hits_and_misses_are_told_apart_and_what_looked_nowhere_is_neither() {
        let (metrics, namespace) = (metrics(), Namespace::default());
        let get = ended(Verb::Get, StatusCode::OK, &namespace);
        metrics.record(&get);
        metrics.record(&ended(Verb::Get, StatusCode::NOT_FOUND, &namespace));
        metrics.record(&ended(Verb::Get, StatusCode::NO_CONTENT, &namespace));
        metrics.record(&ended(Verb::Put, StatusCode::OK, &namespace));
        metrics.record(&ended(
            Verb::Put,
            StatusCode::INSUFFICIENT_STORAGE,
            &namespace,
        ));
        metrics.record(&Ended {
            namespace: None,
            ..get
        });
        metrics.record(&Ended {
            dialect: Dialect::Admin,
            ..get
        });
        let Totals { requests, counts } = metrics.totals();
        assert_eq!((requests, counts.each()), (7, [1, 2, 100, 7]));
        let page = metrics.page();
        for line in [
            "zimcache_requests_total{dialect=\"bazel_http\",method=\"get\",status=\"2xx\"} 3",
            "zimcache_served_bytes_total{dialect=\"bazel_http\"} 100",
            "zimcache_namespace_requests_total{namespace=\"default\"} 5",
            "zimcache_namespace_hits_total{namespace=\"default\"} 1",
            "zimcache_namespace_stored_bytes_total{namespace=\"default\"} 7",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
    }

    #[test]
    fn recording_takes_less_than_a_microsecond_or_so() {
        const REQUESTS: u32 = 200_000;
        let (metrics, namespace) = (metrics(), Namespace::default());
        let get = ended(Verb::Get, StatusCode::OK, &namespace);
        let start = std::time::Instant::now();
        (0..REQUESTS).for_each(|_| metrics.record(&get));
        let each = start.elapsed() / REQUESTS;
        println!("{each:?} to record a request");
        assert_eq!(metrics.totals().counts.hits, u64::from(REQUESTS));
        // Without optimisation and beside other tests; `docs/metrics.md` has the figure of a release.
        assert!(each < Duration::from_micros(20), "{each:?}");
    }
}
