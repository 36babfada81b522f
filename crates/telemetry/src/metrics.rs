//! The Prometheus registry: what may be registered, and the text page.
//!
//! Handles are resolved once, at start-up: a hot path adds to plain atomics and hashes no label. Names start with
//! `zimcache_`, but for `process_…`, which every program has; label values are literals of closed enums. A name that breaks the rules or is registered twice is a
//! defect: it is logged and left off the page, and its handle still counts.

use std::collections::HashMap;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::process::Process;

/// What every name starts with.
pub const PREFIX: &str = "zimcache_";

pub use prometheus::{Histogram as LatencyHistogram, IntCounter as Counter, IntGauge as Gauge};

/// A label of a metric: name and value, both literals.
pub type Label = (&'static str, &'static str);

/// Whether a figure only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the process lives.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A figure that is asked for when the page is made.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Counter or gauge.
    pub kind: Kind,
    /// Name, with the prefix.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// A set of metrics. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Registry(prometheus::Registry);

impl Registry {
    /// An empty registry.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// A counter.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[Label]) -> Counter {
        let opts = with_labels(name, help, labels);
        self.keep(name, IntCounter::with_opts(opts), || {
            IntCounter::new("unregistered", "x")
        })
    }

    /// A gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[Label]) -> Gauge {
        let opts = with_labels(name, help, labels);
        self.keep(name, IntGauge::with_opts(opts), || {
            IntGauge::new("unregistered", "x")
        })
    }

    /// A histogram of seconds with buckets from 50 µs to 10 s.
    pub fn latency(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[Label],
    ) -> LatencyHistogram {
        let buckets = vec![
            0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
            0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let opts = HistogramOpts::from(with_labels(name, help, labels)).buckets(buckets);
        self.keep(name, Histogram::with_opts(opts), || {
            Histogram::with_opts(HistogramOpts::new("unregistered", "x"))
        })
    }

    /// Figures that `read` gives, in the same order, whenever the page is made.
    pub fn figures<F>(&self, figures: &'static [Figure], read: F)
    where
        F: Fn() -> Vec<u64> + Send + Sync + 'static,
    {
        let descs = figures
            .iter()
            .filter_map(|figure| {
                Desc::new(
                    figure.name.into(),
                    figure.help.into(),
                    vec![],
                    HashMap::default(),
                )
                .ok()
            })
            .collect();
        let source = Source {
            figures,
            descs,
            read: Box::new(read),
        };
        if let Err(error) = self.0.register(Box::new(source)) {
            tracing::error!(%error, "figures are left off the metrics page");
        }
    }

    /// What this process is, and what it takes of its machine: `process_…` as every Prometheus client has it.
    pub fn process(&self, role: &'static str, version: &'static str) {
        let labels = [("role", role), ("version", version)];
        self.gauge("zimcache_build_info", "Always 1.", &labels)
            .set(1);
        let registered = Process::new().and_then(|process| self.0.register(Box::new(process)));
        if let Err(error) = registered {
            tracing::error!(%error, "the process is left off the metrics page");
        }
    }

    /// The page in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut page = Vec::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode(&self.0.gather(), &mut page) {
            tracing::error!(%error, "the metrics page is incomplete");
        }
        String::from_utf8_lossy(&page).into_owned()
    }

    fn keep<M, F>(&self, name: &str, made: prometheus::Result<M>, spare: F) -> M
    where
        M: Collector + Clone + 'static,
        F: FnOnce() -> prometheus::Result<M>,
    {
        let registered = made.and_then(|metric| {
            if !name.starts_with(PREFIX) {
                return Err(prometheus::Error::Msg(format!(
                    "a name starts with {PREFIX}"
                )));
            }
            self.0.register(Box::new(metric.clone()))?;
            Ok(metric)
        });
        registered.unwrap_or_else(|error| {
            tracing::error!(%error, name, "a metric is left off the metrics page");
            debug_assert!(false, "metric {name}: {error}");
            #[allow(clippy::expect_used, reason = "the literal name above is a legal one")]
            spare().expect("a literal without labels is legal")
        })
    }
}

/// The buckets of a histogram: upper bound and how many observations are not above it.
pub fn buckets(histogram: &LatencyHistogram) -> Vec<(f64, u64)> {
    let families = histogram.collect();
    let metrics = families.iter().flat_map(MetricFamily::get_metric);
    let buckets = metrics.flat_map(|metric| metric.get_histogram().get_bucket().to_vec());
    buckets
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .collect()
}

fn with_labels(name: &'static str, help: &'static str, labels: &[Label]) -> Opts {
    labels
        .iter()
        .fold(Opts::new(name, help), |opts, (label, value)| {
            opts.const_label(*label, *value)
        })
}

struct Source {
    figures: &'static [Figure],
    descs: Vec<Desc>,
    read: Box<dyn Fn() -> Vec<u64> + Send + Sync>,
}

impl Collector for Source {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = (self.read)();
        let pairs = self.figures.iter().zip(values);
        pairs
            .flat_map(|(figure, value)| figure.family(value))
            .collect()
    }
}

impl Figure {
    fn family(&self, value: u64) -> Vec<MetricFamily> {
        match self.kind {
            Kind::Counter => IntCounter::new(self.name, self.help)
                .map(|counter| {
                    counter.inc_by(value);
                    counter.collect()
                })
                .unwrap_or_default(),
            Kind::Gauge => IntGauge::new(self.name, self.help)
                .map(|gauge| {
                    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
                    gauge.collect()
                })
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_one_name_and_different_labels_share_a_page() {
        let registry = Registry::new();
        let get = registry.counter("zimcache_test_total", "Tests.", &[("method", "get")]);
        let put = registry.counter("zimcache_test_total", "Tests.", &[("method", "put")]);
        get.inc_by(2);
        put.inc();
        registry
            .latency("zimcache_test_seconds", "Time.", &[])
            .observe(0.003);
        let page = registry.render();
        assert!(
            page.contains("zimcache_test_total{method=\"get\"} 2"),
            "{page}"
        );
        assert!(
            page.contains("zimcache_test_total{method=\"put\"} 1"),
            "{page}"
        );
        assert!(page.contains("zimcache_test_seconds_count 1"), "{page}");
    }

    #[test]
    fn buckets_count_what_is_not_above_their_bound() {
        let histogram = Registry::new().latency("zimcache_test_seconds", "Time.", &[]);
        histogram.observe(0.003);
        histogram.observe(99.0);
        let buckets = buckets(&histogram);
        assert!(buckets.contains(&(0.002_5, 0)) && buckets.contains(&(10.0, 1)));
    }

    #[test]
    fn a_process_tells_what_it_is_and_what_it_takes() {
        let registry = Registry::new();
        registry.process("node", "1.2.3");
        let page = registry.render();
        let built = "zimcache_build_info{role=\"node\",version=\"1.2.3\"} 1";
        assert!(page.contains(built), "{page}");
        assert!(page.contains("process_resident_memory_bytes "), "{page}");
    }

    #[test]
    fn figures_are_read_when_the_page_is_made() {
        const FIGURES: &[Figure] = &[
            Figure {
                kind: Kind::Gauge,
                name: "zimcache_test_bytes",
                help: "Bytes.",
            },
            Figure {
                kind: Kind::Counter,
                name: "zimcache_test_syncs_total",
                help: "Syncs.",
            },
        ];
        let registry = Registry::new();
        registry.figures(FIGURES, || vec![7, 9]);
        let page = registry.render();
        assert!(page.contains("# TYPE zimcache_test_bytes gauge"), "{page}");
        assert!(page.contains("zimcache_test_bytes 7"), "{page}");
        assert!(page.contains("zimcache_test_syncs_total 9"), "{page}");
    }
}
