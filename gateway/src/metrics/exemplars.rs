//! Requests that were traced as examples of how long requests take, and the format of the page that has room for them.
//!
//! OpenMetrics is the text format of Prometheus but for the names of counters in comments, exemplars, and an end. Not
//! here: who is traced (`zimcache_telemetry::trace`). Invariant: only a request that is traced takes the lock.

use std::{collections::HashMap, fmt::Write, time::Duration};

use parking_lot::Mutex;
use zimcache_types::{Clock as _, SystemClock, Timestamp};

/// A traced request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exemplar {
    pub(super) trace: String,
    pub(super) took: Duration,
    pub(super) ended: Timestamp,
}

/// The last traced request of a kind.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<Exemplar>>);

impl Last {
    pub(super) fn set(&self, trace: &str, took: Duration) {
        *self.0.lock() = Some(Exemplar {
            trace: trace.to_owned(),
            took,
            ended: SystemClock.now(),
        });
    }

    pub(super) fn get(&self) -> Option<Exemplar> {
        self.0.lock().clone()
    }
}

/// Exemplars of a histogram, by the labels of their series as they stand on the page, without `le`.
pub(super) type Exemplars = HashMap<String, Exemplar>;

/// The page in OpenMetrics, with exemplars in the histogram of this name.
pub(super) fn open_metrics(page: &str, histogram: &str, mut exemplars: Exemplars) -> String {
    let mut open = String::with_capacity(page.len() + 1024);
    let bucket = format!("{histogram}_bucket{{");
    let mut help = None;
    for line in page.lines() {
        if let Some(of_family) = line.strip_prefix("# HELP ") {
            help = Some(of_family);
        } else if let Some(of_family) = line.strip_prefix("# TYPE ") {
            comments(&mut open, help.take(), of_family);
        } else {
            open.push_str(line);
            if let Some(labels) = line.strip_prefix(&bucket) {
                example(&mut open, labels, &mut exemplars);
            }
            open.push('\n');
        }
    }
    open.push_str("# EOF\n");
    open
}

/// A family has the name of its samples without `_total`.
fn comments(open: &mut String, help: Option<&str>, of_family: &str) {
    let (name, kind) = of_family.split_once(' ').unwrap_or((of_family, "unknown"));
    let family = match kind {
        "counter" => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    };
    if let Some((_, text)) = help.and_then(|help| help.split_once(' ')) {
        writeln!(open, "# HELP {family} {text}").ok();
    }
    writeln!(open, "# TYPE {family} {kind}").ok();
}

/// Adds the exemplar of a series to the first bucket that has room for it.
fn example(open: &mut String, rest: &str, exemplars: &mut Exemplars) {
    let Some((labels, _)) = rest.split_once("} ") else {
        return;
    };
    let Some((labels, bound)) = labels.rsplit_once("le=\"") else {
        return;
    };
    let labels = labels.trim_end_matches(',');
    let bound = bound.trim_end_matches('"').parse().unwrap_or(f64::INFINITY);
    let fits = |found: &Exemplar| found.took.as_secs_f64() <= bound;
    if !exemplars.get(labels).is_some_and(fits) {
        return;
    }
    if let Some(found) = exemplars.remove(labels) {
        let ended = Duration::from_millis(found.ended.0);
        let (took, ended) = (found.took.as_secs_f64(), ended.as_secs_f64());
        write!(
            open,
            " # {{trace_id=\"{}\"}} {took} {:.3}",
            found.trace, ended
        )
        .ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP a_total A.
# TYPE a_total counter
a_total{x=\"1\"} 3
# HELP b_seconds B.
# TYPE b_seconds histogram
b_seconds_bucket{x=\"1\",le=\"0.5\"} 1
b_seconds_bucket{x=\"1\",le=\"1\"} 2
b_seconds_bucket{x=\"1\",le=\"+Inf\"} 2
b_seconds_bucket{x=\"2\",le=\"0.5\"} 0
b_seconds_bucket{x=\"2\",le=\"+Inf\"} 1
b_seconds_sum{x=\"1\"} 1
b_seconds_count{x=\"1\"} 2
";

    #[test]
    fn exemplars_stand_in_the_first_bucket_with_room_and_counters_lose_their_suffix() {
        let exemplar = |trace: &str, millis| Exemplar {
            trace: trace.to_owned(),
            took: Duration::from_millis(millis),
            ended: Timestamp(1_500),
        };
        let exemplars = Exemplars::from([
            ("x=\"1\"".to_owned(), exemplar("aa", 750)),
            ("x=\"2\"".to_owned(), exemplar("bb", 99_000)),
        ]);
        let open = open_metrics(PAGE, "b_seconds", exemplars);
        let expected = PAGE
            .replace("# HELP a_total", "# HELP a")
            .replace("# TYPE a_total", "# TYPE a")
            .replace(
                "le=\"1\"} 2\n",
                "le=\"1\"} 2 # {trace_id=\"aa\"} 0.75 1.500\n",
            )
            .replace(
                "x=\"2\",le=\"+Inf\"} 1\n",
                "x=\"2\",le=\"+Inf\"} 1 # {trace_id=\"bb\"} 99 1.500\n",
            );
        assert_eq!(open, expected + "# EOF\n");
    }
}
