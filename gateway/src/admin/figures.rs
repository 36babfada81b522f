//! Figures as JSON: health for probes, `stats` since the start, `usage` and `top` over time.
//!
//! `window=7d` (from a minute to ninety days) chooses how far back the last three look; the history behind them
//! survives restarts. A caller sees the namespaces that it may read; figures per tool and of the whole store are for
//! every reader. Not here: who counts (`metrics`, `history`).

use std::{cmp::Reverse, time::Duration};

use http::Response;
use serde::Serialize;
use zimcache_auth::{NamespacePattern, Principal, Scope};
use zimcache_config::human::parse_duration;
use zimcache_store::{StoreStats, Usage, UsageKind};
use zimcache_types::{EntryKind, Namespace};

use super::query::Query;
use crate::{
    Error,
    body::Body,
    call::Call,
    error::Result,
    history::{self, Course, Kind, Window},
    metrics::Counts,
    respond,
};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The window of who names none.
const USUAL_WINDOW: Duration = Duration::from_hours(7 * 24);
/// Rows of `top` for who does not say how many, and for everybody.
const USUAL_ROWS: usize = 10;
const MOST_ROWS: usize = 100;

/// For probes, which look at the status only, and for Builder's clients, which know the members below `read_only`.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    capacity_bytes: u64,
    live_bytes: u64,
    read_only: Option<String>,
    /// In seconds.
    uptime: u64,
    storage_used: u64,
    storage_total: u64,
    cache_hits: u64,
    cache_misses: u64,
    /// In percent.
    hit_rate: f64,
}

pub(super) fn health(call: &Call<'_>) -> Response<Body> {
    let stats = call.shared.admin.stats();
    let counts = call.shared.metrics.totals().counts;
    let status = if stats.read_only.is_some() {
        "read-only"
    } else {
        "ok"
    };
    respond::json(&Health {
        status,
        version: VERSION,
        capacity_bytes: stats.capacity_bytes,
        live_bytes: stats.live_bytes,
        uptime: call.shared.started.elapsed().as_secs(),
        storage_used: stats.live_bytes,
        storage_total: stats.capacity_bytes,
        cache_hits: counts.hits,
        cache_misses: counts.misses,
        hit_rate: 100.0 * counts.hit_rate().unwrap_or(0.0),
        read_only: stats.read_only,
    })
}

/// What was counted, as JSON.
#[derive(Debug, Serialize)]
struct Counted {
    hits: u64,
    misses: u64,
    hit_rate: Option<f64>,
    served_bytes: u64,
    stored_bytes: u64,
}

impl From<Counts> for Counted {
    fn from(counts: Counts) -> Counted {
        Counted {
            hits: counts.hits,
            misses: counts.misses,
            hit_rate: counts.hit_rate(),
            served_bytes: counts.served_bytes,
            stored_bytes: counts.stored_bytes,
        }
    }
}

#[derive(Debug, Serialize)]
struct Stats {
    version: &'static str,
    uptime_seconds: u64,
    connections: usize,
    requests: u64,
    hits: u64,
    misses: u64,
    hit_rate: Option<f64>,
    served_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Windowed>,
    #[serde(flatten)]
    store: StoreStats,
}

#[derive(Debug, Serialize)]
struct Windowed {
    seconds: u64,
    #[serde(flatten)]
    counted: Counted,
}

pub(super) async fn stats(call: &Call<'_>) -> Result<Response<Body>> {
    call.principal().await?;
    let shared = call.shared;
    let totals = shared.metrics.totals();
    let window = window(call)?.map(|window| {
        shared.history.sample(&shared.metrics);
        Windowed {
            seconds: window.until - window.from,
            counted: shared.history.total(&window).into(),
        }
    });
    Ok(respond::json(&Stats {
        version: VERSION,
        uptime_seconds: shared.started.elapsed().as_secs(),
        connections: shared.connections.count(),
        requests: totals.requests,
        hits: totals.counts.hits,
        misses: totals.counts.misses,
        hit_rate: totals.counts.hit_rate(),
        // What came in is in `store`, under a name that the counts use for the same.
        served_bytes: totals.counts.served_bytes,
        window,
        store: shared.admin.stats(),
    }))
}

/// What is held, and what was asked for over time.
#[derive(Debug, Serialize)]
struct Overview {
    version: &'static str,
    uptime_seconds: u64,
    capacity_bytes: u64,
    live_bytes: u64,
    blobs: u64,
    entries: u64,
    /// What compression made of `raw_bytes`.
    stored_bytes: u64,
    raw_bytes: u64,
    read_only: bool,
    held: Vec<Held>,
    /// The window, in seconds since 1970, and its steps.
    from: u64,
    until: u64,
    step_seconds: u64,
    total: Counted,
    tools: Vec<Curve>,
    namespaces: Vec<Curve>,
}

#[derive(Debug, Serialize)]
struct Held {
    namespace: String,
    kind: &'static str,
    count: u64,
    bytes: u64,
}

impl From<Usage> for Held {
    fn from(usage: Usage) -> Held {
        Held {
            namespace: usage.namespace.as_str().to_owned(),
            kind: usage.kind.as_str(),
            count: usage.count,
            bytes: usage.bytes,
        }
    }
}

#[derive(Debug, Serialize)]
struct Curve {
    name: String,
    #[serde(flatten)]
    total: Counted,
    /// Start of a step, hits, misses, bytes served, bytes stored; steps without anything are left out.
    steps: Vec<[u64; 5]>,
}

impl From<Course> for Curve {
    fn from(course: Course) -> Curve {
        let step = |(at, counts): (u64, Counts)| {
            let [hits, misses, served, stored] = counts.each();
            [at, hits, misses, served, stored]
        };
        Curve {
            name: course.name,
            total: course.total.into(),
            steps: course.steps.into_iter().map(step).collect(),
        }
    }
}

pub(super) async fn usage(call: &Call<'_>) -> Result<Response<Body>> {
    let principal = call.principal().await?;
    let shared = call.shared;
    let window = window_or_usual(call)?;
    let store = shared.admin.stats();
    let held = shared.admin.usage().await?.into_iter().filter(|usage| {
        let own = usage.kind == UsageKind::Entry(EntryKind::Internal);
        !own && principal.may(Scope::Read, &usage.namespace)
    });
    shared.history.sample(&shared.metrics);
    let tools = shared.history.courses(Kind::Tool, &window);
    Ok(respond::json(&Overview {
        version: VERSION,
        uptime_seconds: shared.started.elapsed().as_secs(),
        capacity_bytes: store.capacity_bytes,
        live_bytes: store.live_bytes,
        blobs: store.blobs,
        entries: store.entries,
        stored_bytes: store.stored_bytes,
        raw_bytes: store.raw_bytes,
        read_only: store.read_only.is_some(),
        held: held.map(Held::from).collect(),
        from: window.from,
        until: window.until,
        step_seconds: window.step,
        total: shared.history.total(&window).into(),
        tools: by_use(tools).map(Curve::from).collect(),
        namespaces: by_use(namespaces(call, &principal, &window))
            .map(Curve::from)
            .collect(),
    }))
}

/// The most used tools and namespaces.
#[derive(Debug, Serialize)]
struct Top {
    from: u64,
    until: u64,
    tools: Vec<Ranked>,
    namespaces: Vec<Ranked>,
}

#[derive(Debug, Serialize)]
struct Ranked {
    name: String,
    #[serde(flatten)]
    counted: Counted,
}

pub(super) async fn top(call: &Call<'_>) -> Result<Response<Body>> {
    let principal = call.principal().await?;
    let shared = call.shared;
    let window = window_or_usual(call)?;
    let rows = Query::of(call.head).limit(USUAL_ROWS, MOST_ROWS)?;
    shared.history.sample(&shared.metrics);
    let ranked = |courses: Vec<Course>| {
        let ranked = by_use(courses).take(rows).map(|course| Ranked {
            name: course.name,
            counted: course.total.into(),
        });
        ranked.collect()
    };
    Ok(respond::json(&Top {
        from: window.from,
        until: window.until,
        tools: ranked(shared.history.courses(Kind::Tool, &window)),
        namespaces: ranked(namespaces(call, &principal, &window)),
    }))
}

/// How the cluster stands, where this is a gateway of one.
pub(super) async fn cluster(call: &Call<'_>) -> Result<Response<Body>> {
    call.principal().await?;
    let report = call.shared.admin.cluster();
    Ok(report.map_or_else(respond::miss, |report| respond::json(&report)))
}

/// What the namespaces did that the caller may read. The others together are for who may read all of them.
fn namespaces(call: &Call<'_>, principal: &Principal, window: &Window) -> Vec<Course> {
    let mut courses = call.shared.history.courses(Kind::Namespace, window);
    let sees_all = *principal.pattern() == NamespacePattern::All;
    courses.retain(|course| {
        let name = Namespace::new(&course.name);
        name.map_or(sees_all, |name| principal.may(Scope::Read, &name))
    });
    courses
}

/// The most used first.
fn by_use(mut courses: Vec<Course>) -> impl Iterator<Item = Course> {
    courses.sort_by_key(|course| Reverse(course.total.hits + course.total.misses));
    courses.into_iter()
}

fn window(call: &Call<'_>) -> Result<Option<Window>> {
    let Some(text) = Query::of(call.head).get("window")? else {
        return Ok(None);
    };
    let length = parse_duration(&text)
        .map_err(|_| Error::Request("window is a duration such as 24h or 7d"))?;
    Ok(Some(Window::last(length, history::now_seconds())))
}

fn window_or_usual(call: &Call<'_>) -> Result<Window> {
    let usual = || Window::last(USUAL_WINDOW, history::now_seconds());
    Ok(window(call)?.unwrap_or_else(usual))
}
